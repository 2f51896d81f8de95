//! The records API, of gateways and regions alike.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT`, `GET`, `DELETE` of a record: home (by name) and id.
pub const RECORD_PATH: &str = "/v1/records/{home}/{id}";

/// Request: the client's operation id (a UUID), stable over retries. Drawn by the gateway if absent.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Request and answer: the session token.
pub const SESSION: &str = "longhaul-session";
/// Request: `eventual` (default), `session` or `primary`.
pub const CONSISTENCY: &str = "longhaul-consistency";
/// Answer: the region that served.
pub const REGION: &str = "longhaul-region";
/// Answer: the epoch of the regime under which it served.
pub const EPOCH: &str = "longhaul-epoch";
/// Answer: the durability that was promised.
pub const DURABILITY_PROMISED: &str = "longhaul-durability-promised";
/// Answer: the durability that was reached.
pub const DURABILITY_ACHIEVED: &str = "longhaul-durability-achieved";
/// Answer: how many regions the gateway tried.
pub const ATTEMPTS: &str = "longhaul-attempts";
/// Answer of a conditional write: `primary` (one writer) or `regional` (only this region checked it).
pub const GUARANTEE: &str = "longhaul-guarantee";

/// The path of a record.
pub fn record_path(home: &str, id: &str) -> String {
    format!("/v1/records/{home}/{id}")
}

/// The answer to a write. The version is also the `ETag`, in quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The version, 36 hexadecimal digits; texts sort in version order.
    pub version: String,
    /// The operation, `region.incarnation:seq`.
    pub dot: String,
    /// The region that accepted it.
    pub region: String,
    /// The epoch under which it was accepted.
    pub epoch: u64,
    /// The client's operation id.
    pub op_id: String,
    /// Whether this operation had been accepted before (a retry).
    pub repeated: bool,
}
