//! Three regions in one process, over real sockets on loopback.

mod active_active;
mod active_passive;
mod failures;
mod inputs;
mod links;
mod throughput;
mod world;
