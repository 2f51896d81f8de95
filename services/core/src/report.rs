//! The report of a run: what clients saw, in figures. One type for JSON, tables and the HTML page.
//!
//! Everything in it comes from the ledger (what clients saw), the link certificate, or is marked as a server's own
//! word. Field names are a contract: scripts read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::plan::DrillPlan;
use crate::regime::{Durability, Mode};

/// The judgement of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every expectation was met.
    Passed,
    /// An expectation was not met; `reasons` says which.
    Failed,
    /// The run proves nothing: a link was not as declared, the load generator fell behind, or a fault did not take.
    Invalid,
}

/// One directed pair of the certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkCheck {
    /// From which location.
    pub from: String,
    /// To which location.
    pub to: String,
    /// Declared round trip, milliseconds.
    pub declared_rtt_ms: f64,
    /// Measured round trip before the run (median of the probes), milliseconds; absent if no probe came back.
    pub measured_rtt_ms: Option<f64>,
    /// Measured round trip after the run, milliseconds.
    #[serde(default)]
    pub measured_after_rtt_ms: Option<f64>,
    /// What is tolerated: the larger of 1 ms and 2 %.
    pub tolerance_ms: f64,
    /// Whether every measurement is within the tolerance.
    pub ok: bool,
    /// Where the declared figure comes from.
    pub source: String,
}

/// Recovery time of one edge.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ReadWrite {
    /// Reads: milliseconds; absent if they did not recover before the end.
    pub read: Option<f64>,
    /// Writes: milliseconds; absent if they did not recover before the end.
    pub write: Option<f64>,
}

/// An outage split into its phases, milliseconds. They add up to `total`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Phases {
    /// Fault to the first suspicion by a region.
    pub detect: f64,
    /// First suspicion to the decision (a majority suspects, a proposer begins).
    pub decide: f64,
    /// Decision to a fenced majority (promises given, leases run out).
    pub fence: f64,
    /// Fenced to the new primary being active (positions, top-up, cut, activation).
    pub promote: f64,
    /// Active to known at the edge's gateway.
    pub publish: f64,
    /// Known at the gateway to the first success after which service stays up.
    pub first_success: f64,
    /// Fault to that success: the recovery time of writes at the edge.
    pub total: f64,
}

/// One acknowledged write that no region has at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LostWrite {
    /// The client's operation id.
    pub op_id: String,
    /// The record, `home/id`.
    pub key: String,
    /// The edge where its user was.
    pub edge: String,
    /// The region that acknowledged it, if its answer named one.
    #[serde(default)]
    pub region: Option<String>,
    /// When it was acknowledged, seconds from the start of the measured run.
    pub acknowledged_s: f64,
    /// Whether it lies in a quarantine, so that a person can bring it back.
    pub quarantined: bool,
    /// The trace of the operation, 32 hexadecimal digits.
    #[serde(default)]
    pub trace_id: Option<String>,
}

/// Recovery point: what was acknowledged and is gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Rpo {
    /// Acknowledged writes that no region has at the end.
    pub writes: u64,
    /// Last acknowledgement by the old primary minus the acknowledgement of the earliest lost write, seconds.
    pub seconds: f64,
    /// Every lost write (all of them in JSON).
    pub lost: Vec<LostWrite>,
    /// Writes with an unknown outcome that survived.
    pub unknown_survived: u64,
    /// Writes with an unknown outcome that did not survive.
    pub unknown_absent: u64,
    /// What the servers predicted from the last heartbeat (for comparison only).
    #[serde(default)]
    pub predicted_writes: Option<u64>,
}

/// Percentiles of a duration, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th.
    pub p90: f64,
    /// 99th.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// How many were measured.
    pub count: u64,
}

/// Session guarantees that were broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SessionViolations {
    /// A session did not read its own acknowledged write.
    pub read_your_writes: u64,
    /// A session read an older version than before.
    pub monotonic_reads: u64,
}

/// Overwrites that lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Conflicts {
    /// Acknowledged writes that a concurrent write overwrote (exact, by context).
    pub concurrent: u64,
    /// Of those, sent only after the winner had been acknowledged: last-writer-wins kept the older one.
    pub inverted: u64,
    /// Lost updates that no conflict, quarantine or loss explains; must be 0.
    pub unexplained: u64,
}

/// Broken promises that must never happen, whatever the fault.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Anomalies {
    /// Operations reported as failed that took effect.
    pub failed_but_present: u64,
    /// Operation ids with two dots.
    pub duplicates: u64,
    /// Reads of values that nobody wrote.
    pub phantoms: u64,
    /// Deleted records that came back.
    pub resurrections: u64,
    /// Reads with a promised consistency that were older than promised.
    pub stale_reads: u64,
    /// Up to 20 examples, one line each.
    pub examples: Vec<String>,
}

impl Anomalies {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.failed_but_present + self.duplicates + self.phantoms + self.resurrections + self.stale_reads
    }
}

/// What a returned region put aside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// Operations in quarantine, over all regions.
    pub operations: u64,
    /// Per region.
    pub by_region: BTreeMap<String, u64>,
}

