//! Plans: the workload that users send, and drills (timed plans of traffic and faults with expectations).

mod parse;
mod shipped;
mod transfer;
mod validate;

use serde::{Deserialize, Serialize};

use crate::quarantine::Decision;
use crate::regime::{Durability, Mode};

pub use parse::PlanError;
pub use shipped::{SHIPPED, shipped};

/// How keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyDistribution {
    /// Every key alike.
    Uniform,
    /// Zipf with this exponent (0 < s <= 5); a few keys take most of the traffic.
    Zipf(f64),
}

/// How the rate moves over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// The same all along.
    Constant,
    /// From `at_s` on, `factor` times the rate.
    Step {
        /// When, seconds from the start.
        at_s: f64,
        /// How much.
        factor: f64,
    },
    /// Between `at_s` and `at_s + length_s`, `factor` times the rate.
    Spike {
        /// When, seconds from the start.
        at_s: f64,
        /// How long, seconds.
        length_s: f64,
        /// How much.
        factor: f64,
    },
    /// Each edge's rate follows a cosine of this period, shifted by its place in the list of edges.
    FollowTheSun {
        /// Seconds from one peak to the next.
        period_s: f64,
    },
}

/// What users do. Open loop: operations start when the plan says, however long earlier ones take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Operations a second over all edges, evenly split; 0.1 to 20 000.
    pub rate_per_s: f64,
    /// Share of operations that read, 0 to 1.
    pub read_share: f64,
    /// Share of the writes that delete, 0 to 1.
    pub delete_share: f64,
    /// Share of the writes that append to a shared list by read-modify-write (finds lost updates), 0 to 1.
    pub append_share: f64,
    /// Share of the writes that create a record never touched again (black-box proof of loss), 0 to 1.
    pub insert_share: f64,
    /// Share of operations on records of another edge's home, 0 to 1.
    pub foreign_share: f64,
    /// Whether appends carry `If-Match`.
    pub append_if_match: bool,
    /// Keys per home.
    pub keys_per_home: u32,
    /// Lists per home that appends go to.
    pub append_keys_per_home: u32,
    /// How keys are drawn.
    pub keys: KeyDistribution,
    /// Size of a value, bytes, 64 to 60 000.
    pub value_bytes: u32,
    /// Sessions per edge (each carries its token from answer to request).
    pub sessions_per_edge: u32,
    /// Consistency that reads ask for: `eventual`, `session` or `primary`.
    pub consistency: String,
    /// How the rate moves.
    pub shape: Shape,
    /// Deadline of an operation, from its intended start, milliseconds.
    pub deadline_ms: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            rate_per_s: 300.0,
            read_share: 0.5,
            delete_share: 0.02,
            append_share: 0.1,
            insert_share: 0.3,
            foreign_share: 0.1,
            append_if_match: false,
            keys_per_home: 500,
            append_keys_per_home: 10,
            keys: KeyDistribution::Zipf(0.9),
            value_bytes: 256,
            sessions_per_edge: 16,
            consistency: "eventual".to_owned(),
            shape: Shape::Constant,
            deadline_ms: 2000,
        }
    }
}

/// The regime in which a drill starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRegime {
    /// The mode.
    pub mode: Mode,
    /// The durability (active-passive only).
    #[serde(default = "local")]
    pub durability: Durability,
    /// The primary by name (active-passive only); the topology's first region if absent.
    #[serde(default)]
    pub primary: Option<String>,
}

fn local() -> Durability {
    Durability::Local
}

