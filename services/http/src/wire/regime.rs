//! The regime on the wire: reading it, changing it, and the record of each change.

use std::collections::BTreeMap;

use longhaul_core::ids::RegionId;
use longhaul_core::regime::Target;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET`: the regime that a region (or gateway) has adopted, as JSON of `longhaul_core::regime::Regime`.
pub const REGIME_PATH: &str = "/v1/regime";
/// `POST` a [`TransitionRequest`] to the coordinating region; `GET` lists [`ChangeStatus`].
pub const TRANSITIONS_PATH: &str = "/internal/v1/transitions";
/// `POST` a [`FailoverRequest`] to any surviving region.
pub const FAILOVERS_PATH: &str = "/internal/v1/failovers";
/// `GET`: every change that this region drove, newest last, as a list of [`ChangeStatus`].
pub const CHANGES_PATH: &str = "/internal/v1/changes";

/// Ask for a planned transition (switchover, mode or durability switch).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransitionRequest {
    /// Where to.
    pub target: Target,
    /// Go on where it would be refused.
    pub force: bool,
}

/// Ask for an unplanned failover by command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailoverRequest {
    /// The new primary; the best candidate if absent.
    pub to: Option<RegionId>,
    /// Accept the loss of acknowledged writes.
    pub allow_data_loss: bool,
}

/// How a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Under way.
    Running,
    /// Completed: the new regime is in force.
    Done,
    /// Rolled back; `reason` says why.
    Aborted,
    /// Refused before anything changed; `missing` says why.
    Refused,
}

/// A moment in a change, on the host's boot clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Milestone {
    /// `suspected`, `decided`, `fenced`, `chosen`, `promoted`, `announced`, `drained`, `caught_up`, `flipped`,
    /// `activated`, `certified`, `purged`, `merged`, `aborted`.
    pub name: String,
    /// When, nanoseconds since boot.
    pub boot_ns: u64,
    /// The region that it happened at.
    pub region: String,
}

/// A failover, switchover or mode switch, as the region that drove it (or took part in it) saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeStatus {
    /// Its identity (UUID).
    pub id: String,
    /// `failover`, `switchover`, `mode_switch`, `durability`, `membership`.
    pub kind: String,
    /// How it stands.
    pub state: ChangeState,
    /// The region that reports.
    pub region: String,
    /// Epoch before.
    pub epoch_from: u64,
    /// Epoch after (0 while unknown).
    pub epoch_to: u64,
    /// Primary before, by name.
    pub from: Option<String>,
    /// Primary after, by name.
    pub to: Option<String>,
    /// One line for people.
    pub reason: String,
    /// What is missing, one line per region.
    pub missing: Vec<String>,
    /// Acknowledged writes that the servers expect to be lost (last known head minus the cut).
    pub predicted_loss: Option<u64>,
    /// Moments in order.
    pub milestones: Vec<Milestone>,
    /// The trace, 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// A change that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeStarted {
    /// Its identity (UUID).
    pub id: String,
}

/// Names of regions by number, for people.
pub type RegionNames = BTreeMap<RegionId, String>;
