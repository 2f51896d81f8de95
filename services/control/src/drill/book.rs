//! The drills that ran, and the one that runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::DRILLS_KEPT_MAX;
use longhaul_core::plan::DrillPlan;
use longhaul_core::report::RunReport;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::MeasuredChange;
use longhaul_http::wire::drills::{DrillPhase, DrillStarted, DrillStatus, DrillSummary, EdgeProgress};

use super::engine;
use crate::state::Control;

/// Most events in a drill's status.
const EVENTS_SHOWN_MAX: usize = 200;

/// One drill.
struct Entry {
    id: String,
    plan: DrillPlan,
    phase: DrillPhase,
    elapsed_s: f64,
    edges: BTreeMap<String, EdgeProgress>,
    first_event: u64,
    last_event: Option<u64>,
    trouble: Option<String>,
    report: Option<RunReport>,
    /// Regime changes that happened during it, by id.
    changes: Vec<String>,
}

/// The drills, oldest first. At most one is under way.
#[derive(Default)]
pub(crate) struct DrillBook(Mutex<Vec<Entry>>);

impl DrillBook {
    fn begin(&self, id: &str, plan: &DrillPlan, first_event: u64) -> Result<(), Problem> {
        let mut drills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = drills.iter().find(|drill| !drill.phase.is_over()) {
            let detail = format!("drill {} ({}) is under way; wait until it is over", running.id, running.plan.name);
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        if drills.len() >= DRILLS_KEPT_MAX {
            drills.remove(0);
        }
        drills.push(Entry {
            id: id.to_owned(),
            plan: plan.clone(),
            phase: DrillPhase::Prepare,
            elapsed_s: -plan.warm_up_s,
            edges: BTreeMap::new(),
            first_event,
            last_event: None,
            trouble: None,
            report: None,
            changes: Vec::new(),
        });
        Ok(())
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut Entry)) {
        let mut drills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drill) = drills.iter_mut().find(|drill| drill.id == id) {
            change(drill);
        }
    }

    /// The drill moves on.
    pub(crate) fn phase(&self, id: &str, phase: DrillPhase) {
        self.update(id, |drill| drill.phase = phase);
    }

    /// Traffic moves on.
    pub(crate) fn progress(&self, id: &str, elapsed_s: f64, edges: BTreeMap<String, EdgeProgress>) {
        self.update(id, |drill| {
            drill.elapsed_s = elapsed_s;
            drill.edges = edges;
        });
    }

    fn end(&self, id: &str, last_event: u64, result: Result<(RunReport, Vec<String>), String>) {
        self.update(id, |drill| {
            drill.last_event = Some(last_event);
            match result {
                Ok((report, changes)) => {
                    drill.phase = DrillPhase::Done;
                    drill.report = Some(report);
                    drill.changes = changes;
                }
                Err(trouble) => {
                    drill.phase = DrillPhase::Failed;
                    drill.trouble = Some(trouble);
                }
            }
        });
    }

    /// The report of the drill that ended last, if it ended with one.
    pub(crate) fn last_report(&self) -> Option<RunReport> {
        let drills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drills.iter().rev().find_map(|drill| drill.report.clone())
    }

    /// Whether a drill is under way.
    pub(crate) fn is_running(&self) -> bool {
        let drills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drills.iter().any(|drill| !drill.phase.is_over())
    }

    /// What clients saw of a regime change, if a drill measured it.
    pub(crate) fn measured(&self, change: &str) -> Option<MeasuredChange> {
        let drills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let drill = drills.iter().find(|drill| drill.changes.iter().any(|id| id == change))?;
        let report = drill.report.as_ref()?;
        let writes: Option<Vec<f64>> = report.rto_ms.values().map(|edge| edge.write).collect();
        Some(MeasuredChange {
            drill: drill.id.clone(),
            rto_write_ms: writes.and_then(|all| all.into_iter().reduce(f64::max)),
            rpo_writes: report.rpo.writes,
            rpo_seconds: report.rpo.seconds,
        })
    }
}

impl Entry {
    fn summary(&self) -> DrillSummary {
        DrillSummary {
            id: self.id.clone(),
            plan: self.plan.name.clone(),
            mode: self.plan.regime.mode,
            durability: self.plan.regime.durability,
            phase: self.phase,
        }
    }
}

/// Every drill that is remembered, oldest first.
pub(crate) fn summaries(control: &Control) -> Vec<DrillSummary> {
    control.drills.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Entry::summary).collect()
}

/// One drill.
pub(crate) fn status(control: &Control, id: &str) -> Result<DrillStatus, Problem> {
    let drills = control.drills.0.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(drill) = drills.iter().find(|drill| drill.id == id) else {
        let detail = format!("there is no drill {id:?}; GET /v1/drills lists them");
        return Err(Problem::new(ErrorCode::UnknownName, detail));
    };
    let events = control.events.since(drill.first_event, usize::MAX);
    let mut events: Vec<_> =
        events.into_iter().filter(|event| drill.last_event.is_none_or(|last| event.seq <= last)).collect();
    let surplus = events.len().saturating_sub(EVENTS_SHOWN_MAX);
    events.drain(..surplus);
    Ok(DrillStatus {
        summary: drill.summary(),
        elapsed_s: drill.elapsed_s,
        duration_s: drill.plan.duration_s,
        edges: drill.edges.clone(),
        events,
        trouble: drill.trouble.clone(),
        report: drill.report.clone(),
    })
}

impl Control {
    /// Starts a drill; refused while one is under way, while faults are in force, and while continuous traffic flows.
    pub(crate) async fn start_drill(self: &Arc<Self>, plan: DrillPlan) -> Result<DrillStarted, Problem> {
        let refuse = |detail: String| Err(Problem::new(ErrorCode::Conflict, detail));
        if let Some(fault) = self.faults.active().first() {
            return refuse(format!("a fault is in force ({}); heal it with DELETE /v1/faults", fault.text));
        }
        if self.traffic().await.is_ok_and(|traffic| traffic.running) {
            return refuse("continuous traffic flows; stop it with DELETE /v1/traffic".to_owned());
        }
        let id = self.ids.next().to_string();
        self.drills.begin(&id, &plan, self.events.last())?;
        let control = self.clone();
        let drill = id.clone();
        self.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                () = control.stop.cancelled() => Err("control was stopped".to_owned()),
                result = engine::run(&control, &drill, &plan) => result,
            };
            control.drills.end(&drill, control.events.last(), result);
        });
        Ok(DrillStarted { id })
    }
}
