//! Expectations: pure, from a report and its plan to the reasons why it is not `passed`.

use longhaul_core::plan::{DrillPlan, Expectations};
use longhaul_core::report::RunReport;

/// The expectations that hold for the plan's mode and durability: the general ones, and over them, figure by figure,
/// each block that is for this mode (and durability), in the order of the file.
pub(crate) fn effective(plan: &DrillPlan) -> Expectations {
    let mut effective = plan.expect.clone();
    for special in &plan.expect_in {
        let fits = special.mode == plan.regime.mode
            && special.durability.is_none_or(|durability| durability == plan.regime.durability);
        if !fits {
            continue;
        }
        let over = &special.expect;
        effective = Expectations {
            rpo_writes_max: over.rpo_writes_max.or(effective.rpo_writes_max),
            rpo_seconds_max: over.rpo_seconds_max.or(effective.rpo_seconds_max),
            rto_write_ms_max: over.rto_write_ms_max.or(effective.rto_write_ms_max),
            rto_read_ms_max: over.rto_read_ms_max.or(effective.rto_read_ms_max),
            availability_min: over.availability_min.or(effective.availability_min),
            residency_violations_max: over.residency_violations_max.or(effective.residency_violations_max),
            lost_updates_max: over.lost_updates_max.or(effective.lost_updates_max),
            session_violations_max: over.session_violations_max.or(effective.session_violations_max),
            converged: over.converged.or(effective.converged),
        };
    }
    effective
}

/// Every expectation that was not met, one line each. What must never happen counts without being asked for.
pub(crate) fn unmet(report: &RunReport) -> Vec<String> {
    let expect = effective(&report.plan);
    let mut reasons = Vec::new();
    let mut at_most = |what: &str, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit.filter(|limit| value > *limit) {
            reasons.push(format!("{what}: {value}, at most {limit} expected"));
        }
    };
    at_most("acknowledged writes lost", report.rpo.writes, expect.rpo_writes_max);
    at_most("residency violations", report.residency_violations, expect.residency_violations_max);
    at_most("lost updates", report.lost_updates, expect.lost_updates_max);
    let sessions = report.sessions.read_your_writes + report.sessions.monotonic_reads;
    at_most("session violations", sessions, expect.session_violations_max);
    at_most("anomalies (what must never happen)", report.anomalies.total(), Some(0));
    at_most("lost updates that nothing explains", report.conflicts.unexplained, Some(0));
    if let Some(limit) = expect.rpo_seconds_max.filter(|limit| report.rpo.seconds > *limit) {
        reasons.push(format!("recovery point: {:.2} s, at most {limit} s expected", report.rpo.seconds));
    }
    for (edge, rto) in &report.rto_ms {
        recovery(&mut reasons, "writes", edge, rto.write, expect.rto_write_ms_max);
        recovery(&mut reasons, "reads", edge, rto.read, expect.rto_read_ms_max);
    }
    if let Some(limit) = expect.availability_min {
        for (edge, share) in report.availability.iter().filter(|(_, share)| **share < limit) {
            reasons.push(format!(
                "availability at {edge}: {:.2} %, at least {:.2} % expected",
                share * 100.0,
                limit * 100.0
            ));
        }
    }
    if expect.converged == Some(true) && !report.converged {
        reasons.push(format!("the regions had not converged {} s after the traffic", report.plan.settle_s));
    }
    if expect.converged == Some(false) && report.converged {
        reasons.push("the regions converged, which was not expected".to_owned());
    }
    reasons
}

fn recovery(reasons: &mut Vec<String>, what: &str, edge: &str, measured: Option<f64>, limit: Option<f64>) {
    let Some(limit) = limit else { return };
    match measured {
        None => reasons.push(format!("{what} at {edge} did not recover before the end, {limit:.0} ms expected")),
        Some(ms) if ms > limit => {
            reasons.push(format!("recovery of {what} at {edge}: {ms:.0} ms, at most {limit:.0} ms expected"));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::assemble::tests::report;
    use longhaul_core::report::ReadWrite;

    #[test]
    fn a_report_within_bounds_has_no_reasons() {
        assert_eq!(unmet(&report()), Vec::<String>::new());
    }

    #[test]
    fn a_block_for_the_mode_overrides_figure_by_figure() {
        let plan = report().plan;
        let effective = effective(&plan);
        assert_eq!(effective.rpo_seconds_max, Some(2.0), "from the block for active-passive local");
        assert_eq!(effective.rpo_writes_max, None, "the block for semi(1) does not hold here");
        assert_eq!(effective.availability_min, Some(0.75), "from the general ones");
    }

    #[test]
    fn each_figure_out_of_bounds_is_a_reason_with_its_place() {
        let mut report = report();
        report.rpo.seconds = 2.5;
        report.availability.insert("london".into(), 0.5);
        report.rto_ms.insert("london".into(), ReadWrite { read: Some(100.0), write: None });
        report.rto_ms.insert("new-york".into(), ReadWrite { read: Some(16_000.0), write: Some(1.0) });
        report.converged = false;
        let reasons = unmet(&report);
        for part in
            ["2.50 s", "availability at london: 50.00 %", "writes at london did not", "reads at new-york", "20 s after"]
        {
            assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
        }
        assert_eq!(reasons.len(), 5);
    }

    #[test]
    fn what_must_never_happen_fails_a_run_without_being_asked_for() {
        let mut report = report();
        report.plan.expect = Expectations::default();
        report.plan.expect_in.clear();
        report.anomalies.phantoms = 1;
        assert_eq!(unmet(&report).len(), 1);
    }
}
