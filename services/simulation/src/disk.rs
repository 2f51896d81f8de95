//! A region's disk. It lies outside of the host, so that it survives the process, and behaves like one: a commit takes
//! time, a crash in the middle leaves it whole or not at all, it can be slow, full or gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::store::{
    Commit, ConflictRow, IdempotencyRow, Loaded, OperationId, QuarantineRow, Store, StoreError, StoreFuture, StoreStats,
};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::seed;

/// How often a commit on a stopped disk looks whether it goes on.
const LOOK: Duration = Duration::from_millis(10);

/// What awaits the next commit: the process dies in it.
struct Trap {
    /// Whether what is committed is on the disk by then.
    durable: bool,
    sprung: Box<dyn FnOnce() + Send>,
}

/// Who is told of every commit at the moment at which it becomes durable.
pub(crate) trait Witness: Send + Sync {
    /// `region` has made this durable.
    fn committed(&self, region: RegionId, commit: &Commit);
    /// `region` has trimmed its log.
    fn trimmed(&self, _region: RegionId, _up_to: &[(Timeline, u64)]) {}
    /// `region` has erased what does not belong to `home`.
    fn purged(&self, _region: RegionId, _home: RegionId, _keep_positions: &[Timeline]) {}
    /// The disk of `region` was replaced by an empty one.
    fn replaced(&self, _region: RegionId) {}
}

/// One region's disk.
pub(crate) struct Disk {
    region: RegionId,
    store: Mutex<MemoryStore>,
    flush_ms: AtomicU64,
    usual_flush_ms: u64,
    full: AtomicBool,
    /// Whether a commit has ever failed.
    refused: AtomicBool,
    stopped: AtomicBool,
    trap: Mutex<Option<Trap>>,
    /// The process that uses it died in a commit: whatever it still asks for never happens.
    dead: AtomicBool,
    rng: Mutex<SmallRng>,
    witness: Arc<dyn Witness>,
}

impl Disk {
    /// An empty disk whose commits take `flush`, whole milliseconds.
    pub(crate) fn new(region: RegionId, flush: Duration, seed: u64, witness: Arc<dyn Witness>) -> Self {
        let usual_flush_ms = flush.as_millis() as u64;
        Self {
            region,
            store: Mutex::new(MemoryStore::new()),
            flush_ms: AtomicU64::new(usual_flush_ms),
            usual_flush_ms,
            full: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            trap: Mutex::default(),
            dead: AtomicBool::new(false),
            rng: Mutex::new(seed::stream(seed, 0)),
            witness,
        }
    }

    fn store(&self) -> MemoryStore {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commits take this long from now on; the usual time if absent.
    pub(crate) fn set_flush(&self, flush: Option<Duration>) {
        self.flush_ms.store(flush.map_or(self.usual_flush_ms, |flush| flush.as_millis() as u64), Ordering::Relaxed);
    }

    /// Nothing becomes durable while it is stopped.
    pub(crate) fn stop(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    /// Every commit fails from now on and changes nothing: the disk is full.
    pub(crate) fn fill(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        self.full.store(false, Ordering::Relaxed);
    }

    /// The process dies in its next commit, just before that becomes durable or just after: `sprung` is called then, and
    /// nothing that the process asks of the disk happens any more.
    pub(crate) fn die_in_next_commit(&self, durable: bool, sprung: impl FnOnce() + Send + 'static) {
        *self.trap() = Some(Trap { durable, sprung: Box::new(sprung) });
    }

    /// The process is gone: the next one finds an ordinary disk.
    pub(crate) fn disarm(&self) {
        *self.trap() = None;
        self.dead.store(false, Ordering::Relaxed);
    }

    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spring(&self, trap: Trap) {
        self.dead.store(true, Ordering::Relaxed);
        (trap.sprung)();
    }

    /// Whether a commit has failed, for which a process may end.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The disk is replaced by an empty one. Only while no process runs on it.
    pub(crate) fn lose(&self) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = MemoryStore::new();
        self.witness.replaced(self.region);
    }
}

/// The disk as the process that uses it sees it.
pub(crate) struct SimStore {
    disk: Arc<Disk>,
    store: MemoryStore,
}

impl SimStore {
    /// Opens the disk.
    pub(crate) fn open(disk: Arc<Disk>) -> Self {
        Self { store: disk.store(), disk }
    }

