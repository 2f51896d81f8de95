//! The regional data service: records API, group-commit writer, replication, votes and the region's part in every
//! change of the regime.
//!
//! One task owns the log ([`writer`]); everything else reads what it published ([`state`]). [`run::run`] starts a
//! region in any world: the seams are the network, the clock and the store.

pub mod anti_entropy;
pub mod config;
pub mod failpoint;
pub mod handlers;
pub mod housekeeping;
pub mod instance;
mod metrics;
pub mod regime;
pub mod replicator;
mod returning;
pub mod run;
mod spans;
pub mod state;
pub mod store;
pub mod writer;

pub use config::RegionConfig;
pub use handlers::openapi;
pub use instance::{InstanceDeps, run_instance};
pub use run::{Deps, RunError, run};
