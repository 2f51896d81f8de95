//! A store in memory that behaves like a disk: for simulation and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ids::{Dot, OpId, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;

use super::log_page::LogPage;
use super::needles::{Needles, Sightings};
use super::{
    Commit, ConflictRow, DigestMap, IdempotencyRow, Loaded, OperationId, Position, QuarantineRow, QuarantineState,
    Store, StoreError, StoreFuture, StoreStats,
};

/// What stands for the file's path in errors.
const PATH: &str = "in memory";

/// A handle to a simulated disk. Clones share the disk, so that a test keeps one while the process that uses another
/// is killed and started again.
///
/// A commit is on the disk when it returns, never before and never in part. One whose future is dropped, or that is
/// still flushing at [`MemoryStore::crash`], is lost whole.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
    flush_delay: Duration,
}

#[derive(Debug, Default)]
struct Disk {
    tables: Tables,
    crashes: u64,
    next_failure: Option<StoreError>,
}

#[derive(Debug, Default)]
struct Tables {
    positions: BTreeMap<Timeline, Position>,
    log: BTreeMap<Dot, Operation>,
    records: BTreeMap<RecordKey, Record>,
    tombstones: BTreeSet<(Version, RecordKey)>,
    idempotency: BTreeMap<OpId, IdempotencyRow>,
    conflicts: BTreeMap<(Dot, Dot), ConflictRow>,
    quarantine: BTreeMap<Dot, QuarantineRow>,
    digests: DigestMap,
    meta: BTreeMap<String, Bytes>,
}

impl MemoryStore {
    /// An empty disk that flushes at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// This handle takes `delay` (of tokio's clock) to make a commit durable.
    #[must_use]
    pub fn with_flush_delay(mut self, delay: Duration) -> Self {
        self.flush_delay = delay;
        self
    }

    /// Power goes: commits that have not returned are lost, whole. The disk itself can be used again at once.
    pub fn crash(&self) {
        self.lock().crashes += 1;
    }

    /// The next commit through any handle fails with this error and changes nothing.
    pub fn fail_next_commit(&self, error: StoreError) {
        self.lock().next_failure = Some(error);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // Nothing is left half done under the lock: rows are checked before the first one is changed.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&Tables) -> T) -> StoreFuture<'_, T> {
        let answer = read(&self.lock().tables);
        Box::pin(async move { Ok(answer) })
    }
}

fn failed(reason: impl Into<String>) -> StoreError {
    StoreError::Failed { path: PATH.to_owned(), reason: reason.into() }
}

/// All dots of a timeline above a sequence number.
fn above(timeline: Timeline, seq: u64) -> (Bound<Dot>, Bound<Dot>) {
    (Bound::Excluded(Dot { timeline, seq }), Bound::Included(Dot { timeline, seq: u64::MAX }))
}

/// All dots of a timeline up to a sequence number.
fn up_to(timeline: Timeline, seq: u64) -> (Bound<Dot>, Bound<Dot>) {
    (Bound::Included(Dot { timeline, seq: 0 }), Bound::Included(Dot { timeline, seq }))
}

