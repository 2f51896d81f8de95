//! One region from start to end, the same in every world.

use std::sync::Arc;

use axum::Router;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::serve::serve;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ConfigError, RegionConfig};
use crate::regime::Seed;
use crate::state::{Blocker, Parts, Region, SharedStore, Tenure};
use crate::store::StoreError;
use crate::writer::recover::recover;
use crate::writer::{Writer, WriterHandle};
use crate::{anti_entropy, handlers, housekeeping, regime, replicator, returning};

/// The seams of a region.
pub struct Deps {
    /// The network.
    pub net: SharedNet,
    /// Wall and boot time.
    pub clock: SharedClock,
    /// The store, open.
    pub store: SharedStore,
}

/// A region that could not start or had to stop. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration does not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store failed; nothing was acknowledged afterwards.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listening socket failed.
    #[error("the region cannot listen: {0}; check the address and start it again")]
    Listen(#[from] std::io::Error),
    /// A task of the region panicked.
    #[error("a defect stopped the region: {0}; start it again and report the lines above")]
    Defect(#[from] tokio::task::JoinError),
}

/// Runs a region until `shutdown`: recovers, joins the stream of every peer, serves, and at the end lets open requests
/// finish, commits what is queued, and closes the store. A store that fails ends it with an error at once.
pub async fn run(
    deps: Deps,
    config: RegionConfig,
    listener: Listener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.check()?;
    let client = HttpClient::new(deps.net);
    let mut running = start(deps.store, deps.clock, client, config, Tenure::unlimited(), &shutdown).await?;
    let serving = serve(listener, running.router.clone(), running.region.shutdown.clone());
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        biased;
        // Only a failed store ends the writer before it is told to stop.
        failed = running.failed() => {
            running.abandon().await;
            return failed;
        }
        served = &mut serving => served,
    };
    if let Err(error) = served {
        running.region.shutdown.cancel();
        return Err(error.into());
    }
    running.finish().await
}

/// A region at work on an open store.
pub(crate) struct Running {
    /// What its tasks share.
    pub(crate) region: Arc<Region>,
    /// Everything that it answers.
    pub(crate) router: Router,
    /// Absent once it has ended.
    writing: Option<JoinHandle<Result<(), StoreError>>>,
    stop_writer: CancellationToken,
}

/// Reads the store and starts every task.
pub(crate) async fn start(
    store: SharedStore,
    clock: SharedClock,
    client: HttpClient,
    config: RegionConfig,
    tenure: Arc<Tenure>,
    shutdown: &CancellationToken,
) -> Result<Running, RunError> {
    let recovered = recover(&config, &store, &clock).await?;
    let (writer, queues) = WriterHandle::channel();
    let parts = Parts {
        clock,
        store,
        client,
        shutdown: shutdown.child_token(),
        writer,
        regime: recovered.regime.clone(),
        positions: recovered.positions.clone(),
        tenure,
    };
    let seed = Seed { meta: recovered.meta.clone() };
    let region = Arc::new(Region::new(config, parts));
    region.block(Blocker::Repairing, recovered.needs_repair());
    if region.config.unsafe_boot || region.config.peers.is_empty() {
        region.set_own_log(crate::state::OwnLog::Confirmed);
    }
    longhaul_http::metrics::publish(&region);
    let mut task = Writer::new(Arc::clone(&region), recovered);
    task.note_recovered_history();
    // The writer outlives the requests: it stops when nobody can ask it for anything any more.
    let stop_writer = CancellationToken::new();
    let writing = Some(TaskTracker::new().spawn(task.run(queues, stop_writer.clone())));

    let role = regime::start(&region, &seed);
    replicator::start(&region);
    housekeeping::start(&region);
    anti_entropy::start(&region);
    returning::start(&region);
    region.block(Blocker::Starting, false);
    let router = handlers::router(&region, &role);
    Ok(Running { region, router, writing, stop_writer })
}

impl Running {
    /// Waits until the writer ends by itself: with the store's error.
    pub(crate) async fn failed(&mut self) -> Result<(), RunError> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let ended = writing.await;
        self.writing = None;
        ended??;
        Ok(())
    }

    /// Ends a region whose store failed or is another instance's now: what waits for the writer is answered as unknown.
    pub(crate) async fn abandon(self) {
        self.region.shutdown.cancel();
        if let Some(writing) = self.writing {
            writing.abort();
            // Cancelled or ended: it holds the store no longer.
            let _ = writing.await;
        }
        self.region.tracker.close();
        self.region.tracker.wait().await;
        self.region.shipping.end(&self.region);
    }

    /// Ends a region that nobody asks any more: commits what is queued and closes the store.
    pub(crate) async fn finish(self) -> Result<(), RunError> {
        self.region.shutdown.cancel();
        self.region.tracker.close();
        self.region.tracker.wait().await;
        self.stop_writer.cancel();
        if let Some(writing) = self.writing {
            writing.await??;
        }
        self.region.shipping.end(&self.region);
        self.region.store.close().await?;
        Ok(())
    }
}
