//! The traces of drills and of changes of the regime. Their figures are known when all is over, so their spans are made
//! then, with the times of what has happened (see `longhaul_http::trace`).
//!
//! A change's trace is drawn by the region that drives it, and every region that takes part records its steps there. The
//! root is recorded here, by the one who knows what users saw: from the fault to the success after which service stayed
//! up, edge by edge, in the phases of the report. Its figures are those of the verdict.

use std::collections::BTreeMap;

use longhaul_core::operation::TraceContext;
use longhaul_core::report::{Phases, RunReport, Verdict};
use longhaul_http::trace::{Text, anchored, links_text, parse_trace_id, records};
use longhaul_http::wire::drills::DrillPhase;
use longhaul_http::wire::regime::{ChangeState, ChangeStatus};
use longhaul_http::wire::traffic::{FaultMark, Outage};

use crate::state::Control;

/// Most lost writes with a span of their own; the report has all.
const LOST_MAX: usize = 50;

/// What a drill's trace is made from.
pub(crate) struct DrillTrace<'a> {
    /// Its root.
    pub(crate) root: TraceContext,
    /// The plan's name.
    pub(crate) plan: &'a str,
    /// When each phase began, boot nanoseconds.
    pub(crate) phases: &'a [(DrillPhase, u64)],
    /// When all was over.
    pub(crate) end_ns: u64,
    /// What was done.
    pub(crate) faults: &'a [FaultMark],
    /// Every change that moved during the run, joined.
    pub(crate) changes: &'a [ChangeStatus],
    /// Outages of writes by edge.
    pub(crate) outages: &'a BTreeMap<String, Outage>,
    /// The start of the measured run.
    pub(crate) start_ns: u64,
    /// The report; absent if the drill broke off.
    pub(crate) report: Option<&'a RunReport>,
}

/// The worst recovery of writes, milliseconds; `None` if there was none, or one edge did not recover.
fn worst(report: &RunReport) -> Option<f64> {
    let writes: Option<Vec<f64>> = report.rto_ms.values().map(|edge| edge.write).collect();
    writes?.into_iter().reduce(f64::max)
}

impl Control {
    /// Records a drill, its changes of the regime and its recoveries.
    pub(crate) fn trace_drill(&self, drill: &DrillTrace<'_>) {
        let from_ns = drill.phases.first().map_or(drill.end_ns, |(_, at)| *at);
        let verdict = drill.report.map_or("none", |report| match report.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Invalid => "invalid",
        });
        tracing::debug_span!(
            "drill",
            otel.name = %format_args!("drill {}", drill.plan),
            otel.status_code = (verdict != "passed").then_some("ERROR"),
            longhaul.context = %Text(drill.root),
            longhaul.from_ns = from_ns,
            longhaul.to_ns = drill.end_ns,
            longhaul.plan = drill.plan,
            longhaul.verdict = verdict,
            longhaul.mode = drill.report.map(|report| report.mode.to_string()),
            longhaul.rto_ms = drill.report.and_then(worst),
            longhaul.rpo.writes = drill.report.map(|report| report.rpo.writes),
            longhaul.rpo.seconds = drill.report.map(|report| report.rpo.seconds),
        );
        let ends = drill.phases.iter().skip(1).map(|(_, at)| *at).chain(std::iter::once(drill.end_ns));
        for ((phase, began), ended) in drill.phases.iter().zip(ends) {
            tracing::debug_span!(
                "drill.phase",
                otel.name = phase.as_str(),
                longhaul.context = %Text(self.traces.child(drill.root)),
                longhaul.parent = %Text(drill.root),
                longhaul.from_ns = *began,
                longhaul.to_ns = ended,
                longhaul.phase = phase.as_str(),
            );
        }
        for fault in drill.faults {
            tracing::debug_span!(
                "drill.fault",
                otel.name = fault.what,
                longhaul.context = %Text(self.traces.child(drill.root)),
                longhaul.parent = %Text(drill.root),
                longhaul.from_ns = fault.boot_ns,
                longhaul.to_ns = fault.heal_boot_ns.unwrap_or(fault.boot_ns),
                longhaul.fault = fault.kind,
                longhaul.region = fault.region,
            );
        }
        for change in drill.changes {
            trace_change(change, Some(drill));
        }
        let Some(report) = drill.report else { return };
        for (edge, outage) in drill.outages {
            let of = outage.change.as_ref().and_then(|id| drill.changes.iter().find(|change| change.id == *id));
            let parent = of.and_then(root_of).unwrap_or(drill.root);
            self.trace_recovery(parent, edge, outage, report.rto_phases_ms.get(edge));
        }
        self.trace_lost(drill, report);
    }

    fn trace_recovery(&self, parent: TraceContext, edge: &str, outage: &Outage, phases: Option<&Phases>) {
        let Some(up_ns) = outage.up_boot_ns else { return };
        let span = self.traces.child(parent);
        let ends = [&outage.first_failed, &outage.first_success].into_iter().flatten();
        let links = links_text(ends.filter_map(|id| parse_trace_id(id)).map(anchored));
        tracing::debug_span!(
            "recovery",
            otel.name = %format_args!("recovery of writes at {edge}"),
            longhaul.context = %Text(span),
            longhaul.parent = %Text(parent),
            longhaul.links = links,
            longhaul.from_ns = outage.fault_boot_ns,
            longhaul.to_ns = up_ns,
            longhaul.edge = edge,
            longhaul.rto_ms = (up_ns - outage.fault_boot_ns) as f64 / 1e6,
        );
        let Some(phases) = phases else { return };
        let mut began = outage.fault_boot_ns;
        for (name, length_ms) in named(phases) {
            let ended = (began + (length_ms * 1e6).round() as u64).min(up_ns);
            tracing::debug_span!(
                "recovery.phase",
                otel.name = name,
                longhaul.context = %Text(self.traces.child(parent)),
                longhaul.parent = %Text(span),
                longhaul.from_ns = began,
                longhaul.to_ns = ended,
                longhaul.phase = name,
                longhaul.edge = edge,
            );
            began = ended;
        }
    }

    fn trace_lost(&self, drill: &DrillTrace<'_>, report: &RunReport) {
        for lost in report.rpo.lost.iter().take(LOST_MAX) {
            let at_ns = (drill.start_ns as f64 + lost.acknowledged_s * 1e9).max(0.0) as u64;
            let write = lost.trace_id.as_deref().and_then(parse_trace_id).map(anchored);
            tracing::debug_span!(
                "write.lost",
                otel.name = "acknowledged write lost",
                longhaul.context = %Text(self.traces.child(drill.root)),
                longhaul.parent = %Text(drill.root),
                longhaul.links = write.map(Text).map(tracing::field::display),
                longhaul.from_ns = at_ns,
                longhaul.to_ns = at_ns,
                longhaul.edge = lost.edge,
                longhaul.lost = true,
                longhaul.quarantined = lost.quarantined,
            );
        }
    }
}

