//! The seams and the shared plumbing of every service: network, clock, HTTP client and server, problems, trace
//! context, and the wire types in which services meet.
//!
//! **Invariant: only this crate touches `tokio::net` and the system clocks.** Everything above dials and listens through
//! [`net::Net`] and reads time through [`clock::Clock`], which is what lets the same code run on real sockets and in
//! simulation.

pub mod auth;
pub mod client;
pub mod clock;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod problem;
pub mod serve;
pub mod trace;
pub mod upgrade;
pub mod watch;
pub mod wire;
