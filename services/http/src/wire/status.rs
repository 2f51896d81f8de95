//! What a region says about itself: for people, the console and the end of a drill.

use std::collections::BTreeMap;

use longhaul_core::quarantine::Decision;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET`: [`RegionStatus`].
pub const STATUS_PATH: &str = "/internal/v1/status";
/// `GET ?after=UUID&limit=N`: remembered operations in id order, as a list of [`RememberedOperation`].
pub const OPERATIONS_PATH: &str = "/internal/v1/operations";
/// `GET ?offset=N&limit=N`: [`ConflictView`]s.
pub const CONFLICTS_PATH: &str = "/internal/v1/conflicts";
/// `GET ?offset=N&limit=N`: quarantined operations, as [`QuarantineView`]s.
pub const QUARANTINE_PATH: &str = "/internal/v1/quarantine";
/// `POST` [`QuarantineDecision`].
pub const QUARANTINE_DECIDE_PATH: &str = "/internal/v1/quarantine/decide";
/// `GET`: [`DigestView`].
pub const DIGEST_PATH: &str = "/internal/v1/digest";
/// `GET ?after=N`: [`VisibilityPage`].
pub const VISIBILITY_PATH: &str = "/internal/v1/visibility";
/// `POST` [`ClockSkew`].
pub const CLOCK_PATH: &str = "/internal/v1/clock";
/// `POST` [`SweepRequest`], answers [`SweepResult`].
pub const SWEEP_PATH: &str = "/internal/v1/sweep";

/// A region at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegionStatus {
    /// Its name.
    pub region: String,
    /// `starting`, `joining`, `follower`, `primary`, `fenced`, `active`, `home`, `degraded`.
    pub role: String,
    /// Whether it serves.
    pub ready: bool,
    /// The epoch that it has adopted.
    pub epoch: u64,
    /// Its incarnation.
    pub incarnation: u32,
    /// Milliseconds until its lease ends (primary only; 0 or less: none).
    pub lease_remaining_ms: i64,
    /// What it has, per timeline.
    pub positions: BTreeMap<String, TimelineStatus>,
    /// How far it is behind each peer's own timeline.
    pub lag: BTreeMap<String, Lag>,
    /// Concurrent overwrites kept.
    pub conflicts: u64,
    /// Operations in quarantine.
    pub quarantined: u64,
    /// Operations in quarantine about which nobody has decided.
    pub quarantine_open: u64,
    /// Live records.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Log entries.
    pub operations: u64,
    /// Bytes on disk.
    pub store_bytes: u64,
    /// Writes waiting for the writer.
    pub write_queue: u64,
    /// Injected skew of the wall clock, milliseconds.
    pub clock_skew_ms: i64,
    /// Estimated offset of each peer's clock against this one, milliseconds.
    pub clock_offset_ms: BTreeMap<String, f64>,
    /// Why it does not serve, if it does not, or what is wrong.
    pub trouble: Option<String>,
    /// Links that stopped, by peer, with the reason.
    pub stopped_links: BTreeMap<String, String>,
    /// Divergence alarms: two histories under one number, or digests that differ without a reason. Must be 0.
    pub divergence_alarms: u64,
}

/// How far a timeline is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineStatus {
    /// Durably held up to here.
    pub seq: u64,
    /// Visible up to here.
    pub visible: u64,
}

/// How far a region is behind one peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lag {
    /// Operations that the peer is known to have and this region has not.
    pub operations: u64,
    /// Age of the oldest of them, milliseconds; at least the age of the knowledge when the peer is silent.
    pub ms: f64,
    /// How old the knowledge is, milliseconds. Beyond three heartbeats the lag is "at least".
    pub knowledge_age_ms: f64,
}

/// One remembered operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RememberedOperation {
    /// The client's id.
    pub op_id: String,
    /// `region.incarnation:seq`.
    pub dot: String,
    /// The home of the record, by name.
    pub home: String,
    /// Its version.
    pub version: String,
}

/// A write that lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConflictView {
    /// `home/id`.
    pub key: String,
    /// The client's id of the operation that lost.
    pub loser_op_id: String,
    /// Its version.
    pub loser_version: String,
    /// Its value (`null` if it was a delete).
    pub loser_value: Option<serde_json::Value>,
    /// The client's id of the operation that won.
    pub winner_op_id: String,
    /// `concurrent` or `stale_retry`.
    pub kind: String,
}

/// An operation that was accepted but does not belong to history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineView {
    /// `region.incarnation:seq`.
    pub dot: String,
    /// The client's id.
    pub op_id: String,
    /// `home/id`.
    pub key: Option<String>,
    /// The value (`null` if it was a delete).
    pub value: Option<serde_json::Value>,
    /// `past_cut` or `evicted`.
    pub reason: String,
    /// `open`, `merged` or `discarded`.
    pub state: String,
    /// What happened to the record since: `untouched`, `overwritten`, `deleted`, or `repeated` (a retry of the same
    /// operation was accepted elsewhere).
    pub record_now: String,
}

/// What to do with quarantined operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineDecision {
    /// What is to become of them.
    pub decision: Decision,
    /// Which, by dot; all open ones if empty.
    #[serde(default)]
    pub dots: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct QuarantineOutcome {
    /// Written again.
    pub merged: u64,
    /// Given up.
    pub discarded: u64,
    /// Left as they are, because the record was written since.
    pub skipped: u64,
}

/// What a region holds, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DigestView {
    /// Positions by timeline.
    pub vector: BTreeMap<String, u64>,
    /// Digest per home (by name), hexadecimal.
    pub homes: BTreeMap<String, String>,
    /// Rows per home.
    pub rows: BTreeMap<String, u64>,
}

/// When sampled operations became visible at a region, on the host's boot clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VisibilityPage {
    /// Ask next with `after` = this.
    pub next: u64,
    /// `(operation id, nanoseconds since boot)`.
    pub visible: Vec<(String, u64)>,
}

/// Injected skew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockSkew {
    /// Milliseconds; negative is behind.
    pub offset_ms: i64,
}

/// Look for byte strings in everything that a region keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SweepRequest {
    /// Texts to look for.
    pub needles: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SweepResult {
    /// `(index of the needle, place)`.
    pub found: Vec<(usize, String)>,
}
