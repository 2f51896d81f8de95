//! Links: what the link role says about them, and how they are changed while traffic flows.

use std::collections::BTreeMap;

use longhaul_core::link::LinkProfile;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET` lists every directed link ([`LinkView`]).
pub const LINKS_PATH: &str = "/v1/links";
/// `GET` shows one directed link; `PATCH` changes it (`longhaul_core::link::LinkPatch`) and answers with the link as it
/// is from then on.
pub const LINK_PATH: &str = "/v1/links/{from}/{to}";
/// `POST` puts every link back to its declared profile and answers with all of them.
pub const LINKS_RESET_PATH: &str = "/v1/links/reset-to-declared";
/// `GET` answers with the bytes that crossed each link ([`LinkBytesView`]).
pub const LINK_BYTES_PATH: &str = "/v1/bytes";

/// The path of one directed link.
pub fn link_path(from: &str, to: &str) -> String {
    format!("{LINKS_PATH}/{from}/{to}")
}

/// One directed link as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// From which location.
    pub from: String,
    /// To which location.
    pub to: String,
    /// As the topology declares it.
    pub declared: LinkProfile,
    /// As it is now; `state` follows the flap, if there is one.
    pub current: LinkProfile,
    /// Half the period of the flap, milliseconds, if it flaps.
    pub flap_ms: Option<u64>,
    /// Open connections that send over it, in either role.
    pub connections: u32,
    /// Open connections that lost bytes on it and carry nothing more in this direction.
    pub dead_connections: u32,
}

/// What crossed one directed link since the start. Only what was delivered counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkBytesView {
    /// From which location.
    pub from: String,
    /// To which location.
    pub to: String,
    /// Bytes of TCP payload by cause: `users`, `replication`, `regime`, `probe`.
    pub bytes: BTreeMap<String, u64>,
}
