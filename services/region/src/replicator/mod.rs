//! Replication: every region pulls each peer's operations over a long-lived stream ([`puller`] dials, [`server`]
//! answers). What may be applied is decided by the pure rules in `longhaul_core::replication`; here are the streams,
//! the credit, and the dialling.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;

use crate::state::Region;

mod conversation;
mod io;
mod own_log;
mod puller;
mod server;
pub mod snapshot;
mod source;

pub(crate) use puller::authorize;
pub(crate) use snapshot::fetch_own_home;

/// The endpoint of the streams.
pub const REPLICATE_PATH: &str = "/internal/v1/replicate";
/// The protocol that a connection is upgraded to.
pub const PROTOCOL: &str = "longhaul-replication-1";

/// Frames that wait to be written to one stream.
const OUTBOX_MAX: usize = 64;

/// Starts a puller for every peer.
pub fn start(region: &Arc<Region>) {
    for peer in region.config.others() {
        region.tracker.spawn(puller::run(Arc::clone(region), peer));
    }
}

/// The endpoints for peers.
pub fn router() -> Router<Arc<Region>> {
    Router::new().route(REPLICATE_PATH, get(server::accept)).route(snapshot::SNAPSHOT_PATH, get(snapshot::serve_page))
}

/// Silence after which a stream is dead.
fn dead_after(region: &Region) -> Duration {
    region.config.timings.heartbeat() * 4
}

/// Why a stream ended; for logs and status, one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamEnd {
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] longhaul_core::replication::frame::FrameError),
    #[error("nothing came for {0} ms")]
    Silent(u128),
    #[error("nothing could be sent for {0} ms")]
    Stuck(u128),
    #[error("the peer closed the stream")]
    Closed,
    #[error("the peer sent a frame that does not belong there")]
    OutOfPlace,
    #[error("the data set changed its life; the stream starts anew")]
    Generation,
    #[error("a snapshot was not taken, and starts anew: {0}")]
    Snapshot(String),
    #[error("the link stops: {0}")]
    Stopped(String),
    #[error("{0}")]
    Call(#[from] longhaul_http::client::CallError),
    #[error("{0}")]
    Writer(#[from] crate::writer::WriterGone),
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
}
