//! Serving: one way to run a router on a listener until told to stop.
//!
//! The accept loop is our own because the order in which it looks at things must be fixed (`biased`): axum's draws it
//! at random, and then one seed of the simulated world would have many histories.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::{BoxIo, Listener};

/// How long open requests may take to finish once the service is told to stop.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Serves until `shutdown`, then lets open requests finish for at most [`DRAIN`].
pub async fn serve(mut listener: Listener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let connections = TaskTracker::new();
    let drop_them = CancellationToken::new();
    // Whoever drops this future drops the connections, too.
    let _dropped = drop_them.clone().drop_guard();
    loop {
        let (io, _) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        connections.spawn(connection(io, router.clone(), shutdown.clone(), drop_them.clone()));
    }
    // Nobody new: the address is free for a successor.
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("requests were still open {} s after the stop and are dropped", DRAIN.as_secs());
        drop_them.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// One connection, until its peer or the service has had enough of it.
async fn connection(io: BoxIo, router: Router, shutdown: CancellationToken, drop_it: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut served = pin!(served);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            () = drop_it.cancelled() => return,
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke");
                }
                return;
            }
            () = shutdown.cancelled(), if !stopping => {
                // The request under way is answered, and then the connection closes.
                served.as_mut().graceful_shutdown();
                stopping = true;
            }
        }
    }
}
