//! The return of a region whose tail was cut off: the records that the tail had touched are fetched again from the
//! surviving history before the region serves. Which ones is durable (`QuarantineRow::repaired`), so that a crash in
//! the middle goes on where it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use longhaul_core::ids::{Dot, RecordKey, RegionId};
use longhaul_core::limits::REQUEST_DEADLINE;
use longhaul_core::record::Record;
use longhaul_core::regime::Mode;
use longhaul_core::replication::{durable_vector, visible_vector};
use longhaul_core::vector::VersionVector;
use longhaul_http::client::{CallError, success};

use crate::handlers::rows::{ROWS_KEYS_MAX, ROWS_PATH, Rows};
use crate::replicator::authorize;
use crate::state::{Blocker, Region};
use crate::store::StoreError;

/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(200);
/// A peer that was not heard for this long is not asked.
const HEARD: Duration = Duration::from_secs(2);
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
        while region.blockers().contains(&Blocker::Repairing) {
            if let Err(error) = repair(region).await {
                tracing::warn!(%error, "records that a removed tail had touched cannot be repaired yet");
                tokio::time::sleep(RETRY).await;
            }
        }
        tracing::info!("every record that a removed tail had touched is repaired");
    }
}

/// Repairs a page of records.
async fn repair(region: &Arc<Region>) -> Result<(), RepairError> {
    // What was applied before the tail was removed merged with the tail; what comes later does not. Read anew every
    // time: another cut may have taken back what was there before.
    let had = visible_vector(&region.positions());
    let keys = unrepaired(region).await?;
    if region.is_isolated() {
        return repair_home(region, keys).await;
    }
    let mut problem = RepairError::Nobody;
    let mut found = None;
    for source in sources(region) {
        match fetch(region, source, &keys).await {
            Ok(rows) if rows.applied.dominates(&had) => {
                found = Some(rows);
                break;
            }
            Ok(_) => problem = RepairError::Behind(region.config.name_of(source).to_owned()),
            Err(error) => problem = error,
        }
    }
    let Some(rows) = found else { return Err(problem) };
    let dots: Vec<Dot> = rows.rows.iter().map(|row| row.dot).collect();
    let mut needed = VersionVector::default();
    for dot in &dots {
        needed.advance(dot.timeline, dot.seq);
    }
    // The source may be a link's delay ahead.
    region.await_durable(&needed, RETRY * 5).await;
    let before = keys.len();
    let left = region.writer.repair(keys, rows.rows).await?;
    if left > 0 && !dots.is_empty() && !durable_vector(&region.positions()).dominates(&needed) {
        tracing::debug!(left, asked = before, "rows that the log has not brought yet wait");
        return Err(RepairError::Behind(region.config.name().to_owned()));
    }
    Ok(())
}

/// In isolation a home's records are at home, and with whoever kept them while the home was frozen: their rows come from
/// all of those, and the newest one counts. Records of other homes do not come back.
async fn repair_home(region: &Arc<Region>, keys: Vec<RecordKey>) -> Result<(), RepairError> {
    let (me, regime) = (region.id(), region.regime());
    let (own, foreign): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.home == me);
    // Asked even if there are none: a purge may have taken the last ones away.
    region.writer.repair(foreign, Vec::new()).await?;
    if own.is_empty() {
        return Ok(());
    }
    let mut newest: BTreeMap<RecordKey, Record> = BTreeMap::new();
    if regime.frozen_homes.contains(&me) {
        let keepers = regime.members.keys().copied().filter(|peer| *peer != me && regime.is_active(*peer));
        for keeper in keepers {
            for row in fetch(region, keeper, &own).await?.rows {
                if newest.get(&row.key).is_none_or(|known| row.version > known.version) {
                    newest.insert(row.key.clone(), row);
                }
            }
        }
        region.writer.repair(own, newest.into_values().collect()).await?;
        return Ok(());
    }
    // Nobody else may have them: what was written again at home is whole, and the rest waits.
    let here = region.store.records(&own).await?;
    let whole: Vec<RecordKey> =
        own.iter().zip(here).filter(|(_, row)| row.is_some()).map(|(key, _)| key.clone()).collect();
    let missing = own.len() - whole.len();
    region.writer.repair(whole, Vec::new()).await?;
    if missing > 0 { Err(RepairError::Nobody) } else { Ok(()) }
}

/// Whom to ask: the primary. The primary itself, and everybody where there is none, asks those heard of late, first
/// whoever has the most of history.
fn sources(region: &Region) -> Vec<RegionId> {
    let regime = region.regime();
    if regime.mode == Mode::ActivePassive && regime.primary != Some(region.id()) {
        return regime.primary.into_iter().collect();
    }
    let fresh_ns = region.clock.boot_ns().saturating_sub(HEARD.as_nanos() as u64);
    let states = region.peers.states();
    let mut heard: Vec<(u64, u64, RegionId)> = Vec::new();
    heard.extend(states.into_iter().filter_map(|(peer, state)| {
        let report = state.report.filter(|report| report.heard_boot_ns >= fresh_ns)?;
        let held: u64 = visible_vector(&report.positions).iter().map(|(_, seq)| seq).sum();
        Some((held, report.heard_boot_ns, peer))
    }));
    heard.sort_unstable();
    heard.into_iter().rev().map(|(.., peer)| peer).collect()
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
