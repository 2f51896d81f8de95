//! The proof that regions converged: equal vectors must mean equal digests. A difference is an alarm, never something
//! to repair in silence; collection stops, so that what explains it stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use longhaul_core::ids::RegionId;
use longhaul_core::limits::REQUEST_DEADLINE;
use longhaul_core::replication::visible_vector;
use longhaul_core::vector::VersionVector;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::replicator::authorize;
use crate::state::Region;

/// The endpoint.
pub const SUMS_PATH: &str = "/internal/v1/sums";
/// Differences at equal vectors in a row before the alarm: the digests are read beside the writer, so that one alone
/// may have caught two commits.
const CONFIRMATIONS: u32 = 3;

/// The digests that the writer keeps, summed up per home, and the vector to which they belong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// What is visible.
    pub visible: VersionVector,
    /// The life of the data set.
    pub dataset_generation: u32,
    /// Live rows and the sum of their hashes, hexadecimal, per home.
    pub homes: BTreeMap<RegionId, (u64, String)>,
}

/// The endpoint for peers.
pub fn router() -> Router<Arc<Region>> {
    Router::new().route(SUMS_PATH, get(serve))
}

async fn serve(State(region): State<Arc<Region>>) -> Response {
    Json(sums(&region)).into_response()
}

fn sums(region: &Region) -> Sums {
    let published = region.digests();
    let homes = published.homes.iter().filter(|(_, digest)| digest.rows > 0);
    Sums {
        visible: visible_vector(&published.positions),
        dataset_generation: region.regime().dataset_generation,
        homes: homes.map(|(home, digest)| (*home, (digest.rows, format!("{:032x}", digest.sum)))).collect(),
    }
}

/// Starts the task.
pub fn start(region: &Arc<Region>) {
    let task = Arc::clone(region);
    region.tracker.spawn(async move {
        tokio::select! {
            biased;
            () = task.shutdown.cancelled() => {}
            () = run(&task) => {}
        }
    });
}

async fn run(region: &Arc<Region>) {
    let mut ticks = interval(Duration::from_millis(region.config.timings.digest_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspicions: BTreeMap<RegionId, u32> = BTreeMap::new();
    loop {
        ticks.tick().await;
        // Digests over foreign homes tell about their records, so isolation exchanges none.
        if region.is_isolated() || !region.is_ready() {
            continue;
        }
        for peer in region.config.others() {
            let suspicion = suspicions.entry(peer).or_default();
            match compare(region, peer).await {
                Some(true) => *suspicion = 0,
                Some(false) => {
                    *suspicion += 1;
                    if *suspicion == CONFIRMATIONS {
                        region.counters.divergence_alarms.add(1);
                        tracing::error!(
                            peer = region.config.name_of(peer),
                            "digests differ although the vectors are equal"
                        );
                    }
                }
                None => {}
            }
        }
    }
}

/// Whether the peer's digests equal ours; `None` if the vectors differ or the peer does not answer.
async fn compare(region: &Region, peer: RegionId) -> Option<bool> {
    let address = region.directory.address(peer)?;
    let mut headers = http::HeaderMap::new();
    authorize(region, &mut headers);
    let method = http::Method::GET;
    let theirs: Sums =
        region.client.json::<(), _>(method, address, SUMS_PATH, headers, None, REQUEST_DEADLINE).await.ok()?;
    let ours = sums(region);
    let comparable = theirs.visible == ours.visible && theirs.dataset_generation == ours.dataset_generation;
    comparable.then(|| theirs.homes == ours.homes)
}
