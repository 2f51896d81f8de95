//! One drill from the command line, as JSON.

use std::process::Command;

use serde_json::Value;

/// Runs a plan. A verdict of `invalid` says that the machine was too busy for the run to prove anything (late links, late
/// users): such a run is made once more, and only such a run.
pub(crate) fn drill_of(plan: &str, extra: &[&str]) -> (Option<i32>, Value, tempfile::TempDir) {
    let first = drill_once(plan, extra);
    if first.1["verdict"] != "invalid" {
        return first;
    }
    println!("once more, since the first run proves nothing: {}", first.1["reasons"]);
    drill_once(plan, extra)
}

fn drill_once(plan: &str, extra: &[&str]) -> (Option<i32>, Value, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_longhaul"))
        .args(["drill", "plan.toml", "--json", "--report", "out"])
        .args(extra)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), report, folder)
}
