//! The users of all edges, the ledger of what they saw, and the oracle that judges it.
//!
//! One process plays everybody, so there is one boot clock and no clock error between edges. Users reach the testbed
//! only through their edge's gateway. When traffic has ended the role asks every region directly what is left
//! ([`evidence`]), joins that with the [`ledger`], and measures ([`oracle`]). A figure never rests on what a server says
//! about how well it did.

mod api;
mod canary;
mod config;
mod continuous;
pub mod evidence;
pub mod ledger;
mod metrics;
pub mod oracle;
mod run;
mod users;
mod value;
pub mod workload;

pub use api::openapi;
pub use canary::RunKey;
pub use config::TrafficConfig;
pub use value::Observed;

use std::io;
use std::sync::Arc;

use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::serve::serve;
use tokio_util::sync::CancellationToken;

/// The seams.
#[derive(Clone)]
pub struct Deps {
    /// The network.
    pub net: SharedNet,
    /// The clock.
    pub clock: SharedClock,
}

/// The role could not start, or its listener failed.
#[derive(Debug, thiserror::Error)]
pub enum RunTrafficError {
    /// The oracle does not find what it must find.
    #[error(transparent)]
    Selftest(#[from] oracle::SelftestError),
    /// The listener failed.
    #[error("the traffic role cannot serve: {0}; start it again")]
    Serve(#[from] io::Error),
}

/// Runs the role until `shutdown`: tests the oracle, then serves the API and plays users when asked to. Returns once
/// every operation under way has ended or reached its deadline.
pub async fn run(
    deps: Deps,
    config: TrafficConfig,
    listener: Listener,
    shutdown: CancellationToken,
) -> Result<(), RunTrafficError> {
    oracle::selftest()?;
    let role = Arc::new(api::Role::new(HttpClient::new(deps.net), deps.clock, config, shutdown.child_token()));
    let served = serve(listener, api::router(Arc::clone(&role)), shutdown).await;
    role.close().await;
    Ok(served?)
}
