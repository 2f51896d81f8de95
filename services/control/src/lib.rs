//! Control: the testbed's cockpit, out of band. It shows the topology, links, regions and the regime, injects faults,
//! asks for regime changes and failovers, and runs drills to their verdict.
//!
//! **Invariant: control only proposes.** Regions decide by majority and gateways follow the regions, so that a dead
//! control stops nothing. What touches processes and links goes through the [`world::World`] seam, which is what lets
//! the same drills run on child processes and on containers.

#![allow(clippy::result_large_err, reason = "a problem document is the answer itself, on paths that are not hot")]

mod api;
mod body;
mod config;
mod divergent;
mod drill;
mod events;
mod faults;
mod ids;
mod jaeger;
mod known;
mod links;
mod metrics;
mod regime;
mod regions;
mod spans;
mod state;
mod traffic;
mod watch;
pub mod world;

pub use api::openapi;
pub use config::{ControlConfig, Deps};
pub use state::{Control, run};
