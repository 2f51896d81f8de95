//! The return of a region whose tail was cut off: the records that the tail had touched are fetched again from the
//! surviving history before the region serves. Which ones is durable (`QuarantineRow::repaired`), so that a crash in
//! the middle goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use longhaul_core::ids::{Dot, RecordKey, RegionId};
use longhaul_core::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, REQUEST_DEADLINE};
use longhaul_core::record::Record;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::replication::{durable_vector, visible_vector};
use longhaul_core::vector::VersionVector;
use longhaul_http::client::{CallError, success};

use crate::handlers::rows::{ROWS_KEYS_MAX, ROWS_PATH, Rows};
use crate::replicator::authorize;
use crate::state::{Blocker, Region};
use crate::store::StoreError;
use crate::store::quarantine_pages::QuarantinePages;

/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(200);
/// A peer that was not heard for this long is not asked.
const HEARD: Duration = Duration::from_secs(2);

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
    #[error("{0} repairs the same records")]
    Repairing(String),
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
    let mut keys = unrepaired(region, ROWS_KEYS_MAX).await?;
    if region.is_isolated() {
        return repair_home(region, keys.into_iter().collect()).await;
    }
    let mut problem = RepairError::Nobody;
    let mut repairing = BTreeSet::from([region.id()]);
    for source in sources(region) {
        let asked: Vec<RecordKey> = keys.iter().cloned().collect();
        match fetch(region, source, &asked).await {
            Ok(rows) if rows.applied.dominates(&had) => {
                let rest: BTreeSet<RecordKey> = keys.intersection(&rows.unrepaired).cloned().collect();
                let whole = keys.difference(&rest).cloned().collect();
                let rows = rows.found.into_iter().filter(|row| !rest.contains(&row.key)).collect();
                take(region, whole, rows).await?;
                keys = rest;
                if keys.is_empty() {
                    return Ok(());
                }
                repairing.insert(source);
                problem = RepairError::Repairing(region.config.name_of(source).to_owned());
            }
            Ok(_) => problem = RepairError::Behind(region.config.name_of(source).to_owned()),
            Err(error) => problem = error,
        }
    }
    if leads_repair(&region.regime(), region.id(), &repairing) {
        tracing::warn!(keys = keys.len(), "every region repairs the same records; they are taken from the log");
        let rows = logged(region, &keys).await?;
        return take(region, keys.into_iter().collect(), rows).await;
    }
    Err(problem)
}

/// Whether this region has to end a round in which everybody waits for everybody else: `repairing` are all the members
/// there are, and it is the primary, or the first of them where there is none. The others then take from it what it has.
fn leads_repair(regime: &Regime, me: RegionId, repairing: &BTreeSet<RegionId>) -> bool {
    let mut active = regime.members.keys().filter(|region| regime.is_active(**region));
    active.clone().all(|region| repairing.contains(region))
        && regime.primary.map_or_else(|| active.next() == Some(&me), |primary| primary == me)
}

/// The newest state of each key in the logs of history, as far as they reach back.
async fn logged(region: &Region, keys: &BTreeSet<RecordKey>) -> Result<Vec<Record>, StoreError> {
    let mut newest: BTreeMap<RecordKey, Record> = BTreeMap::new();
    let mut whole = true;
    for (timeline, position) in region.positions().iter() {
        // What is no longer in the log is skipped: the first page begins wherever the log does.
        let mut after = 0;
        while after < position.visible {
            let page = region.store.log(*timeline, after, BATCH_OPERATIONS_MAX, BATCH_BYTES_MAX).await?;
            whole &= after > 0 || page.first().is_some_and(|first| first.dot.seq == 1);
            let Some(last) = page.last() else { break };
            after = last.dot.seq;
            let shown = page.iter().filter(|operation| operation.dot.seq <= position.visible);
            for record in shown.filter_map(Record::from_operation).filter(|record| keys.contains(&record.key)) {
                if newest.get(&record.key).is_none_or(|known| record.version > known.version) {
                    newest.insert(record.key.clone(), record);
                }
            }
        }
    }
    let missing = keys.len() - newest.len();
    if missing > 0 && !whole {
        tracing::warn!(
            missing,
            "the log has nothing of some records that a removed tail had touched, and does not reach back to the \
             beginning: those that the tail did not create are lost here (see /v1/regions/REGION/divergent for the tail)"
        );
    }
    Ok(newest.into_values().collect())
}

