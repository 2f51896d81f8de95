//! The simulated world: the services that ship, run in one thread and in virtual time, from a seed.
//!
//! Regions, gateways, control and users are hosts of a turmoil simulation; each is started through the same
//! `run(deps, config, listener, shutdown)` as elsewhere. The seams are what is simulated: the network ([`net`]), the
//! clocks, the disks. **Invariant: everything random comes from the seed**, so that a seed is a test case: run twice it
//! gives the same log, byte for byte.

mod agent;
mod chaos;
mod clock;
mod disk;
pub mod distribution;
mod drill;
mod field;
mod invariants;
mod judge;
mod links;
mod machine;
mod net;
mod operator;
mod overlap;
mod schedule;
mod seed;
mod steady;
mod timeline;
mod world;

pub use chaos::{ChaosRun, Kills, USUAL_TOPOLOGY, kills_a_region, replay, run_chaos, run_chaos_with};
pub use drill::{SimulatedDrill, run_drill, run_drill_while};
pub use steady::{Steady, run_steady};
pub use timeline::Timeline;
pub use world::{SimulationError, WorldConfig, tick_for};
