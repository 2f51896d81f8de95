//! Drills: starting one, following it, reading its report.

use std::collections::BTreeMap;

use longhaul_core::plan::DrillPlan;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::report::RunReport;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::control::Event;

/// `POST` a [`DrillRequest`]; `GET` lists [`DrillSummary`].
pub const DRILLS_PATH: &str = "/v1/drills";

/// Start a drill: a shipped plan by name, or a plan of one's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrillRequest {
    /// The name of a shipped plan.
    pub name: Option<String>,
    /// The plan itself.
    pub plan: Option<DrillPlan>,
    /// Another mode at the start than the plan's.
    pub mode: Option<Mode>,
    /// Another durability at the start than the plan's.
    pub durability: Option<Durability>,
    /// Another seed than the plan's.
    pub seed: Option<u64>,
}

/// A drill that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrillStarted {
    /// Its identity (UUID).
    pub id: String,
}

/// What a drill is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrillPhase {
    /// Bringing the testbed into the regime that the plan starts in.
    Prepare,
    /// Measuring every link before the run.
    CertificateBefore,
    /// Traffic that does not count.
    WarmUp,
    /// Traffic that counts, and the steps.
    Run,
    /// Healing what is still broken, and waiting until every region holds the same.
    Settle,
    /// Measuring every link after the run.
    CertificateAfter,
    /// Comparing what clients saw with what the regions hold.
    Judge,
    /// Finished: there is a report.
    Done,
    /// Ended without a report: `trouble` says why.
    Failed,
}

impl DrillPhase {
    /// The name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::CertificateBefore => "certificate before",
            Self::WarmUp => "warm-up",
            Self::Run => "run",
            Self::Settle => "settle",
            Self::CertificateAfter => "certificate after",
            Self::Judge => "judge",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether the drill is over.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// An edge during the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct EdgeProgress {
    /// Operations finished so far.
    pub finished: u64,
    /// Share of them that succeeded, over the last seconds.
    pub ok_share: f64,
    /// Median latency of the last seconds, milliseconds.
    pub p50_ms: f64,
}

/// A drill, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrillSummary {
    /// Its identity (UUID).
    pub id: String,
    /// The plan's name.
    pub plan: String,
    /// The mode at the start.
    pub mode: Mode,
    /// The durability at the start.
    pub durability: Durability,
    /// What it is doing.
    pub phase: DrillPhase,
}

/// A drill and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DrillStatus {
    /// What it is.
    #[serde(flatten)]
    pub summary: DrillSummary,
    /// Seconds into the measured run (negative during warm-up).
    pub elapsed_s: f64,
    /// Length of the measured run, seconds.
    pub duration_s: f64,
    /// Each edge during the run.
    pub edges: BTreeMap<String, EdgeProgress>,
    /// What happened since the drill began; at most the last 200.
    pub events: Vec<Event>,
    /// Why it ended without a report.
    pub trouble: Option<String>,
    /// The report, once `phase` is `done`.
    pub report: Option<RunReport>,
}
