//! The store seam: what a region keeps on disk.
//!
//! **Rule: one [`Commit`] is one transaction.** Records, operation log, idempotency, digests, positions, conflicts and
//! quarantine change together or not at all, and when `commit` has returned they survive a power cut. The writer task
//! is the only caller of the methods that change anything. Implementations: `memory` (simulation, tests), `sqlite` and
//! `postgres`; one conformance suite (`conformance`) runs against each.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use serde::{Deserialize, Serialize};

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(test)]
mod equivalence;
mod log_page;
pub mod memory;
mod needles;
pub mod postgres;
pub(crate) mod quarantine_pages;
mod rows;
pub mod sqlite;
#[cfg(test)]
mod throughput;

/// What a store method returns: boxed, so that the service has no type parameter for its store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, broken, or refused to make data durable. The process must stop: after a failed flush nobody
    /// knows what is on disk, and a retry may succeed without it.
    #[error("the store {path} failed: {reason}; free space or repair the disk, then start the region again")]
    Failed {
        /// The file.
        path: String,
        /// What the store said.
        reason: String,
    },
    /// The database cannot be used now: it is down, full, too slow or out of connections. What was asked of it may or
    /// may not have happened; the store must be opened and read again before anything else is written. It may come back
    /// by itself.
    #[error("the store {path} cannot be used: {reason}; {remedy}")]
    Unavailable {
        /// The database, without its password.
        path: String,
        /// What the database, or the network, said.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Another instance of the region holds the store now. Nothing was changed.
    #[error("the store {path} is held by another instance of the region since term {term} ended; ask that one")]
    Deposed {
        /// The database.
        path: String,
        /// The term that is over.
        term: u64,
    },
    /// The file is not a store of ours, or not of this topology or region, or is damaged.
    #[error("the store {path} cannot be opened: {reason}; {remedy}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

/// Whose store it is. A store that was created for another topology or region is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Fingerprint of the topology.
    pub topology_fingerprint: String,
    /// The region.
    pub region: RegionId,
}

pub use longhaul_core::digest::Digest as BucketDigest;
pub use longhaul_core::replication::Position;

/// A remembered operation id: what a retry is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// The client's id.
    pub op_id: OpId,
    /// The operation that it became.
    pub dot: Dot,
    /// The record that it wrote.
    pub key: RecordKey,
    /// Its version.
    pub version: Version,
    /// Hash of the request, so that a key reused for another request is refused.
    pub request_hash: u64,
}

/// Why one write lost against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Neither had seen the other.
    Concurrent,
    /// An operation id that is held under a smaller version came again (a retry in another region).
    StaleRetry,
}

/// A write that lost, kept so that a person can see what last-writer-wins discarded. Stores and regions that send it to
/// each other encode it in this order of fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// The record.
    pub key: RecordKey,
    /// The operation that lost.
    pub loser: Dot,
    /// The client's id of the operation that lost.
    pub loser_op_id: OpId,
    /// The version that lost.
    pub loser_version: Version,
    /// The value that lost; `None` if it was a delete.
    pub loser_value: Option<Bytes>,
    /// The operation that won.
    pub winner: Dot,
    /// The client's id of the operation that won.
    pub winner_op_id: OpId,
    /// Why.
    pub kind: ConflictKind,
    /// When this region found it, nanoseconds since the Unix epoch.
    pub found_ns: u64,
}

/// Why an operation was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineReason {
    /// It lies beyond the sealed cut of its timeline.
    PastCut,
    /// Its region was evicted before it was shipped.
    Evicted,
}

/// What a person decided about a quarantined operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineState {
    /// Nothing yet.
    Open,
    /// It was written again as a new operation.
    Merged,
    /// It was given up.
    Discarded,
}

/// An operation that was accepted but does not belong to history. Stores encode it in this order of fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// The operation as it was.
    pub operation: Operation,
    /// Why it was put aside.
    pub reason: QuarantineReason,
    /// The regime under which it was put aside.
    pub epoch: Epoch,
    /// When, nanoseconds since the Unix epoch.
    pub found_ns: u64,
    /// What was decided.
    pub state: QuarantineState,
    /// Whether the record that it had touched holds the surviving history again.
    pub repaired: bool,
}

/// The digest of a bucket of a home.
pub type DigestMap = BTreeMap<(RegionId, u16), BucketDigest>;

/// Everything that changes together. Empty lists change nothing.
///
/// The lists take effect in this order, whatever the store: `truncated`, `forgotten`, `removed_records`, then the
/// rest; so one commit can cut a tail and append another, or forget a timeline and set its new position. Of two
/// entries of one list under one key the last wins, but for `idempotency` and `conflicts`, where the first does.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Log entries to append. A dot that is already there is an error of the caller.
    pub operations: Vec<Operation>,
    /// Rows to write as they are (the caller has merged).
    pub records: Vec<Record>,
    /// Rows to remove without a trace (snapshot merge, collected tombstones).
    pub removed_records: Vec<RecordKey>,
    /// Operation ids to remember; an id that is already there keeps its first row.
    pub idempotency: Vec<IdempotencyRow>,
    /// Conflicts to add; one that is already there (same loser and winner) is not added twice.
    pub conflicts: Vec<ConflictRow>,
    /// Operations to put aside, or rows to update (same dot).
    pub quarantine: Vec<QuarantineRow>,
    /// Timelines whose log is cut: entries with a sequence number above are removed, with the idempotency rows that
    /// point at them.
    pub truncated: Vec<(Timeline, u64)>,
    /// New positions.
    pub positions: Vec<(Timeline, Position)>,
    /// Positions to forget altogether, with their log (isolation purge, snapshot replacement of a jumped log).
    pub forgotten: Vec<Timeline>,
    /// New values of changed buckets.
    pub digests: Vec<((RegionId, u16), BucketDigest)>,
    /// Small named values (regime, promises, clock bound, ...).
    pub meta: Vec<(String, Bytes)>,
}

