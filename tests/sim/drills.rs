//! Drills in virtual time: the same engine, the same report.

use longhaul_core::plan::{Action, DrillPlan, SHIPPED, Step};
use longhaul_core::regime::Durability;
use longhaul_core::report::Verdict;
use longhaul_core::topology::Topology;
use longhaul_simulation::distribution::Collection;
use longhaul_simulation::{USUAL_TOPOLOGY, run_drill};

/// The longest for which a planned transition may hold writes, in milliseconds.
const PLANNED_PAUSE_MAX_MS: f64 = 2_000.0;

fn topology() -> Topology {
    Topology::shipped(USUAL_TOPOLOGY).unwrap().unwrap()
}

#[test]
fn a_region_is_lost_in_virtual_time_and_the_report_says_so() {
    let plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
    let drill = run_drill(&topology(), &plan).unwrap();
    let report = drill.report.unwrap_or_else(|reason| panic!("{reason}\n{}", drill.timeline.text()));
    assert_eq!(report.world, "simulated");
    assert_eq!(report.verdict, Verdict::Passed, "{:?}\n{}", report.reasons, drill.timeline.text());
    assert!(report.links.iter().all(|link| link.ok), "{:?}", report.links);
    // The lease must run out and a majority must suspect: an outage is seen, and it ends.
    let slowest = report.rto_ms.values().filter_map(|edge| edge.write).fold(0.0, f64::max);
    assert!((1_000.0..15_000.0).contains(&slowest), "{:?}", report.rto_ms);
}

#[test]
fn every_shipped_drill_passes_in_virtual_time() {
    for (name, _) in SHIPPED {
        let plan = DrillPlan::shipped(name).unwrap().unwrap();
        let topology = Topology::shipped(&plan.topology).unwrap().unwrap();
        let drill = run_drill(&topology, &plan).unwrap();
        let report = drill.report.unwrap_or_else(|reason| panic!("{name}: {reason}\n{}", drill.timeline.text()));
        assert_eq!(report.verdict, Verdict::Passed, "{name}: {:?}\n{}", report.reasons, drill.timeline.text());
        if ["switchover", "mode-tour"].contains(name) {
            let held = report.write_latency_ms.values().map(|edge| edge.max).fold(0.0, f64::max);
            assert!((300.0..PLANNED_PAUSE_MAX_MS).contains(&held), "{name}: a write took {held} ms");
        }
    }
}

#[test]
fn the_same_plan_and_seed_give_the_same_report() {
    let plan = DrillPlan::shipped("switchover").unwrap().unwrap();
    let runs: Vec<_> = (0..2).map(|_| run_drill(&topology(), &plan).unwrap()).collect();
    assert_eq!(runs[0].timeline.text(), runs[1].timeline.text());
    assert_eq!(runs[0].report, runs[1].report);
}

#[test]
fn a_clock_that_was_behind_and_is_set_right_does_not_stop_the_primary() {
    let mut plan = DrillPlan::shipped("switchover").unwrap().unwrap();
    let skew = |at_s: f64, offset_ms: i64| Step {
        at_s,
        action: Action::ClockSkew { region: "us-east-1".to_owned(), offset_ms },
    };
    plan.steps = vec![skew(3.0, -400), skew(8.0, 0)];
    plan.duration_s = 16.0;
    plan.traffic.rate_per_s = 50.0;
    let drill = run_drill(&topology(), &plan).unwrap();
    let report = drill.report.unwrap_or_else(|reason| panic!("{reason}\n{}", drill.timeline.text()));
    for (edge, seconds) in &report.timeline {
        let late = seconds.iter().filter(|point| point.second >= 11);
        let (writes, ok) = late.fold((0, 0), |(writes, ok), point| (writes + point.writes, ok + point.writes_ok));
        assert!(writes > 0 && ok == writes, "{edge}: {ok} of {writes} writes\n{}", drill.timeline.text());
    }
}

#[test]
#[ignore = "prints figures for docs/simulation.md; proves nothing"]
fn figures_of_region_loss_by_durability() {
    for durability in [Durability::Local, Durability::Semi(1), Durability::Sync] {
        let mut all = Collection::default();
        for seed in 0..10 {
            let mut plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
            (plan.seed, plan.regime.durability) = (seed, durability);
            let drill = run_drill(&topology(), &plan).unwrap();
            all.add(seed, drill.report, drill.virtual_time.as_secs_f64());
        }
        let report = all.report("region-loss", USUAL_TOPOLOGY, durability.to_string(), None);
        println!("{}\n{:?}\n{:#?}", report.regime, report.verdicts, report.distributions);
    }
}
