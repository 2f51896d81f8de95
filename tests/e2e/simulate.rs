//! `longhaul simulate`, as users call it.

use std::process::Command;

use serde_json::{Value, json};

/// Some seconds with the loss of the primary.
const PLAN: &str = r#"
name = "loss"
description = "The primary region is lost."
topology = "three-continents"
duration_s = 12
warm_up_s = 2
settle_s = 20
[regime]
mode = "active-passive"
primary = "us-east-1"
durability = "local"
[traffic]
rate_per_s = 20
[[steps]]
at_s = 3
do = "region-loss"
region = "primary"
"#;

/// What a simulation printed and wrote.
struct Simulated {
    status: Option<i32>,
    report: Value,
    said: String,
    files: Vec<String>,
}

fn simulate(plan: &str, args: &[&str]) -> Simulated {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(["simulate", "--plan", "plan.toml", "--json", "--report", "out"]).args(args);
    let output = command.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let files = std::fs::read_dir(folder.path().join("out")).unwrap();
    let mut files: Vec<String> = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    files.sort_unstable();
    Simulated { status: output.status.code(), report, said, files }
}

#[test]
fn a_drill_under_many_seeds_is_a_distribution_and_the_same_again() {
    let Simulated { status, report, files, .. } = simulate(PLAN, &["--seeds", "6"]);
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(report["world"], "simulated");
    assert_eq!(report["verdicts"]["passed"], 6, "{report:#}");
    let runs = report["runs"].as_array().unwrap();
    let mut recoveries: Vec<f64> = runs.iter().map(|run| run["rto_write_ms"].as_f64().unwrap()).collect();
    recoveries.sort_unstable_by(f64::total_cmp);
    let spread = &report["distributions"]["rto_write_ms"];
    let shown =
        json!({"p5": recoveries[0], "p50": recoveries[2], "p95": recoveries[5], "max": recoveries[5], "count": 6});
    assert_eq!(*spread, shown, "nearest rank of {recoveries:?}");
    assert!(recoveries[0] < recoveries[5], "seeds differ: {recoveries:?}");
    assert!(recoveries[0] > 500.0 && recoveries[5] < 15_000.0, "{recoveries:?}");
    let median = &report["median_run"];
    assert_eq!(median["rto_ms"].as_object().map(serde_json::Map::len), Some(3), "{median:#}");
    assert!(!files.is_empty());
    assert_eq!(simulate(PLAN, &["--seeds", "6"]).report, report, "the same seeds, the same report");
}

/// Everything grows with the square of the regions and more: a certificate of a few links at a time, heartbeats with what
/// everybody has of everything, and failovers that end each other would each keep this from its end. Writes come fast enough
/// for the regions to differ in what they have of the lost primary's, so that they have to prove their history.
#[test]
fn every_region_of_the_azure_table_is_simulated_and_replaces_a_lost_primary() {
    let Simulated { status, report, said, .. } =
        simulate(&PLAN.replace("rate_per_s = 20", "rate_per_s = 300"), &["--seeds", "1", "--topology", "all-azure"]);
    assert_eq!(status, Some(0), "{report:#}");
    assert!(said.contains("on all-azure us-east-1 is eastus"), "{said}");
    assert_eq!((&report["topology"], &report["verdicts"]["passed"]), (&json!("all-azure"), &json!(1)));
    let run = &report["median_run"];
    let links = run["links"].as_array().unwrap();
    assert_eq!(links.len(), 51 * 50, "48 regions and three edges, both ways");
    assert!(links.iter().all(|link| link["ok"] == true), "every link is as declared");
    for (edge, recovery) in run["rto_ms"].as_object().unwrap() {
        let write_ms = recovery["write"].as_f64().unwrap_or(f64::MAX);
        assert!((1000.0..4000.0).contains(&write_ms), "{edge}: {recovery}");
    }
}
