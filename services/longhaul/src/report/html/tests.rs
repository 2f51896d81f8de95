//! The page as a reader gets it.

use longhaul_core::plan::DrillPlan;
use longhaul_core::report::{Comparison, LostWrite, Mark, Phases, ReadWrite, RunReport, SecondPoint};

use super::*;
use crate::report::{comparison_text, run_text};

/// A run with something in every part of it.
fn report() -> RunReport {
    let plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
    let mut value = serde_json::json!({
        "verdict": "failed", "reasons": ["too <slow>"], "mode": "active-passive", "durability": "semi(1)", "seed": 42,
        "plan": serde_json::to_value(plan).unwrap(), "topology": "three-continents", "version": "0.1.0", "world": "embedded",
        "links": [{"from": "a", "to": "b", "declared_rtt_ms": 80.0, "measured_rtt_ms": 80.1,
                   "measured_after_rtt_ms": null, "tolerance_ms": 1.6, "ok": false, "source": "table"}],
        "links_ok": false, "operations": 100, "policy_denials": 0, "rto_ms": {}, "rto_phases_ms": {},
        "rpo": {"writes": 0, "seconds": 0.0, "lost": [], "unknown_survived": 1, "unknown_absent": 2},
        "availability": {"london": 0.91}, "availability_by_home": {},
        "latency_ms": {"london": {"p50": 5.0, "p90": 9.0, "p99": 800.0, "max": 1900.0, "count": 90}},
        "read_latency_ms": {}, "write_latency_ms": {},
        "staleness_ms": {"p50": 0.0, "p90": 0.0, "p99": 40.0, "max": 90.0, "count": 50}, "stale_read_share": 0.1,
        "lag_ms": {"a→b": {"p50": 40.0, "p90": 41.0, "p99": 60.0, "max": 80.0, "count": 9}},
        "conflicts": {"concurrent": 0, "inverted": 0, "unexplained": 0}, "lost_updates": 0, "appends": 3,
        "residency_violations": 0, "residency_examples": [], "quarantined": {"operations": 0, "by_region": {}},
        "sessions": {"read_your_writes": 0, "monotonic_reads": 0},
        "anomalies": {"failed_but_present": 0, "duplicates": 0, "phantoms": 0, "resurrections": 0, "stale_reads": 0, "examples": []},
        "converged": true, "convergence_s": 1.5,
        "cost": [{"from": "a", "to": "b", "bytes": {"replication": 2_000_000}, "usd": 0.04}],
        "timeline": {}, "marks": [], "trace_id": "00ff"
    });
    value["converged"] = true.into();
    let mut report: RunReport = serde_json::from_value(value).unwrap();
    report.rto_ms.insert("london".into(), ReadWrite { read: Some(120.0), write: None });
    report.rto_phases_ms.insert("london".into(), Phases { detect: 1500.0, total: 1500.0, ..Phases::default() });
    let point =
        |second, writes_ok| SecondPoint { second, writes: 10, writes_ok, p99_ms: 20.0, ..SecondPoint::default() };
    report.timeline.insert("london".into(), vec![point(0, 10), point(1, 0), point(2, 10)]);
    report.marks.push(Mark { at_s: 8.0, kind: "fault".into(), text: "a is lost & gone".into() });
    report.rpo.lost = (0..25)
        .map(|n| LostWrite {
            op_id: format!("op-{n}"),
            key: "a/k".into(),
            edge: "london".into(),
            region: Some("a".into()),
            acknowledged_s: 7.9,
            quarantined: true,
            trace_id: None,
        })
        .collect();
    report.rpo.writes = 25;
    report
}

#[test]
fn the_page_is_self_contained_and_well_formed() {
    let page = run_page(&report(), None);
    for forbidden in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for element in ["svg", "table", "details", "div", "h2", "header", "g", "ul"] {
        let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
    assert!(page.contains("prefers-color-scheme:dark"));
}

#[test]
fn text_from_outside_is_escaped() {
    let page = run_page(&report(), None);
    assert!(page.contains("too &lt;slow&gt;") && page.contains("a is lost &amp; gone"));
    assert!(!page.contains("too <slow>"));
}

#[test]
fn the_tables_say_what_was_lost_and_how_much_more() {
    let text = run_text(&report(), None);
    assert!(text.contains("op-9") && !text.contains("op-10 ") && text.contains("and 15 more"), "{text}");
    assert!(text.contains("not recovered") && text.contains("verdict: failed") && text.contains("too <slow>"));
}

#[test]
fn a_comparison_has_one_row_for_each_run_and_the_runs_themselves() {
    let comparison = Comparison { plan: "region-loss".into(), seed: 42, runs: vec![report(), report()] };
    let page = comparison_page(&comparison);
    assert_eq!(page.matches("<details class=\"run\"").count(), 2);
    let text = comparison_text(&comparison, None);
    assert_eq!(text.matches("│ active-passive semi(1)").count(), 2, "{text}");
}
