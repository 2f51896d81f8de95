//! One drill from the command line, as JSON.

use std::process::Command;

use serde_json::Value;

/// How often a plan is run until a run proves something.
const RUNS_MAX: u32 = 3;

/// Runs a plan. A verdict of `invalid` says that the machine was too busy for the run to prove anything (late links, late
/// users): such a run is made again, up to [`RUNS_MAX`] times in all, and only such a run.
pub(crate) fn drill_of(plan: &str, extra: &[&str]) -> (Option<i32>, Value, tempfile::TempDir) {
    drill_with(plan, extra, |_| ())
}

/// The same; what else the command needs is for `prepare` to say.
pub(crate) fn drill_with(
    plan: &str,
    extra: &[&str],
    prepare: impl Fn(&mut Command),
) -> (Option<i32>, Value, tempfile::TempDir) {
    for _ in 1..RUNS_MAX {
        let run = drill_once(plan, extra, &prepare);
        if run.1["verdict"] != "invalid" {
            return run;
        }
        println!("once more, since this run proves nothing: {}", run.1["reasons"]);
    }
    drill_once(plan, extra, &prepare)
}

fn drill_once(plan: &str, extra: &[&str], prepare: &impl Fn(&mut Command)) -> (Option<i32>, Value, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(["drill", "plan.toml", "--json", "--report", "out"]).args(extra).current_dir(folder.path());
    prepare(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), report, folder)
}
