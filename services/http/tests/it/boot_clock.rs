//! That the boot clock is the one that goes on while a machine is suspended. No test can suspend its machine; a time
//! namespace moves that clock, and leaves the one that stops meanwhile alone.

use std::process::Command;

use longhaul_http::clock::{Clock, SystemClock};

/// Tells the copy of this test inside the namespace what it is.
const INSIDE: &str = "LONGHAUL_TEST_INSIDE_TIME_NAMESPACE";
const SLEPT_S: u64 = 86_400;

#[test]
fn the_boot_clock_goes_on_while_the_machine_is_suspended() {
    let now_ns = SystemClock::default().boot_ns();
    if std::env::var_os(INSIDE).is_some() {
        println!("boot_ns={now_ns}.");
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["--time", "--boottime", &SLEPT_S.to_string()]).arg(std::env::current_exe().unwrap());
    let this = "boot_clock::the_boot_clock_goes_on_while_the_machine_is_suspended";
    inside.args(["--exact", this, "--nocapture"]).env(INSIDE, "1");
    let output = match inside.output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => {
            println!("skipped: this process may not make a time namespace");
            return;
        }
    };
    let told = output.split_once("boot_ns=").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
    let inside_ns: u64 = told.unwrap_or_else(|| panic!("{output}"));
    assert!(inside_ns >= now_ns + SLEPT_S * 1_000_000_000, "{inside_ns} is not {SLEPT_S} s after {now_ns}");
}