/// Installs rows of the surviving history.
async fn take(region: &Arc<Region>, keys: Vec<RecordKey>, rows: Vec<Record>) -> Result<(), RepairError> {
    let dots: Vec<Dot> = rows.iter().map(|row| row.dot).collect();
    let mut needed = VersionVector::default();
    for dot in &dots {
        needed.advance(dot.timeline, dot.seq);
    }
    // The source may be a link's delay ahead.
    region.await_durable(&needed, RETRY * 5).await;
    let before = keys.len();
    let left = region.writer.repair(keys, rows).await?;
    if left > 0 && !dots.is_empty() && !durable_vector(&region.positions()).dominates(&needed) {
        tracing::debug!(left, asked = before, "rows that the log has not brought yet wait");
        return Err(RepairError::Behind(region.config.name().to_owned()));
    }
    Ok(())
}

/// In isolation a home's records are at home, and with whoever kept them while the home was frozen: their rows come from
/// all of those, and the newest one counts. What is kept for a frozen home comes back from the log: every keeper may have
/// removed the same tail, and none may ask another. Other records of other homes do not come back.
async fn repair_home(region: &Arc<Region>, keys: Vec<RecordKey>) -> Result<(), RepairError> {
    let (me, regime) = (region.id(), region.regime());
    let (own, foreign): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.home == me);
    let (kept, foreign): (Vec<_>, Vec<_>) =
        foreign.into_iter().partition(|key| regime.frozen_homes.contains(&key.home));
    // Asked even if there are none: a purge may have taken the last ones away.
    region.writer.repair(foreign, Vec::new()).await?;
    if !kept.is_empty() {
        let rows = logged(region, &kept.iter().cloned().collect()).await?;
        take(region, kept, rows).await?;
    }
    if own.is_empty() {
        return Ok(());
    }
    let mut newest: BTreeMap<RecordKey, Record> = BTreeMap::new();
    if regime.frozen_homes.contains(&me) {
        let keepers = regime.members.keys().copied().filter(|peer| *peer != me && regime.is_active(*peer));
        for keeper in keepers {
            let kept = fetch(region, keeper, &own).await?;
            if !kept.unrepaired.is_empty() {
                return Err(RepairError::Repairing(region.config.name_of(keeper).to_owned()));
            }
            for row in kept.found {
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

/// Keys that this region has to repair, at most `max` of them.
pub(crate) async fn unrepaired(region: &Region, max: usize) -> Result<BTreeSet<RecordKey>, StoreError> {
    let mut keys = BTreeSet::new();
    let mut pages = QuarantinePages::new(&*region.store);
    while keys.len() < max
        && let Some(page) = pages.next().await?
    {
        keys.extend(page.iter().filter(|row| !row.repaired).filter_map(|row| row.operation.key()));
    }
    Ok(keys.into_iter().take(max).collect())
}

async fn fetch(region: &Region, source: RegionId, keys: &[RecordKey]) -> Result<Rows, RepairError> {
    let address = region.directory.address(source).ok_or(RepairError::Nobody)?;
    let mut request = Request::new(Bytes::from(postcard::to_allocvec(keys)?));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(ROWS_PATH);
    authorize(region, request.headers_mut());
    let answer = success(address, region.client.send(address, request, REQUEST_DEADLINE * 5).await?)?;
    Ok(postcard::from_bytes(answer.body())?)
}
