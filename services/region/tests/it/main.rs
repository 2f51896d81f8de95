//! Regions in one process, over real sockets on loopback.
#![allow(clippy::needless_range_loop, reason = "regions are numbers here, and their names are for messages")]

mod active_active;
mod active_passive;
mod divergence;
mod durability;
mod failover;
mod failures;
mod hostile;
mod inputs;
mod isolation;
mod links;
mod lives;
mod refusals;
mod steering;
mod switchover;
mod throughput;
mod traffic;
mod transitions;
mod world;
