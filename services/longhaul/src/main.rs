//! longhaul: a testbed for multi-region systems.
//!
//! This crate turns the services into one program: the command line for people, the roles, the embedded testbed
//! (child processes on loopback) and the reports. **Invariant: only this crate reads the environment.**

mod certify;
mod cli;
mod commands;
mod containers;
mod control_api;
mod embedded;
mod inputs;
mod outcome;
mod report;
mod roles;
mod signals;
mod telemetry;
mod time;
mod waterfall;

use std::process::ExitCode;

use crate::outcome::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    small_pages();
    let command = match cli::parse() {
        Ok(command) => command,
        Err(refused) => return refused,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::invalid(format!("cannot start: {error}; free memory or threads")).exit(),
    };
    let outcome = runtime.block_on(commands::run(command));
    // A read of standard input (the parent's pipe) cannot be interrupted; nothing else is left.
    runtime.shutdown_background();
    outcome.exit()
}

/// A testbed is a dozen processes of a few megabytes each. The allocator would ask for pages of two megabytes and double
/// that; the throughput of a region under load was the same with them.
fn small_pages() {
    // It is about memory only: where a sandbox forbids the call, the program is as good.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
