//! The traffic role on the wire: measured runs, what the ledger and the evidence say about them, and continuous
//! traffic outside of runs.

use std::collections::BTreeMap;

use longhaul_core::plan::Workload;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::report::{
    Anomalies, Conflicts, Mark, Percentiles, Phases, Quarantined, ReadWrite, Rpo, SecondPoint, SessionViolations,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::regime::ChangeStatus;

/// `POST` a [`RunRequest`], answers [`RunStarted`]; `conflict` (409) while a run or continuous traffic is under way.
pub const RUNS_PATH: &str = "/v1/runs";
/// `GET`: [`RunProgress`].
pub const RUN_PATH: &str = "/v1/runs/{id}";
/// `POST`: sends no further operation; answers [`RunProgress`]. The run can be judged as far as it went.
pub const RUN_STOP_PATH: &str = "/v1/runs/{id}/stop";
/// `POST` a [`JudgeRequest`], answers [`Findings`] after at most `settle_s` plus the time to gather the evidence.
pub const RUN_JUDGE_PATH: &str = "/v1/runs/{id}/judge";
/// `GET`: the ledger of a run that has ended sending, for the role that judges it (postcard); `conflict` (409) before.
pub const RUN_LEDGER_PATH: &str = "/v1/runs/{id}/ledger";
/// `GET`: the [`Findings`] of a judged run again; `conflict` (409) before.
pub const RUN_FINDINGS_PATH: &str = "/v1/runs/{id}/findings";
/// `POST` a [`TrafficRequest`], `GET`, `DELETE`: each answers [`TrafficStatus`].
pub const TRAFFIC_PATH: &str = "/v1/traffic";

/// The path of a run.
pub fn run_path(id: &str) -> String {
    format!("{RUNS_PATH}/{id}")
}

/// The path that stops a run.
pub fn run_stop_path(id: &str) -> String {
    format!("{RUNS_PATH}/{id}/stop")
}

/// The path that judges a run.
pub fn run_judge_path(id: &str) -> String {
    format!("{RUNS_PATH}/{id}/judge")
}

/// The path of a judged run's findings.
pub fn run_findings_path(id: &str) -> String {
    format!("{RUNS_PATH}/{id}/findings")
}

/// The path of a run's ledger.
pub fn run_ledger_path(id: &str) -> String {
    format!("{RUNS_PATH}/{id}/ledger")
}

/// An edge whose users are played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EdgeTarget {
    /// Its name.
    pub name: String,
    /// The region (by name) that is home to the records of its users.
    pub home: String,
    /// `host:port` of its gateway.
    pub gateway: String,
}

/// A region, reached directly and out of band. Only for the evidence at the end, never for users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegionTarget {
    /// Its name.
    pub name: String,
    /// `host:port` of the region itself, not of a link.
    pub address: String,
}

/// Start a measured run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunRequest {
    /// What users do.
    pub workload: Workload,
    /// The edges in the topology's order (`follow_the_sun` shifts by it).
    pub edges: Vec<EdgeTarget>,
    /// Every region in the topology's order: the n-th, from 1, is region number n in dots and versions.
    pub regions: Vec<RegionTarget>,
    /// The seed of everything random. Equal seeds, workloads and edges give equal operations in every mode.
    pub seed: u64,
    /// Traffic before the measured run, seconds; not measured, but part of the evidence.
    pub warm_up_s: f64,
    /// Length of the measured run, seconds.
    pub duration_s: f64,
    /// The mode at the start.
    pub mode: Mode,
    /// The secret of the canaries in this run's values; any text that no other run uses.
    pub run_key: String,
    /// What of it this role plays; all of it if absent.
    #[serde(default)]
    pub part: Option<RunPart>,
}

