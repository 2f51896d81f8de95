//! Drills from the command line: verdict, report, exit status.

use std::process::Command;

use serde_json::Value;

use crate::collector::{Collector, Protocol};
use crate::drill::{drill_of, drill_with};

/// A short loss of the primary.
const REGION_LOSS: &str = r#"
name = "short-loss"
description = "The primary dies early and returns."
topology = "three-continents"
duration_s = 22
warm_up_s = 2
settle_s = 20
[regime]
mode = "active-passive"
primary = "us-east-1"
[traffic]
rate_per_s = 100
[[steps]]
at_s = 3
do = "region-loss"
region = "us-east-1"
[[steps]]
at_s = 14
do = "region-return"
region = "us-east-1"
[expect]
rto_write_ms_max = 12000
converged = true
"#;

fn drill(extra: &[&str]) -> (Option<i32>, Value, tempfile::TempDir) {
    drill_of(REGION_LOSS, extra)
}

#[test]
fn a_lost_primary_is_replaced_and_the_report_says_what_it_cost() {
    let collector = Collector::start();
    let exports = |command: &mut Command| collector.collect_from(command, Protocol::Http);
    let (status, report, folder) = drill_with(REGION_LOSS, &["--durability", "semi(1)"], exports);
    assert_eq!((status, report["verdict"].as_str()), (Some(0), Some("passed")), "{}", report["reasons"]);
    assert_eq!(report["rpo"]["writes"], 0, "semi(1) loses nothing");
    assert_eq!(report["links"].as_array().unwrap().len(), 30);
    for (edge, rto) in report["rto_ms"].as_object().unwrap() {
        let write = rto["write"].as_f64().unwrap_or_else(|| panic!("{edge} did not recover"));
        assert!(write > 1000.0, "{edge}: a failover within {write} ms is too good to be true");
        let phases = &report["rto_phases_ms"][edge];
        let parts = ["detect", "decide", "fence", "promote", "publish", "first_success"];
        let sum: f64 = parts.iter().map(|part| phases[part].as_f64().unwrap()).sum();
        assert!((sum - phases["total"].as_f64().unwrap()).abs() < 1.0, "{edge}: the phases do not add up: {phases}");
    }
    crate::traces::failover_has_the_figures_of(&report, &folder.path().join("out"));
    // Whoever has a collector sees the same there.
    collector.write_to(&folder.path().join("collected"));
    crate::traces::failover_has_the_figures_of(&report, &folder.path().join("collected"));
    for file in ["report.txt", "report.json", "report.html"] {
        assert!(folder.path().join("out").join(file).metadata().unwrap().len() > 1000, "{file}");
    }
}

#[test]
fn users_of_other_homes_go_on_when_isolation_loses_a_region() {
    let (_, report, _) = drill(&["--mode", "regional-isolation"]);
    assert_eq!(report["residency_violations"], 0, "{}", report["residency_examples"]);
    assert_eq!(report["rpo"]["writes"], 0);
    let homes = &report["availability_by_home"];
    let share = |home: &str| homes[home].as_f64().unwrap();
    assert!(share("eu-west-1") > 0.99 && share("us-east-1") < 0.8, "{homes}");
}

/// Control is killed so long after it asked for a switchover, seconds: before it is announced, while it drains, while
/// the target catches up and is chosen, and once it leads.
const CONTROL_DIES_AFTER: [f64; 4] = [0.0, 0.15, 0.3, 0.6];

#[test]
fn a_switchover_goes_on_without_control_wherever_it_dies() {
    let mut plan = REGION_LOSS.split("[[steps]]").next().unwrap().replace("duration_s = 22", "duration_s = 21");
    for (number, after) in CONTROL_DIES_AFTER.into_iter().enumerate() {
        let at = 1.0 + 5.0 * number as f64;
        let to = ["eu-west-1", "us-east-1"][number % 2];
        plan += &format!(
            "[[steps]]\nat_s = {at}\ndo = \"switchover\"\nto = \"{to}\"\n\
             [[steps]]\nat_s = {}\ndo = \"kill\"\ntarget = \"control\"\n\
             [[steps]]\nat_s = {}\ndo = \"restart\"\ntarget = \"control\"\n",
            at + after,
            at + 3.0
        );
    }
    plan += "[expect]\nrpo_writes_max = 0\nconverged = true\n";
    let (status, report, _folder) = drill_of(&plan, &["--durability", "semi(1)"]);
    assert_eq!((status, report["verdict"].as_str()), (Some(0), Some("passed")), "{}", report["reasons"]);
}