/// What a step does. Regions are named, or `primary` / `secondary` (the primary at that moment, or the nearest other
/// region; where the mode has no primary, the topology's first region counts as it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// SIGKILL the region and black-hole every link from and to it.
    RegionLoss {
        /// Which.
        region: String,
    },
    /// Heal its links and start it again on the data that it left.
    RegionReturn {
        /// Which.
        region: String,
    },
    /// SIGKILL a role's process: a region, an edge's gateway, `control` or `link`.
    Kill {
        /// Which location (or `control`).
        target: String,
    },
    /// Start a killed process again.
    Restart {
        /// Which location (or `control`).
        target: String,
    },
    /// SIGSTOP.
    Pause {
        /// Which location.
        target: String,
    },
    /// SIGCONT.
    Resume {
        /// Which location.
        target: String,
    },
    /// Change a directed link, or both directions.
    Link {
        /// From which location.
        from: String,
        /// To which location.
        to: String,
        /// Both directions.
        #[serde(default)]
        both: bool,
        /// The change.
        change: crate::link::LinkPatch,
    },
    /// Put every link back to its declared profile.
    HealLinks,
    /// Skew a region's wall clock.
    ClockSkew {
        /// Which region.
        region: String,
        /// Offset, milliseconds (negative is behind).
        offset_ms: i64,
    },
    /// Decide on what a region has quarantined; until then it cannot become primary again.
    Decide {
        /// Which region.
        region: String,
        /// What becomes of it.
        decision: Decision,
    },
    /// Planned switchover of the primary.
    Switchover {
        /// The new primary.
        to: String,
    },
    /// Commanded failover.
    Failover {
        /// The new primary; the best candidate if absent.
        #[serde(default)]
        to: Option<String>,
        /// Accept the loss of acknowledged writes.
        #[serde(default)]
        allow_data_loss: bool,
    },
    /// Switch mode or durability.
    Switch {
        /// The mode afterwards.
        mode: Mode,
        /// The durability afterwards.
        #[serde(default = "local")]
        durability: Durability,
        /// The primary afterwards.
        #[serde(default)]
        primary: Option<String>,
        /// Go on where the switch would be refused.
        #[serde(default)]
        force: bool,
    },
}

/// One step of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Step {
    /// When, seconds from the start of the traffic.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a drill expects; absent means no expectation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expectations {
    /// At most this many acknowledged writes are lost.
    pub rpo_writes_max: Option<u64>,
    /// At most this many seconds of acknowledged writes are lost.
    pub rpo_seconds_max: Option<f64>,
    /// Writes are back within this, at every edge, milliseconds.
    pub rto_write_ms_max: Option<f64>,
    /// Reads are back within this, at every edge, milliseconds.
    pub rto_read_ms_max: Option<f64>,
    /// Availability at every edge is at least this, 0 to 1.
    pub availability_min: Option<f64>,
    /// At most this many residency violations.
    pub residency_violations_max: Option<u64>,
    /// At most this many updates lost (appends that were acknowledged and are gone).
    pub lost_updates_max: Option<u64>,
    /// At most this many session violations.
    pub session_violations_max: Option<u64>,
    /// Every region holds the same at the end.
    pub converged: Option<bool>,
}

/// Expectations for runs in one mode (and durability), over the general ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ModeExpectations {
    /// The mode that they are for.
    pub mode: Mode,
    /// The durability that they are for; any if absent.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// The expectations.
    #[serde(flatten)]
    pub expect: Expectations,
}

/// A drill: traffic, faults, expectations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillPlan {
    /// Its name.
    pub name: String,
    /// What it shows, one or two sentences.
    pub description: String,
    /// The topology it was written for (a file name in `regions/`, without `.toml`).
    pub topology: String,
    /// The seed of everything random.
    #[serde(default = "seed")]
    pub seed: u64,
    /// How long users send, seconds.
    pub duration_s: f64,
    /// Seconds of traffic before `duration_s` starts to count (connections, caches); not measured.
    #[serde(default = "warm_up")]
    pub warm_up_s: f64,
    /// How long the testbed may take afterwards to converge, seconds.
    #[serde(default = "settle")]
    pub settle_s: f64,
    /// The regime at the start.
    pub regime: StartRegime,
    /// What users do.
    #[serde(default)]
    pub traffic: Workload,
    /// What happens, in order of time.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What must come out in every mode.
    #[serde(default)]
    pub expect: Expectations,
    /// What must come out in some modes.
    #[serde(default)]
    pub expect_in: Vec<ModeExpectations>,
}

fn seed() -> u64 {
    42
}

fn warm_up() -> f64 {
    3.0
}

fn settle() -> f64 {
    30.0
}