/// The share of one role in a run that several roles play, one at each edge. Everybody gets the same request otherwise, so
/// that the operations are the same as if one role played all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunPart {
    /// The identity of the run, the same for all (UUID).
    pub id: String,
    /// When the traffic starts (warm-up included), nanoseconds since boot: the same moment for all.
    pub start_boot_ns: u64,
    /// The edges whose users this role plays, by name.
    pub edges: Vec<String>,
    /// Whether this role will judge: it watches the regions meanwhile.
    pub judges: bool,
}

/// A run that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStarted {
    /// Its identity (UUID).
    pub id: String,
    /// When the measured run starts (after the warm-up), nanoseconds since boot. Second 0 of every figure.
    pub start_boot_ns: u64,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Traffic flows and is not measured yet.
    Warming,
    /// Traffic flows and is measured.
    Running,
    /// Every operation has its outcome; the run waits to be judged.
    FinishedSending,
    /// The evidence is being gathered.
    Judging,
    /// Judged.
    Done,
}

/// What one edge's users have done so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct EdgeProgress {
    /// Operations begun.
    pub sent: u64,
    /// Of those, succeeded.
    pub ok: u64,
    /// Definitely failed.
    pub failed: u64,
    /// Ended with an unknown outcome.
    pub unknown: u64,
    /// Median latency of the successes of the last full second, milliseconds; 0 if there was none.
    pub p50_ms: f64,
    /// Share of the operations that ended in the last full second and succeeded; 1 if none ended.
    pub ok_share: f64,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunProgress {
    /// Its identity.
    pub id: String,
    /// How far it is.
    pub state: RunState,
    /// Seconds since the measured run started; negative during the warm-up.
    pub elapsed_s: f64,
    /// Per edge, warm-up included.
    pub edges: BTreeMap<String, EdgeProgress>,
}

/// Something that the drill did to the testbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultMark {
    /// When its injection began, nanoseconds since boot.
    pub boot_ns: u64,
    /// The plan's action: `region-loss`, `link`, `kill`, `pause`, `switchover`, `switch`, … Recovery is measured from
    /// every action but those that heal (`region-return`, `restart`, `resume`, `heal-links`).
    pub kind: String,
    /// One line for people.
    pub what: String,
    /// When it was taken back, if it was.
    #[serde(default)]
    pub heal_boot_ns: Option<u64>,
    /// The region that it struck, if it struck one.
    #[serde(default)]
    pub region: Option<String>,
}

/// When a gateway began to follow a regime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayAdoption {
    /// The edge.
    pub edge: String,
    /// The epoch.
    pub epoch: u64,
    /// When, nanoseconds since boot.
    pub boot_ns: u64,
    /// The primary in it, by name.
    #[serde(default)]
    pub primary: Option<String>,
}

/// From when on a mode was in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeSpan {
    /// Nanoseconds since boot.
    pub boot_ns: u64,
    /// The mode.
    pub mode: Mode,
}

/// Judge a run whose operations have all ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgeRequest {
    /// What the drill did, in any order.
    #[serde(default)]
    pub faults: Vec<FaultMark>,
    /// Every change that any region reports. The same change from several regions is welcome: they are joined by id.
    #[serde(default)]
    pub changes: Vec<ChangeStatus>,
    /// When each edge's gateway adopted each epoch.
    #[serde(default)]
    pub gateway_adoptions: Vec<GatewayAdoption>,
    /// The mode at the start.
    pub start_mode: Mode,
    /// The durability at the start.
    pub durability: Durability,
    /// The modes that followed, with the moment at which each came into force. Empty: `start_mode` all along.
    #[serde(default)]
    pub modes: Vec<ModeSpan>,
    /// How long to wait for the regions to converge, seconds.
    pub settle_s: f64,
    /// Regions that the drill leaves down: no evidence is expected from them.
    #[serde(default)]
    pub regions_expected_down: Vec<String>,
    /// `host:port` of every other role that played a part of the run: their ledgers are fetched and joined.
    #[serde(default)]
    pub others: Vec<String>,
}

