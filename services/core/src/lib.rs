//! The pure heart of longhaul: identifiers, versions, operations, the regime, the replication rules, routing,
//! topologies and drill plans.
//!
//! **Invariant: nothing here does I/O, reads a clock, draws randomness of its own or knows an async runtime.** State
//! machines are *told* the time and the input and *return* what to do. That is what lets the same rules run in
//! containers, on a laptop and in simulation, and lets property tests run them thousands of times a second. (The one
//! exception is [`mutants`], a switch for tests that the program is built without.)

pub mod ack;
pub mod chain;
pub mod clock;
pub mod digest;
pub mod error_code;
pub mod failover;
pub mod gate;
pub mod ids;
pub mod input_error;
pub mod lease;
pub mod limits;
pub mod link;
pub mod merge;
pub mod mutants;
pub mod operation;
pub mod plan;
pub mod quarantine;
pub mod record;
pub mod regime;
pub mod register;
pub mod replication;
pub mod report;
pub mod routing;
pub mod rtt;
pub mod suspicion;
pub mod token;
pub mod topology;
pub mod transition;
pub mod vector;
pub mod version;
pub mod voter;