/// Records the root of a change. Without a drill nobody knows what users saw, and the times are the regions' own.
pub(crate) fn trace_change(change: &ChangeStatus, drill: Option<&DrillTrace<'_>>) {
    let Some(root) = root_of(change).filter(|root| records(*root)) else { return };
    let moments = change.milestones.iter().map(|milestone| milestone.boot_ns);
    let (Some(mut from_ns), Some(mut to_ns)) = (moments.clone().min(), moments.max()) else { return };
    let outages: Vec<&Outage> = drill
        .iter()
        .flat_map(|drill| drill.outages.values())
        .filter(|outage| outage.change.as_ref() == Some(&change.id))
        .collect();
    for outage in &outages {
        from_ns = from_ns.min(outage.fault_boot_ns);
        to_ns = to_ns.max(outage.up_boot_ns.unwrap_or(0));
    }
    // The figures of a run with one change are this change's; among several it is the one that ended the outage.
    let report = drill.and_then(|drill| {
        let its = !outages.is_empty() || (drill.outages.is_empty() && drill.changes.len() == 1);
        drill.report.filter(|_| its)
    });
    let ends = outages.iter().flat_map(|outage| [&outage.first_failed, &outage.first_success]);
    let links = links_text(ends.flatten().filter_map(|id| parse_trace_id(id)).map(anchored));
    let links = (!links.is_empty()).then_some(links);
    let failed = matches!(change.state, ChangeState::Aborted | ChangeState::Refused);
    tracing::debug_span!(
        "regime.change",
        otel.name = %change.kind.replace('_', " "),
        otel.status_code = failed.then_some("ERROR"),
        longhaul.context = %Text(root),
        longhaul.links = links,
        longhaul.from_ns = from_ns,
        longhaul.to_ns = to_ns,
        longhaul.change = change.kind,
        longhaul.epoch = change.epoch_to,
        longhaul.from = change.from,
        longhaul.to = change.to,
        longhaul.reason = change.reason,
        longhaul.rto_ms = report.and_then(worst),
        longhaul.rpo.writes = report.map(|report| report.rpo.writes),
        longhaul.rpo.seconds = report.map(|report| report.rpo.seconds),
    );
}

/// The root of a change's trace.
fn root_of(change: &ChangeStatus) -> Option<TraceContext> {
    change.trace_id.as_deref().and_then(parse_trace_id).map(anchored)
}

/// The phases in order, with their names.
fn named(phases: &Phases) -> [(&'static str, f64); 6] {
    [
        ("detect", phases.detect),
        ("decide", phases.decide),
        ("fence", phases.fence),
        ("promote", phases.promote),
        ("publish", phases.publish),
        ("first success", phases.first_success),
    ]
}