impl Tables {
    /// Whether a commit may be applied; nothing has been changed yet.
    fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        for operation in &commit.operations {
            let dot = operation.dot;
            let removed = commit.forgotten.contains(&dot.timeline)
                || commit.truncated.iter().any(|(timeline, seq)| *timeline == dot.timeline && dot.seq > *seq);
            if !seen.insert(dot) || (self.log.contains_key(&dot) && !removed) {
                return Err(failed(format!("operation {dot} is already in the log")));
            }
        }
        Ok(())
    }

    fn apply(&mut self, commit: Commit) {
        for (timeline, seq) in commit.truncated {
            self.remove_log(above(timeline, seq));
            self.idempotency.retain(|_, row| row.dot.timeline != timeline || row.dot.seq <= seq);
        }
        for timeline in commit.forgotten {
            self.remove_log(up_to(timeline, u64::MAX));
            self.positions.remove(&timeline);
        }
        for key in commit.removed_records {
            self.remove_record(&key);
        }
        for record in commit.records {
            self.remove_record(&record.key);
            if record.is_tombstone() {
                self.tombstones.insert((record.version, record.key.clone()));
            }
            self.records.insert(record.key.clone(), record);
        }
        self.log.extend(commit.operations.into_iter().map(|operation| (operation.dot, operation)));
        for row in commit.idempotency {
            self.idempotency.entry(row.op_id).or_insert(row);
        }
        for row in commit.conflicts {
            self.conflicts.entry((row.loser, row.winner)).or_insert(row);
        }
        self.quarantine.extend(commit.quarantine.into_iter().map(|row| (row.operation.dot, row)));
        self.positions.extend(commit.positions);
        self.digests.extend(commit.digests);
        self.meta.extend(commit.meta);
    }

    fn remove_record(&mut self, key: &RecordKey) {
        if let Some(old) = self.records.remove(key) {
            self.tombstones.remove(&(old.version, old.key));
        }
    }

    fn remove_log(&mut self, range: (Bound<Dot>, Bound<Dot>)) {
        let dots: Vec<Dot> = self.log.range(range).map(|(dot, _)| *dot).collect();
        for dot in dots {
            self.log.remove(&dot);
        }
    }

    fn load(&self) -> Loaded {
        let floor = |timeline: &Timeline, position: &Position| {
            let first = self.log.range(up_to(*timeline, u64::MAX)).next();
            first.map_or(position.seq, |(dot, _)| dot.seq.saturating_sub(1))
        };
        Loaded {
            positions: self.positions.clone(),
            log_floors: self.positions.iter().map(|(timeline, at)| (*timeline, floor(timeline, at))).collect(),
            meta: self.meta.clone(),
            digests: self.digests.clone(),
        }
    }

    fn log(&self, timeline: Timeline, after: u64, mut page: LogPage) -> Vec<Operation> {
        for operation in self.log.range(above(timeline, after)).map(|(_, operation)| operation) {
            if !page.push(operation.clone()) {
                break;
            }
        }
        page.into_operations()
    }

    fn scan(&self, home: Option<RegionId>, after: Option<&RecordKey>, limit: usize) -> Vec<Record> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.records.range::<RecordKey, _>((start, Bound::Unbounded)).map(|(_, row)| row);
        rows.filter(|row| home.is_none_or(|home| row.key.home == home)).take(limit).cloned().collect()
    }

    fn purge(&mut self, home: RegionId, keep_positions: &[Timeline]) {
        self.log.clear();
        self.records.retain(|key, _| key.home == home);
        self.tombstones.retain(|(_, key)| key.home == home);
        self.idempotency.retain(|_, row| row.key.home == home);
        self.conflicts.retain(|_, row| row.key.home == home);
        self.quarantine.retain(|_, row| row.operation.home == home);
        self.digests.retain(|(bucket_home, _), _| *bucket_home == home);
        self.positions.retain(|timeline, _| keep_positions.contains(timeline));
    }

    fn find(&self, needles: &Needles) -> Sightings {
        let mut seen = Sightings::default();
        let id_bytes = |id: Option<&RecordId>| id.map_or_else(Vec::new, |id| id.as_str().as_bytes().to_vec());
        for (key, row) in &self.records {
            seen.search_row(needles, "record", key, key.id.as_str().as_bytes());
            seen.search_row(needles, "record", key, row.value.as_deref().unwrap_or_default());
        }
        for (dot, row) in &self.log {
            seen.search_row(needles, "log", dot, &id_bytes(row.id.as_ref()));
            seen.search_row(needles, "log", dot, row.value.as_deref().unwrap_or_default());
        }
        for (op_id, row) in &self.idempotency {
            seen.search_row(needles, "idempotency", op_id, op_id.0.as_bytes());
            seen.search_row(needles, "idempotency", op_id, row.key.id.as_str().as_bytes());
        }
        for row in self.conflicts.values() {
            seen.search_row(needles, "conflict", &row.loser, row.key.id.as_str().as_bytes());
            seen.search_row(needles, "conflict", &row.loser, row.loser_value.as_deref().unwrap_or_default());
        }
        for (dot, row) in &self.quarantine {
            seen.search_row(needles, "quarantine", dot, &id_bytes(row.operation.id.as_ref()));
            seen.search_row(needles, "quarantine", dot, row.operation.value.as_deref().unwrap_or_default());
        }
        for (name, value) in &self.meta {
            seen.search_row(needles, "meta", name, value);
        }
        seen
    }

    fn stats(&self) -> StoreStats {
        let open = self.quarantine.values().filter(|row| row.state == QuarantineState::Open);
        StoreStats {
            records: (self.records.len() - self.tombstones.len()) as u64,
            tombstones: self.tombstones.len() as u64,
            operations: self.log.len() as u64,
            conflicts: self.conflicts.len() as u64,
            quarantined: self.quarantine.len() as u64,
            quarantine_open: open.count() as u64,
            bytes: 0,
        }
    }
}

