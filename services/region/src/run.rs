//! One region from start to end, the same in every world.

use std::sync::Arc;

use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::serve::serve;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ConfigError, RegionConfig};
use crate::regime::Seed;
use crate::state::{Blocker, Parts, Region, SharedStore};
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
    let recovered = recover(&config, &deps.store, &deps.clock).await?;
    let (writer, queues) = WriterHandle::channel();
    let parts = Parts {
        clock: deps.clock,
        store: Arc::clone(&deps.store),
        client: HttpClient::new(deps.net),
        shutdown: shutdown.child_token(),
        writer,
        regime: recovered.regime.clone(),
        positions: recovered.positions.clone(),
    };
    let seed = Seed { meta: recovered.meta.clone() };
    let region = Arc::new(Region::new(config, parts));
    region.block(Blocker::Repairing, recovered.needs_repair());
    if region.config.unsafe_boot || region.config.peers.is_empty() {
        region.set_own_log(crate::state::OwnLog::Confirmed);
    }
    let mut task = Writer::new(Arc::clone(&region), recovered);
    task.note_recovered_history();
    // The writer outlives the requests: it stops when nobody can ask it for anything any more.
    let stop_writer = CancellationToken::new();
    let writers = TaskTracker::new();
    let mut writing = writers.spawn(task.run(queues, stop_writer.clone()));

    let role = regime::start(&region, &seed);
    replicator::start(&region);
    housekeeping::start(&region);
    anti_entropy::start(&region);
    returning::start(&region);
    region.block(Blocker::Starting, false);

    let router = handlers::router(&region, &role);
    let serving = serve(listener, router, region.shutdown.clone());
    let mut serving = std::pin::pin!(serving);
    let outcome = tokio::select! {
        biased;
        written = &mut writing => {
            // Only a failed store ends the writer before it is told to stop.
            region.shutdown.cancel();
            region.tracker.close();
            region.tracker.wait().await;
            written??;
            Ok(())
        }
        served = &mut serving => served.map_err(RunError::from),
    };
    if outcome.is_err() || writing.is_finished() {
        region.shutdown.cancel();
        return outcome;
    }
    region.shutdown.cancel();
    region.tracker.close();
    region.tracker.wait().await;
    stop_writer.cancel();
    writing.await??;
    region.store.close().await?;
    outcome
}
