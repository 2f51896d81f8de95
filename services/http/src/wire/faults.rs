//! Faults: what was broken on purpose, whether it took effect, and when it was healed.

use longhaul_core::plan::Action;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST` an [`Action`]; `GET` lists [`FaultView`]s; `DELETE` heals all.
pub const FAULTS_PATH: &str = "/v1/faults";

/// How a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultState {
    /// It is in force, and that was verified.
    Active,
    /// It was an act of healing, or of one moment; nothing is left to heal.
    Done,
    /// It was healed.
    Healed,
    /// It did not take effect; `trouble` says why.
    Failed,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// Its identity (UUID).
    pub id: String,
    /// What was asked for, with `primary` and `secondary` resolved to names.
    pub action: Action,
    /// How it stands.
    pub state: FaultState,
    /// When control began to inject it, nanoseconds since boot.
    pub started_boot_ns: u64,
    /// When it was verified (process gone, link black), nanoseconds since boot.
    pub verified_boot_ns: Option<u64>,
    /// When it was healed, nanoseconds since boot.
    pub healed_boot_ns: Option<u64>,
    /// One line for people.
    pub text: String,
    /// Why it did not take effect.
    pub trouble: Option<String>,
}

/// How many faults were healed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Healed {
    /// The faults, by id.
    pub healed: Vec<String>,
    /// What could not be healed, one line each.
    pub trouble: Vec<String>,
}