impl Store for MemoryStore {
    fn system(&self) -> &'static str {
        "longhaul.memory"
    }

    fn load(&self) -> StoreFuture<'_, Loaded> {
        self.read(Tables::load)
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let crashes = {
                let mut disk = self.lock();
                if let Some(error) = disk.next_failure.take() {
                    return Err(error);
                }
                disk.crashes
            };
            if !self.flush_delay.is_zero() {
                tokio::time::sleep(self.flush_delay).await;
            }
            let mut disk = self.lock();
            if disk.crashes != crashes {
                return Err(failed("power was lost before the commit was flushed"));
            }
            disk.tables.check(&commit)?;
            disk.tables.apply(commit);
            Ok(())
        })
    }

    fn records<'a>(&'a self, keys: &'a [RecordKey]) -> StoreFuture<'a, Vec<Option<Record>>> {
        self.read(|tables| keys.iter().map(|key| tables.records.get(key).cloned()).collect())
    }

    fn idempotency<'a>(&'a self, op_ids: &'a [OpId]) -> StoreFuture<'a, Vec<IdempotencyRow>> {
        let op_ids: BTreeSet<OpId> = op_ids.iter().copied().collect();
        self.read(|tables| op_ids.iter().filter_map(|op_id| tables.idempotency.get(op_id).cloned()).collect())
    }

    fn log(
        &self,
        timeline: Timeline,
        after: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> StoreFuture<'_, Vec<Operation>> {
        self.read(|tables| tables.log(timeline, after, LogPage::new(max_operations, max_bytes)))
    }

    fn scan<'a>(
        &'a self,
        home: Option<RegionId>,
        after: Option<&'a RecordKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Record>> {
        self.read(|tables| tables.scan(home, after, limit))
    }

    fn tombstones(&self, at_or_below: Version, limit: usize) -> StoreFuture<'_, Vec<Record>> {
        self.read(|tables| {
            let old = tables.tombstones.iter().take_while(|(version, _)| *version <= at_or_below);
            old.take(limit).filter_map(|(_, key)| tables.records.get(key).cloned()).collect()
        })
    }

    fn trim_log<'a>(&'a self, bounds: &'a [(Timeline, u64)]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut disk = self.lock();
            for (timeline, seq) in bounds {
                disk.tables.remove_log(up_to(*timeline, *seq));
            }
            Ok(())
        })
    }

    fn conflicts(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<ConflictRow>> {
        self.read(|tables| {
            let mut rows: Vec<&ConflictRow> = tables.conflicts.values().collect();
            rows.sort_by_key(|row| std::cmp::Reverse((row.found_ns, row.loser, row.winner)));
            rows.into_iter().skip(offset as usize).take(limit).cloned().collect()
        })
    }

    fn quarantine(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<QuarantineRow>> {
        self.read(|tables| tables.quarantine.values().skip(offset as usize).take(limit).cloned().collect())
    }

    fn operation_ids(&self, after: Option<OpId>, limit: usize) -> StoreFuture<'_, Vec<OperationId>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|tables| {
            let rows = tables.idempotency.range((start, Bound::Unbounded));
            rows.take(limit).map(|(_, row)| OperationId::from(row.clone())).collect()
        })
    }

    fn purge<'a>(&'a self, home: RegionId, keep_positions: &'a [Timeline]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.lock().tables.purge(home, keep_positions);
            Ok(())
        })
    }

    fn find_bytes<'a>(&'a self, needles: &'a [Bytes]) -> StoreFuture<'a, Vec<(usize, String)>> {
        let needles = Needles::new(needles);
        self.read(|tables| tables.find(&needles).into_list())
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.read(Tables::stats)
    }

    fn maintain(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Testbed};

    #[tokio::test]
    async fn the_store_in_memory_conforms() {
        conformance::run_all(|| async {
            let disk = MemoryStore::new();
            let kept = disk.clone();
            let reopen = Box::new(move |_| {
                kept.crash();
                let store: Arc<dyn Store> = Arc::new(kept.clone());
                Box::pin(async move { store }) as std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>>>>
            });
            Testbed { store: Arc::new(disk), reopen }
        })
        .await;
    }

    fn meta(name: &str) -> Commit {
        Commit { meta: vec![(name.to_owned(), Bytes::from_static(b"1"))], ..Commit::default() }
    }

    async fn names(store: &MemoryStore) -> Vec<String> {
        store.load().await.unwrap().meta.into_keys().collect()
    }

    #[tokio::test]
    async fn a_crash_loses_what_is_being_flushed_and_nothing_that_returned() {
        let disk = MemoryStore::new().with_flush_delay(Duration::from_millis(2));
        disk.commit(meta("returned")).await.unwrap();
        let process = disk.clone();
        let mut flushing = process.commit(meta("flushing"));
        assert!(futures::poll!(&mut flushing).is_pending());
        disk.crash();
        assert!(matches!(flushing.await, Err(StoreError::Failed { .. })));
        assert_eq!(names(&disk).await, ["returned"]);
        disk.commit(meta("after")).await.unwrap();
        assert_eq!(names(&disk).await, ["after", "returned"]);
    }

    #[tokio::test]
    async fn a_dropped_commit_leaves_nothing() {
        let disk = MemoryStore::new().with_flush_delay(Duration::from_millis(2));
        let mut dropped = disk.commit(meta("dropped"));
        assert!(futures::poll!(&mut dropped).is_pending());
        drop(dropped);
        // This one takes longer than what was left of the other.
        disk.commit(meta("later")).await.unwrap();
        assert_eq!(names(&disk).await, ["later"]);
    }

    #[tokio::test]
    async fn a_planted_failure_hits_one_commit_and_leaves_nothing_of_it() {
        let disk = MemoryStore::new();
        disk.fail_next_commit(failed("disk is full"));
        let error = disk.clone().commit(meta("refused")).await.unwrap_err();
        assert!(error.to_string().contains("disk is full"));
        assert!(names(&disk).await.is_empty());
        disk.commit(meta("accepted")).await.unwrap();
        assert_eq!(names(&disk).await, ["accepted"]);
    }
}
