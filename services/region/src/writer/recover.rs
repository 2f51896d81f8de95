//! What a starting region reads from its store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::clock::RegionClock;
use longhaul_core::ids::{RecordKey, RegionId, Timeline};
use longhaul_core::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, CLOCK_UPPER_AHEAD};
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::operation::Operation;
use longhaul_core::regime::Regime;
use longhaul_core::replication::Positions;
use longhaul_core::vector::VersionVector;
use longhaul_http::clock::SharedClock;
use serde::de::DeserializeOwned;

use super::meta;
use super::task::bound_entry;
use crate::config::RegionConfig;
use crate::state::SharedStore;
use crate::store::quarantine_pages::QuarantinePages;
use crate::store::{Commit, DigestMap, QuarantineRow, StoreError};

/// A region's state as its store has it.
pub(crate) struct Recovered {
    pub(crate) regime: Regime,
    pub(crate) positions: Positions,
    pub(super) digests: DigestMap,
    pub(super) clock: RegionClock,
    pub(super) clock_upper_ns: u64,
    pub(super) unapplied: BTreeMap<Timeline, VecDeque<Arc<Operation>>>,
    pub(super) unrepaired: BTreeMap<RecordKey, Vec<QuarantineRow>>,
    pub(super) unmerged: BTreeSet<RegionId>,
    pub(super) rows_ahead: VersionVector,
    /// Every durable named value.
    pub(crate) meta: BTreeMap<String, Bytes>,
}

impl Recovered {
    /// Whether records that a removed tail had touched are not repaired yet.
    pub(crate) fn needs_repair(&self) -> bool {
        !self.unrepaired.is_empty()
    }
}

/// Reads the store. A new store gets the genesis regime, durably, before anything else happens.
pub(crate) async fn recover(
    config: &RegionConfig,
    store: &SharedStore,
    clock: &SharedClock,
) -> Result<Recovered, StoreError> {
    let loaded = store.load().await?;
    let regime = match loaded.meta.get(meta::REGIME) {
        Some(text) => serde_json::from_slice(text).map_err(|error| StoreError::Unusable {
            path: "meta".to_owned(),
            reason: format!("the regime in it cannot be read: {error}"),
            remedy: "start the version of longhaul that wrote it, or give the region an empty store".to_owned(),
        })?,
        None => config.genesis_regime(),
    };
    let (wall_ns, boot_ns) = (clock.wall_ns(), clock.boot_ns());
    let last_upper_ns = loaded
        .meta
        .get(meta::CLOCK_UPPER)
        .and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)))
        .unwrap_or(0);
    let stored_ns = loaded.positions.values().map(|position| position.version.time_ns).max().unwrap_or(0);
    let mut floor_ns = regime.hlc_floor_ns.max(stored_ns);
    // Stamps leave the region only after they are stored, so that what is stored is floor enough, unless the wall clock
    // was set back: then only the last bound tells how far the last run may have gone.
    if last_upper_ns > wall_ns.saturating_add(CLOCK_UPPER_AHEAD.as_nanos() as u64) {
        floor_ns = floor_ns.max(last_upper_ns);
    }
    if is_broken(Rule::RestoredClock) {
        floor_ns = 0;
    }
    let mut region_clock = RegionClock::new(config.region, floor_ns, 0);
    let mut clock_upper_ns = 0;
    let mut commit = Commit::default();
    if let Some(upper_ns) = region_clock.upper_needed(wall_ns, boot_ns) {
        clock_upper_ns = upper_ns;
        commit.meta.push(bound_entry(upper_ns));
    }
    if !loaded.meta.contains_key(meta::REGIME) {
        commit.meta.push(regime_entry(&regime));
        commit.meta.push((meta::BORN.to_owned(), Bytes::copy_from_slice(&wall_ns.to_be_bytes())));
    }
    store.commit(commit).await?;
    region_clock.set_upper(clock_upper_ns);

    let mut unapplied = BTreeMap::new();
    for (timeline, position) in loaded.positions.iter().filter(|(_, position)| position.visible < position.seq) {
        unapplied.insert(*timeline, read_log(store, *timeline, position.visible, position.seq).await?.into());
    }
    Ok(Recovered {
        unrepaired: unrepaired(store).await?,
        unmerged: remembered(&loaded.meta, meta::UNMERGED)?,
        rows_ahead: remembered(&loaded.meta, meta::ROWS_AHEAD)?,
        regime,
        positions: loaded.positions,
        digests: loaded.digests,
        clock: region_clock,
        clock_upper_ns,
        unapplied,
        meta: loaded.meta,
    })
}

/// A durable value; the default if there is none.
fn remembered<T: DeserializeOwned + Default>(meta: &BTreeMap<String, Bytes>, name: &str) -> Result<T, StoreError> {
    let Some(bytes) = meta.get(name) else { return Ok(T::default()) };
    postcard::from_bytes(bytes).map_err(|error| StoreError::Unusable {
        path: format!("meta/{name}"),
        reason: format!("it cannot be read: {error}"),
        remedy: "start the version of longhaul that wrote it, or give the region an empty store".to_owned(),
    })
}

/// Every log entry of a timeline after `after` up to `up_to`.
pub(super) async fn read_log(
    store: &SharedStore,
    timeline: Timeline,
    mut after: u64,
    up_to: u64,
) -> Result<Vec<Arc<Operation>>, StoreError> {
    let mut operations = Vec::new();
    while after < up_to {
        let page = store.log(timeline, after, BATCH_OPERATIONS_MAX, BATCH_BYTES_MAX).await?;
        let Some(last) = page.last() else { break };
        after = last.dot.seq;
        operations.extend(page.into_iter().filter(|operation| operation.dot.seq <= up_to).map(Arc::new));
    }
    Ok(operations)
}

async fn unrepaired(store: &SharedStore) -> Result<BTreeMap<RecordKey, Vec<QuarantineRow>>, StoreError> {
    let mut rows: BTreeMap<RecordKey, Vec<QuarantineRow>> = BTreeMap::new();
    let mut pages = QuarantinePages::new(&**store);
    while let Some(page) = pages.next().await? {
        for row in page.into_iter().filter(|row| !row.repaired) {
            if let Some(key) = row.operation.key() {
                rows.entry(key).or_default().push(row);
            }
        }
    }
    Ok(rows)
}

/// The adopted regime as a durable value.
pub(super) fn regime_entry(regime: &Regime) -> (String, Bytes) {
    let text = serde_json::to_vec(regime).expect("a regime has string keys and plain values");
    (meta::REGIME.to_owned(), text.into())
}