/// What a store holds when it is opened.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Positions by timeline.
    pub positions: BTreeMap<Timeline, Position>,
    /// The last sequence number that is **no longer** in the log, by timeline (0 or absent: the whole log is there).
    /// It follows from what is there: the number before the first entry, or the position where there is no entry; so
    /// it rises by itself when a log is trimmed, purged or jumped over by a snapshot.
    pub log_floors: BTreeMap<Timeline, u64>,
    /// Small named values.
    pub meta: BTreeMap<String, Bytes>,
    /// Digests.
    pub digests: DigestMap,
}

/// Counts and sizes for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoreStats {
    /// Live records.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Log entries.
    pub operations: u64,
    /// Conflicts kept.
    pub conflicts: u64,
    /// Operations in quarantine.
    pub quarantined: u64,
    /// Quarantined operations that nobody has decided about.
    pub quarantine_open: u64,
    /// Bytes on disk (0 in memory).
    pub bytes: u64,
}

/// One row of the operation export: what an outside judge needs to know which operations survive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationId {
    /// The client's id.
    pub op_id: OpId,
    /// The operation, `region.incarnation:seq`.
    pub dot: String,
    /// The home of its record.
    pub home: RegionId,
    /// Its version.
    #[schema(value_type = String)]
    pub version: Version,
}

impl From<IdempotencyRow> for OperationId {
    fn from(row: IdempotencyRow) -> Self {
        Self { op_id: row.op_id, dot: row.dot.to_string(), home: row.key.home, version: row.version }
    }
}

/// What a region keeps on disk. Reads may run beside the writer and see only committed transactions.
pub trait Store: Send + Sync + 'static {
    /// What it is, by the semantic conventions (`db.system.name`).
    fn system(&self) -> &'static str {
        "other_sql"
    }

    /// Everything that a starting region must know.
    fn load(&self) -> StoreFuture<'_, Loaded>;

    /// One transaction, durable when it returns.
    fn commit(&self, commit: Commit) -> StoreFuture<'_, ()>;

    /// The rows of these keys, in order; `None` where there is none. Tombstones are rows.
    fn records<'a>(&'a self, keys: &'a [RecordKey]) -> StoreFuture<'a, Vec<Option<Record>>>;

    /// The remembered rows among these operation ids, each once, in id order.
    fn idempotency<'a>(&'a self, op_ids: &'a [OpId]) -> StoreFuture<'a, Vec<IdempotencyRow>>;

    /// Log entries of a timeline after `after`, in order, at most `max_operations` and about `max_bytes` (at least one
    /// if there is one).
    fn log(
        &self,
        timeline: Timeline,
        after: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> StoreFuture<'_, Vec<Operation>>;

    /// The log's entry at one place, if it is kept.
    fn operation(&self, dot: Dot) -> StoreFuture<'_, Option<Operation>> {
        Box::pin(async move {
            let Some(before) = dot.seq.checked_sub(1) else { return Ok(None) };
            let entries = self.log(dot.timeline, before, 1, 1).await?;
            Ok(entries.into_iter().next().filter(|operation| operation.dot == dot))
        })
    }

    /// Rows after a key in key order, of one home or of all, tombstones included, at most `limit`.
    fn scan<'a>(
        &'a self,
        home: Option<RegionId>,
        after: Option<&'a RecordKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Record>>;

    /// Tombstones with a version at or below the bound, oldest first, at most `limit`.
    fn tombstones(&self, at_or_below: Version, limit: usize) -> StoreFuture<'_, Vec<Record>>;

    /// Removes log entries up to and including each bound.
    fn trim_log<'a>(&'a self, up_to: &'a [(Timeline, u64)]) -> StoreFuture<'a, ()>;

    /// Conflicts, newest first (by `found_ns`, then loser and winner), at most `limit`, skipping `offset`.
    fn conflicts(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<ConflictRow>>;

    /// Quarantined operations by dot, at most `limit`, skipping `offset`.
    fn quarantine(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<QuarantineRow>>;

    /// Remembered operations after an id in id order, at most `limit`.
    fn operation_ids(&self, after: Option<OpId>, limit: usize) -> StoreFuture<'_, Vec<OperationId>>;

    /// Erases everything that does not belong to `home` from records, log, idempotency, conflicts, quarantine and
    /// digests, and every timeline's position except those in `keep_positions`, overwriting the freed bytes on disk
    /// (secure delete, truncated write-ahead log, vacuum). A local erase: no tombstones, nothing to replicate. The log
    /// is dropped whole, since its entries mix homes; floors rise to the positions.
    fn purge<'a>(&'a self, home: RegionId, keep_positions: &'a [Timeline]) -> StoreFuture<'a, ()>;

    /// Occurrences of byte strings anywhere in what the store keeps, raw files included; for residency sweeps. Each
    /// answer is the index of a needle and one line that names a place, how often it occurs there and where first.
    fn find_bytes<'a>(&'a self, needles: &'a [Bytes]) -> StoreFuture<'a, Vec<(usize, String)>>;

    /// Counts and sizes.
    fn stats(&self) -> StoreFuture<'_, StoreStats>;

    /// Housekeeping that must not slow the writer (checkpoints); called about once a second.
    fn maintain(&self) -> StoreFuture<'_, ()>;

    /// Flushes and closes. Nothing may be called afterwards.
    fn close(&self) -> StoreFuture<'_, ()>;
}
