//! What people ask for, one file per command.

mod compare;
mod dashboards;
mod drill;
mod openapi;
mod simulate;
mod target;
mod topology;
pub(crate) mod trace;
mod up;

use crate::cli::Command;
use crate::outcome::Outcome;
use crate::{containers, roles};

/// Carries a command out.
pub(crate) async fn run(command: Command) -> Outcome {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Drill { plan, args } => drill::run(&plan, args).await,
        Command::Compare { plan, args } => compare::run(&plan, args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Topology(command) => topology::run(command),
        Command::Dashboards { out } => dashboards::run(&out),
        Command::Trace(args) => trace::run(&args),
        Command::Openapi { out } => openapi::run(&out),
        Command::Region(args) => roles::region(&args).await,
        Command::Gateway(args) => roles::gateway(&args).await,
        Command::Traffic(args) => roles::traffic(&args).await,
        Command::Link(args) => roles::link(&args).await,
        Command::Control(args) => roles::control(&args).await,
        Command::Health { url } => containers::health(&url).await,
    }
}
