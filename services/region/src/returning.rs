//! The return of a region whose tail was cut off: the records that the tail had touched are fetched again from the
//! surviving history before the region serves. Which ones is durable (`QuarantineRow::repaired`), so that a crash in
//! the middle goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use longhaul_core::ids::{RecordKey, RegionId};
use longhaul_core::limits::REQUEST_DEADLINE;
use longhaul_core::regime::Mode;
use longhaul_core::replication::visible_vector;
use longhaul_core::vector::VersionVector;
use longhaul_http::client::{CallError, success};

use crate::handlers::rows::{ROWS_KEYS_MAX, ROWS_PATH, Rows};
use crate::replicator::authorize;
use crate::state::{Blocker, Region};
use crate::store::StoreError;

/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(200);
/// Quarantined operations read at a time.
const PAGE: usize = 1000;

/// Starts the task.
pub(crate) fn start(region: &Arc<Region>) {
    let task = Arc::clone(region);
    region.tracker.spawn(async move {
        tokio::select! {
            biased;
            () = task.shutdown.cancelled() => {}
            () = run(&task) => {}
        }
    });
}

#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error("no region of the surviving history is reachable")]
    Nobody,
    #[error("{0} has not yet applied everything that this region had")]
    Behind(String),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("the rows cannot be read: {0}")]
    Unreadable(#[from] postcard::Error),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Writer(#[from] crate::writer::WriterGone),
}

async fn run(region: &Arc<Region>) {
    let mut blockers = region.watch_blockers();
    loop {
        if blockers.wait_for(|blockers| blockers.contains(&Blocker::Repairing)).await.is_err() {
            return;
        }
        // What was applied before the tail was removed merged with the tail; what comes later does not.
        let had = visible_vector(&region.positions());
        while region.blockers().contains(&Blocker::Repairing) {
            if let Err(error) = repair(region, &had).await {
                tracing::warn!(%error, "records that a removed tail had touched cannot be repaired yet");
                tokio::time::sleep(RETRY).await;
            }
        }
        tracing::info!("every record that a removed tail had touched is repaired");
    }
}

/// Repairs a page of records.
async fn repair(region: &Arc<Region>, had: &VersionVector) -> Result<(), RepairError> {
    let keys = unrepaired(region).await?;
    if region.is_isolated() {
        // Nobody else may have the records of this home.
        region.writer.repair(keys, Vec::new()).await?;
        return Ok(());
    }
    let source = source(region).ok_or(RepairError::Nobody)?;
    let rows = fetch(region, source, &keys).await?;
    if !rows.applied.dominates(had) {
        return Err(RepairError::Behind(region.config.name_of(source).to_owned()));
    }
    region.writer.repair(keys, rows.rows).await?;
    Ok(())
}

/// Whom to ask: the primary, or else whoever was heard last.
fn source(region: &Region) -> Option<RegionId> {
    let regime = region.regime();
    if regime.mode == Mode::ActivePassive {
        return regime.primary.filter(|primary| *primary != region.id());
    }
    let states = region.peers.states();
    let heard = states.into_iter().filter_map(|(peer, state)| Some((state.report?.heard_boot_ns, peer)));
    heard.max().map(|(_, peer)| peer)
}

async fn unrepaired(region: &Region) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys = std::collections::BTreeSet::new();
    let mut offset = 0;
    loop {
        let page = region.store.quarantine(offset, PAGE).await?;
        offset += page.len() as u64;
        let last = page.len() < PAGE;
        keys.extend(page.iter().filter(|row| !row.repaired).filter_map(|row| row.operation.key()));
        if last || keys.len() >= ROWS_KEYS_MAX {
            return Ok(keys.into_iter().take(ROWS_KEYS_MAX).collect());
        }
    }
}

async fn fetch(region: &Region, source: RegionId, keys: &[RecordKey]) -> Result<Rows, RepairError> {
    let address = region.config.peers.get(&source).ok_or(RepairError::Nobody)?;
    let mut request = Request::new(Bytes::from(postcard::to_allocvec(keys)?));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(ROWS_PATH);
    authorize(region, request.headers_mut());
    let answer = success(address, region.client.send(address, request, REQUEST_DEADLINE * 5).await?)?;
    Ok(postcard::from_bytes(answer.body())?)
}
