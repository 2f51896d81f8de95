//! Serving: one way to run a router on a listener until told to stop.

use std::io;
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::net::Listener;

/// How long open requests may take to finish once the service is told to stop.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Serves until `shutdown`, then lets open requests finish for at most [`DRAIN`].
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let stop = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).into_future();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        biased;
        result = &mut serving => return result,
        () = shutdown.cancelled() => {}
    }
    if let Ok(result) = tokio::time::timeout(DRAIN, serving).await {
        return result;
    }
    tracing::warn!("requests were still open {} s after the stop and are dropped", DRAIN.as_secs());
    Ok(())
}