/// How many operations of the measured run ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct OutcomeCounts {
    /// Succeeded within their deadline.
    pub ok: u64,
    /// Definitely failed: they never took effect.
    pub failed: u64,
    /// May or may not have taken effect.
    pub unknown: u64,
    /// Of the failed: never sent, because the load generator was at its limit of operations in flight.
    pub not_sent: u64,
}

/// An outage of writes at one edge, for traces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Outage {
    /// When the fault began, nanoseconds since boot.
    pub fault_boot_ns: u64,
    /// When service was up again, nanoseconds since boot; absent if it was not.
    pub up_boot_ns: Option<u64>,
    /// The change of the regime that ended it, by id.
    pub change: Option<String>,
    /// The trace of the first write that failed, 32 hexadecimal digits.
    pub first_failed: Option<String>,
    /// The trace of the success after which service stayed up.
    pub first_success: Option<String>,
}

/// Everything of a [`longhaul_core::report::RunReport`] that the ledger and the evidence can say; fields of the same
/// name mean the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Findings {
    /// Why the run proves nothing, one line each; empty if it does. Any line makes the verdict `invalid`.
    pub invalid: Vec<String>,
    /// What a reader of the figures should know, one line each (regions without evidence, widened definitions).
    pub notes: Vec<String>,
    /// Operations intended in the measured run.
    pub operations: u64,
    /// How they ended.
    pub outcomes: OutcomeCounts,
    /// Operations that the regime forbids by design.
    pub policy_denials: u64,
    /// Recovery time per edge, milliseconds.
    pub rto_ms: BTreeMap<String, ReadWrite>,
    /// How finely recovery times are resolved at each edge (mean gap between operations of the kind), milliseconds.
    pub rto_resolution_ms: BTreeMap<String, ReadWrite>,
    /// Recovery of writes per edge, by phase.
    pub rto_phases_ms: BTreeMap<String, Phases>,
    /// The outage of writes at each edge whose recovery is reported.
    #[serde(default)]
    pub outages: BTreeMap<String, Outage>,
    /// The recovery point.
    pub rpo: Rpo,
    /// Share of intended operations that succeeded in time, per edge.
    pub availability: BTreeMap<String, f64>,
    /// The same per home of the record.
    pub availability_by_home: BTreeMap<String, f64>,
    /// Latency from the intended start, per edge.
    pub latency_ms: BTreeMap<String, Percentiles>,
    /// Reads alone.
    pub read_latency_ms: BTreeMap<String, Percentiles>,
    /// Writes alone.
    pub write_latency_ms: BTreeMap<String, Percentiles>,
    /// How old the answers of reads were.
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
    /// Foreign bytes found.
    pub residency_violations: u64,
    /// One line for each of the first 20.
    pub residency_examples: Vec<String>,
    /// What returned regions put aside.
    pub quarantined: Quarantined,
    /// Session guarantees.
    pub sessions: SessionViolations,
    /// What must never happen.
    pub anomalies: Anomalies,
    /// Whether every region held the same at the end.
    pub converged: bool,
    /// How long that took, seconds.
    pub convergence_s: f64,
    /// Per edge and second.
    pub timeline: BTreeMap<String, Vec<SecondPoint>>,
    /// Faults, phases, regimes.
    pub marks: Vec<Mark>,
}

/// Start continuous traffic, outside of any run: nothing is kept but counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrafficRequest {
    /// What users do, the rate included.
    #[serde(default)]
    pub workload: Workload,
    /// The edges.
    pub edges: Vec<EdgeTarget>,
    /// The seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// How long, seconds; until it is stopped if absent.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// The edges whose users this role plays, by name; all if absent.
    #[serde(default)]
    pub play: Option<Vec<String>>,
}

/// Continuous traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct TrafficStatus {
    /// Whether it flows.
    pub running: bool,
    /// Operations a second that are intended.
    pub rate_per_s: f64,
    /// Since it was started, seconds.
    pub elapsed_s: f64,
    /// Per edge.
    pub edges: BTreeMap<String, EdgeProgress>,
}