/// Operations of one edge in one second of the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct SecondPoint {
    /// Second from the start of the measured run (of the intended start of the operations).
    pub second: u32,
    /// Intended reads.
    pub reads: u32,
    /// Reads that succeeded in time.
    pub reads_ok: u32,
    /// Intended writes.
    pub writes: u32,
    /// Writes that succeeded in time.
    pub writes_ok: u32,
    /// Median latency of what succeeded, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of what succeeded, milliseconds.
    pub p99_ms: f64,
}

/// A moment worth a mark on the plots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// Seconds from the start of the measured run.
    pub at_s: f64,
    /// What it is: `fault`, `heal`, `phase`, `regime`.
    pub kind: String,
    /// One line for people.
    pub text: String,
}

/// What crossed a link, and what that would cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkBytes {
    /// From which location.
    pub from: String,
    /// To which location.
    pub to: String,
    /// Bytes that crossed it, by cause (`users`, `replication`, `regime`, `probe`).
    pub bytes: BTreeMap<String, u64>,
    /// At the plan's price, US dollars.
    pub usd: f64,
}

/// A trace, and where to look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceLink {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Its address in Jaeger, if there is one.
    #[serde(default)]
    pub url: Option<String>,
}

/// Where the traces of a run are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TraceLinks {
    /// The drill: its phases and faults.
    pub drill: Option<TraceLink>,
    /// The change of the regime that ended the worst outage of writes, with its phases; absent if there was none.
    pub failover: Option<TraceLink>,
    /// The first request that failed in it.
    pub first_failed: Option<TraceLink>,
    /// The first request that succeeded after it.
    pub first_success: Option<TraceLink>,
    /// Ready searches in Jaeger, by what they show.
    pub searches: BTreeMap<String, String>,
}

/// One run of a plan in one mode and durability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunReport {
    /// The judgement.
    pub verdict: Verdict,
    /// Why it is not `passed`, one line each.
    pub reasons: Vec<String>,
    /// The mode at the start.
    pub mode: Mode,
    /// The durability at the start.
    pub durability: Durability,
    /// The seed.
    pub seed: u64,
    /// The plan as it ran.
    pub plan: DrillPlan,
    /// The topology's name.
    pub topology: String,
    /// The version of longhaul.
    pub version: String,
    /// `embedded`, `containers` or `simulated`.
    pub world: String,
    /// The certificate: every directed pair.
    pub links: Vec<LinkCheck>,
    /// Whether every link was as declared, before and after.
    pub links_ok: bool,
    /// Operations intended in the measured run.
    pub operations: u64,
    /// Of those, how many the regime forbids by design (foreign records in isolation).
    pub policy_denials: u64,
    /// Recovery time per edge, milliseconds; 0 if nothing failed; absent if there was no fault.
    pub rto_ms: BTreeMap<String, ReadWrite>,
    /// Recovery of writes per edge, by phase.
    pub rto_phases_ms: BTreeMap<String, Phases>,
    /// The recovery point.
    pub rpo: Rpo,
    /// Share of intended operations that succeeded in time, per edge; policy denials left out.
    pub availability: BTreeMap<String, f64>,
    /// Availability per home of the record, which shows whose data an outage hits.
    pub availability_by_home: BTreeMap<String, f64>,
    /// Latency from the intended start, per edge.
    pub latency_ms: BTreeMap<String, Percentiles>,
    /// Reads alone, per edge.
    pub read_latency_ms: BTreeMap<String, Percentiles>,
    /// Writes alone, per edge.
    pub write_latency_ms: BTreeMap<String, Percentiles>,
    /// How old the answers of reads were, over all edges.
    pub staleness_ms: Percentiles,
    /// Share of reads that were stale at all.
    pub stale_read_share: f64,
    /// Origin's commit to visible at each peer, `origin→peer`.
    pub lag_ms: BTreeMap<String, Percentiles>,
    /// Concurrent overwrites.
    pub conflicts: Conflicts,
    /// Acknowledged appends that are not in the final lists and are not part of the recovery point.
    pub lost_updates: u64,
    /// Acknowledged appends.
    pub appends: u64,
    /// Foreign bytes found, by distinct (record, place); counted in isolation only.
    pub residency_violations: u64,
    /// One line for each of the first 20.
    pub residency_examples: Vec<String>,
    /// What returned regions put aside.
    pub quarantined: Quarantined,
    /// Session guarantees.
    pub sessions: SessionViolations,
    /// What must never happen.
    pub anomalies: Anomalies,
    /// Whether every region held the same at the end (in isolation: whether every home held its own).
    pub converged: bool,
    /// How long that took after the end of traffic, seconds.
    pub convergence_s: f64,
    /// Bytes over each link.
    pub cost: Vec<LinkBytes>,
    /// Per edge and second.
    pub timeline: BTreeMap<String, Vec<SecondPoint>>,
    /// Faults, phases, regimes.
    pub marks: Vec<Mark>,
    /// The trace of the drill, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// Traces and ready searches.
    #[serde(default)]
    pub traces: TraceLinks,
}

/// The same plan, seed and workload in several modes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// The plan's name.
    pub plan: String,
    /// The seed.
    pub seed: u64,
    /// The runs, in the order in which they ran.
    pub runs: Vec<RunReport>,
}
