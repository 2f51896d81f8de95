//! A region without its services, for tests.

use std::sync::Arc;

use longhaul_http::client::HttpClient;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::TokioNet;
use tokio_util::sync::CancellationToken;

use super::recover::recover;
use super::{Writer, WriterHandle};
use crate::config::RegionConfig;
use crate::state::{Parts, Region, SharedStore, Tenure};
use crate::store::memory::MemoryStore;

/// Region 1 of three, with its writer at work and nothing else.
pub(crate) struct Bench {
    pub(crate) region: Arc<Region>,
    pub(crate) store: MemoryStore,
    stop: CancellationToken,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::start_on(MemoryStore::new()).await
    }

    pub(crate) async fn start_on(store: MemoryStore) -> Self {
        let config: RegionConfig = serde_json::from_value(serde_json::json!({
            "region": 1,
            "regions": {"1": "eu-west", "2": "us-east", "3": "ap-south"},
            "listen": "127.0.0.1:0",
            "topology_fingerprint": "t",
            "peers": {"2": "127.0.0.1:9", "3": "127.0.0.1:9"},
            "genesis": {"mode": "active-active", "durability": "local"},
            "seed": 1,
            "session_secret": "s"
        }))
        .unwrap();
        let shared: SharedStore = Arc::new(store.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let recovered = recover(&config, &shared, &clock).await.unwrap();
        let (writer, queues) = WriterHandle::channel();
        let stop = CancellationToken::new();
        let parts = Parts {
            clock,
            store: shared,
            client: HttpClient::new(Arc::new(TokioNet)),
            shutdown: stop.clone(),
            writer,
            regime: recovered.regime.clone(),
            positions: recovered.positions.clone(),
            tenure: Tenure::unlimited(),
        };
        let region = Arc::new(Region::new(config, parts));
        region.tracker.spawn(Writer::new(Arc::clone(&region), recovered).run(queues, stop.clone()));
        Self { region, store, stop }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
