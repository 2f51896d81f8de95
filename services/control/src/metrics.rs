//! What control tells in figures: faults, drills, and what the last drill measured.

use longhaul_core::report::RunReport;
use longhaul_http::metrics::{Page, Source};

use crate::drill;
use crate::state::Control;

impl Source for Control {
    fn collect(&self, page: &mut Page) {
        page.label([("testbed", self.config.topology.name.clone())]);
        let drills = drill::summaries(self);
        let running = drills.iter().filter(|drill| !drill.phase.is_over()).count();
        let help = "Events recorded since the start.";
        page.counter("longhaul.control.events", help, "{event}", &[], self.events.last());
        let active = self.faults.active();
        page.gauge("longhaul.control.faults_active", "Faults in force.", "{fault}", &[], active.len() as f64);
        let remembered = drills.len() as f64;
        page.gauge("longhaul.control.drills_remembered", "Drills that are remembered.", "{drill}", &[], remembered);
        page.gauge("longhaul.control.drills_running", "Drills under way.", "{drill}", &[], running as f64);
        if let Some(report) = self.drills.last_report() {
            last_drill(page, &report);
        }
    }
}

/// The last drill's figures: the verdict's own, from the ledger.
fn last_drill(page: &mut Page, report: &RunReport) {
    let plan = report.plan.name.clone();
    let of = |edge: &str| [("plan", plan.clone()), ("edge", edge.to_owned())];
    for (edge, rto) in &report.rto_ms {
        let [plan, edge] = of(edge);
        for (kind, ms) in [("read", rto.read), ("write", rto.write)] {
            let labels = [(plan.0, plan.1.as_str()), (edge.0, edge.1.as_str()), ("kind", kind)];
            // Not recovered is infinitely long.
            let seconds = ms.map_or(f64::INFINITY, |ms| ms / 1e3);
            page.gauge("longhaul.drill.rto", "Recovery time of the last drill.", "s", &labels, seconds);
        }
    }
    for (edge, share) in &report.availability {
        let labels = [("plan", plan.as_str()), ("edge", edge.as_str())];
        page.gauge("longhaul.drill.availability", "Availability in the last drill.", "1", &labels, *share);
    }
    let labels = [("plan", plan.as_str())];
    let writes = report.rpo.writes as f64;
    page.gauge("longhaul.drill.rpo_writes", "Acknowledged writes lost in the last drill.", "{write}", &labels, writes);
    page.gauge("longhaul.drill.rpo", "The same, in seconds of writing.", "s", &labels, report.rpo.seconds);
    for link in &report.links {
        let measured = [link.measured_rtt_ms, link.measured_after_rtt_ms].into_iter().flatten();
        let error_ms = measured.map(|rtt| (rtt - link.declared_rtt_ms).abs()).fold(0.0, f64::max);
        let labels = [("from", link.from.as_str()), ("to", link.to.as_str())];
        let help = "How far the certificate's measured round trip is from the declared one.";
        page.gauge("longhaul.certificate.error", help, "s", &labels, error_ms / 1e3);
    }
}