    async fn flush(&self) {
        match self.disk.flush_ms.load(Ordering::Relaxed) {
            0 => {}
            flush_ms => tokio::time::sleep(Duration::from_millis(flush_ms)).await,
        }
        while self.disk.stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for ever if the process is dead.
    async fn if_alive(&self) {
        if self.disk.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    async fn write(&self, commit: Commit) -> Result<(), StoreError> {
        if self.disk.full.load(Ordering::Relaxed) {
            self.disk.refused.store(true, Ordering::Relaxed);
            let path = format!("of {}", self.disk.region);
            return Err(StoreError::Failed { path, reason: "no space left on the simulated disk".to_owned() });
        }
        self.disk.witness.committed(self.disk.region, &commit);
        self.store.commit(commit).await
    }
}

impl Store for SimStore {
    fn load(&self) -> StoreFuture<'_, Loaded> {
        self.store.load()
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, ()> {
        // Where in the flush the commit becomes durable decides what a crash in the middle leaves.
        let first = self.disk.rng.lock().unwrap_or_else(PoisonError::into_inner).random::<bool>();
        Box::pin(async move {
            self.if_alive().await;
            let trap = self.disk.trap().take();
            if let Some(trap) = trap {
                if trap.durable {
                    self.write(commit).await?;
                }
                self.disk.spring(trap);
                return std::future::pending().await;
            }
            if first {
                self.write(commit).await?;
                self.flush().await;
                return Ok(());
            }
            self.flush().await;
            self.write(commit).await
        })
    }

    fn records<'a>(&'a self, keys: &'a [RecordKey]) -> StoreFuture<'a, Vec<Option<Record>>> {
        self.store.records(keys)
    }

    fn idempotency<'a>(&'a self, op_ids: &'a [OpId]) -> StoreFuture<'a, Vec<IdempotencyRow>> {
        self.store.idempotency(op_ids)
    }

    fn log(
        &self,
        timeline: Timeline,
        after: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> StoreFuture<'_, Vec<Operation>> {
        self.store.log(timeline, after, max_operations, max_bytes)
    }

    fn scan<'a>(
        &'a self,
        home: Option<RegionId>,
        after: Option<&'a RecordKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Record>> {
        self.store.scan(home, after, limit)
    }

    fn tombstones(&self, at_or_below: Version, limit: usize) -> StoreFuture<'_, Vec<Record>> {
        self.store.tombstones(at_or_below, limit)
    }

    fn trim_log<'a>(&'a self, up_to: &'a [(Timeline, u64)]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.if_alive().await;
            self.disk.witness.trimmed(self.disk.region, up_to);
            self.store.trim_log(up_to).await
        })
    }

    fn conflicts(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<ConflictRow>> {
        self.store.conflicts(offset, limit)
    }

    fn quarantine(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<QuarantineRow>> {
        self.store.quarantine(offset, limit)
    }

    fn operation_ids(&self, after: Option<OpId>, limit: usize) -> StoreFuture<'_, Vec<OperationId>> {
        self.store.operation_ids(after, limit)
    }

    fn purge<'a>(&'a self, home: RegionId, keep_positions: &'a [Timeline]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.if_alive().await;
            self.flush().await;
            self.disk.witness.purged(self.disk.region, home, keep_positions);
            self.store.purge(home, keep_positions).await
        })
    }

    fn find_bytes<'a>(&'a self, needles: &'a [Bytes]) -> StoreFuture<'a, Vec<(usize, String)>> {
        self.store.find_bytes(needles)
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.store.stats()
    }

    fn maintain(&self) -> StoreFuture<'_, ()> {
        self.store.maintain()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }
}
