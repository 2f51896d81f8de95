//! Watching, while traffic flows, when sampled operations become visible at each region: a region keeps these moments in
//! memory, and a drill may kill it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longhaul_http::client::HttpClient;
use longhaul_http::wire::traffic::RegionTarget;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pages::Witness;

/// How often each region is asked.
const LOOK: Duration = Duration::from_millis(500);

/// What was seen: by region, when an operation became visible there first, nanoseconds since boot.
#[derive(Debug, Default)]
pub struct VisibilityWatch {
    seen: Mutex<BTreeMap<String, BTreeMap<Uuid, u64>>>,
}

impl VisibilityWatch {
    /// What was seen at one region.
    pub fn seen(&self, region: &str) -> BTreeMap<Uuid, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(region).cloned().unwrap_or_default()
    }

    fn add(&self, region: &str, samples: Vec<(Uuid, u64)>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(region.to_owned()).or_default();
        for (op_id, boot_ns) in samples {
            // Seen again after a restart, a repair or a snapshot: the first time is the one that counts.
            known.entry(op_id).or_insert(boot_ns);
        }
    }

    /// Watches one region until `stop`. While it does not answer there is nothing to see.
    pub async fn run(
        self: Arc<Self>,
        client: HttpClient,
        token: Option<String>,
        region: RegionTarget,
        stop: CancellationToken,
    ) {
        let witness = Witness { client, address: region.address.clone(), token };
        let mut after = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let page = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                page = witness.visibility_page(after) => page,
            };
            let Ok((samples, next)) = page else { continue };
            self.add(&region.name, samples);
            // A region that restarted counts from the beginning.
            after = if next < after { 0 } else { next };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moment_counts() {
        let (watch, op) = (VisibilityWatch::default(), Uuid::from_u128(7));
        watch.add("eu", vec![(op, 10)]);
        watch.add("eu", vec![(op, 99), (Uuid::from_u128(8), 50)]);
        assert_eq!(watch.seen("eu"), BTreeMap::from([(op, 10), (Uuid::from_u128(8), 50)]));
        assert!(watch.seen("us").is_empty());
    }
}
