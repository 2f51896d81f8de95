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

/// The report that is printed, and what of it was written into files.
fn simulate() -> (Option<i32>, Value, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plan.toml"), PLAN).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(["simulate", "--plan", "plan.toml", "--json", "--report", "out", "--seeds", "6"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let files = std::fs::read_dir(folder.path().join("out")).unwrap();
    let mut files: Vec<String> = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    files.sort_unstable();
    (output.status.code(), report, files)
}

#[test]
fn a_drill_under_many_seeds_is_a_distribution_and_the_same_again() {
    let (status, report, files) = simulate();
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
    assert_eq!(simulate().1, report, "the same seeds, the same report");
}
