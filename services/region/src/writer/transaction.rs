//! What one commit changes, and what is published and answered once it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_core::digest::bucket;
use longhaul_core::ids::{Dot, OpId, RecordKey, Timeline};
use longhaul_core::operation::{Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::replication::Positions;
use longhaul_core::version::Version;
use tokio::sync::oneshot;

use super::acks::Waiting;
use super::digests::Digests;
use super::{ApplyResult, QueuedWrite, WriteAnswer, WriteError};
use crate::spans::{self, Traced};
use crate::state::Region;
use crate::store::{Commit, IdempotencyRow, StoreError};

/// A record as it was before the transaction and as it is inside it.
#[derive(Debug, Default)]
struct Viewed {
    before: Option<Record>,
    now: Option<Record>,
    changed: bool,
}

/// An answer that waits for the commit.
pub(super) enum Reply {
    /// A write that is visible after the commit; whether it is acknowledged is decided when it is answered.
    Written(Waiting),
    /// A write that was not accepted. It waits too: what refused it may be part of this commit.
    Refused(oneshot::Sender<Result<WriteAnswer, WriteError>>, WriteError),
    /// A batch.
    Applied(oneshot::Sender<ApplyResult>, ApplyResult),
    /// A marker.
    Marked(oneshot::Sender<Result<Dot, WriteError>>, Result<Dot, WriteError>),
    /// Anything without a result.
    Done(oneshot::Sender<()>),
}

/// One commit under construction.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) commit: Commit,
    view: BTreeMap<RecordKey, Viewed>,
    remembered: BTreeMap<OpId, IdempotencyRow>,
    logged: Vec<Arc<Operation>>,
    moved: BTreeSet<Timeline>,
    visible: Vec<OpId>,
    pub(super) replies: Vec<Reply>,
    /// Writes in it whose traces are kept.
    pub(super) traced: Traced,
}

/// What is left of a transaction when it is durable.
pub(super) struct Committed {
    written: Vec<Record>,
    removed: Vec<RecordKey>,
    logged: Vec<Arc<Operation>>,
    visible: Vec<OpId>,
    pub(super) replies: Vec<Reply>,
}

impl Transaction {
    /// Whether nothing would change.
    pub(super) fn is_empty(&self) -> bool {
        let commit = &self.commit;
        self.logged.is_empty()
            && self.moved.is_empty()
            && commit.conflicts.is_empty()
            && commit.quarantine.is_empty()
            && commit.meta.is_empty()
            && !self.view.values().any(|viewed| viewed.changed)
    }

    /// Makes these records known to the transaction, with one read of the store for all that nobody wrote lately.
    pub(super) async fn load(
        &mut self,
        region: &Region,
        keys: impl Iterator<Item = RecordKey>,
    ) -> Result<(), StoreError> {
        let missing = self.know_cached(region, keys);
        if !missing.is_empty() {
            let rows = region.store.records(&missing).await?;
            self.know_all(missing, rows);
        }
        Ok(())
    }

    /// What is cached becomes known; the keys of the others, in order.
    fn know_cached(&mut self, region: &Region, keys: impl Iterator<Item = RecordKey>) -> Vec<RecordKey> {
        let mut missing = BTreeSet::new();
        for key in keys.filter(|key| !self.view.contains_key(key)).collect::<BTreeSet<_>>() {
            match region.cache.get(&key) {
                Some(record) => self.know(key, Some(record)),
                None => {
                    missing.insert(key);
                }
            }
        }
        missing.into_iter().collect()
    }

    fn know_all(&mut self, keys: Vec<RecordKey>, rows: Vec<Option<Record>>) {
        for (key, row) in keys.into_iter().zip(rows) {
            self.know(key, row);
        }
    }

    fn know(&mut self, key: RecordKey, record: Option<Record>) {
        self.view.insert(key, Viewed { before: record.clone(), now: record, changed: false });
    }

    /// The record inside the transaction. It must have been loaded.
    pub(super) fn record(&self, key: &RecordKey) -> Option<&Record> {
        debug_assert!(self.view.contains_key(key), "a record is used that was not loaded");
        self.view.get(key).and_then(|viewed| viewed.now.as_ref())
    }

    /// Replaces the record (`None` removes it without a trace).
    pub(super) fn set_record(&mut self, key: RecordKey, record: Option<Record>) {
        let viewed = self.view.entry(key).or_default();
        viewed.now = record;
        viewed.changed = true;
    }

    /// Makes what these writes touch known to the transaction: their records, and what is remembered under their
    /// operation ids. The two reads of the store go side by side.
    pub(super) async fn load_writes(&mut self, region: &Region, writes: &[QueuedWrite]) -> Result<(), StoreError> {
        let missing = self.know_cached(region, writes.iter().map(|write| write.request.key.clone()));
        let op_ids: BTreeSet<OpId> = writes.iter().map(|write| write.request.op_id).collect();
        let op_ids: Vec<OpId> = op_ids.into_iter().collect();
        let records = async { if missing.is_empty() { Ok(Vec::new()) } else { region.store.records(&missing).await } };
        let (rows, remembered) = tokio::try_join!(records, region.store.idempotency(&op_ids))?;
        self.know_all(missing, rows);
        for row in remembered {
            self.remembered.entry(row.op_id).or_insert(row);
        }
        Ok(())
    }

    /// What is remembered under an operation id.
    pub(super) fn remembered(&self, op_id: OpId) -> Option<&IdempotencyRow> {
        self.remembered.get(&op_id)
    }

    /// Appends an operation to the log, and remembers its id.
    pub(super) fn log(&mut self, operation: Arc<Operation>) {
        if let Some(key) = operation.key() {
            let row = IdempotencyRow {
                op_id: operation.op_id,
                dot: operation.dot,
                key,
                version: operation.version,
                request_hash: request_hash(operation.kind, operation.value.as_deref(), operation.as_ref()),
            };
            self.remembered.entry(row.op_id).or_insert_with(|| row.clone());
            self.commit.idempotency.push(row);
        }
        self.commit.operations.push(Operation::clone(&operation));
        self.moved.insert(operation.dot.timeline);
        self.logged.push(operation);
    }

    /// Notes that a timeline's position changed.
    pub(super) fn moved(&mut self, timeline: Timeline) {
        self.moved.insert(timeline);
    }

    /// Notes that an operation became visible.
    pub(super) fn shown(&mut self, op_id: OpId) {
        self.visible.push(op_id);
    }

    /// The commit, and what is to be published after it. Digests follow the changed records.
    pub(super) fn finish(mut self, positions: &Positions, digests: &mut Digests) -> (Commit, Committed) {
        let mut touched = BTreeSet::new();
        let mut written = Vec::new();
        for (key, viewed) in self.view.into_iter().filter(|(_, viewed)| viewed.changed) {
            let place = (key.home, bucket(&key.id));
            digests.replace(place, viewed.before.as_ref(), viewed.now.as_ref());
            touched.insert(place);
            match viewed.now {
                Some(record) => written.push(record),
                None if viewed.before.is_some() => self.commit.removed_records.push(key),
                None => {}
            }
        }
        self.commit.records.clone_from(&written);
        self.commit.digests.extend(touched.iter().map(|place| (*place, digests.bucket(*place))));
        let moved = self.moved.iter().filter_map(|timeline| Some((*timeline, *positions.get(timeline)?)));
        self.commit.positions.extend(moved);
        let committed = Committed {
            written,
            removed: self.commit.removed_records.clone(),
            logged: self.logged,
            visible: self.visible,
            replies: self.replies,
        };
        (self.commit, committed)
    }
}

impl Committed {
    /// Follows the own writes whose traces are kept on their way to the peers.
    pub(super) fn ship(&self, region: &Region, own: Timeline, now_ns: u64) {
        let recorded = |operation: &Arc<Operation>| {
            let context = spans::recorded(operation.trace).filter(|_| operation.dot.timeline == own)?;
            Some((operation.dot, context))
        };
        let mut writes = self.logged.iter().filter_map(recorded).peekable();
        if writes.peek().is_some() {
            region.shipping.committed(region, writes, now_ns);
        }
    }

    /// Shows what is durable: first the caches, so that whoever is woken finds it there, then the positions.
    pub(super) fn publish(&mut self, region: &Region, positions: &Positions, digests: &Digests) {
        region.cache.update(self.written.drain(..), &self.removed);
        region.tail.append(self.logged.drain(..));
        region.visibility.record(self.visible.drain(..), region.clock.boot_ns());
        region.publish_digests(positions, digests.homes());
        region.publish_positions(positions.clone());
    }
}

/// The hash of a request, so that an operation id that comes again with another request is refused. It is a function
/// of the operation, so that every region that applies it computes the same.
pub(super) fn request_hash(kind: OperationKind, value: Option<&[u8]>, of: &impl Keyed) -> u64 {
    // A merge asks for what the quarantined put or delete had asked for.
    let deletes = kind == OperationKind::Delete || (kind == OperationKind::Merge && value.is_none());
    let (home, id) = of.home_and_id();
    let mut bytes = Vec::with_capacity(16 + id.len() + value.map_or(0, <[u8]>::len));
    bytes.push(u8::from(deletes));
    bytes.extend_from_slice(&home.to_be_bytes());
    bytes.extend_from_slice(&(id.len() as u32).to_be_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(value.unwrap_or_default());
    longhaul_core::digest::request_hash(&bytes)
}

/// Something with a record's key.
pub(super) trait Keyed {
    /// The home's number and the id (empty for markers).
    fn home_and_id(&self) -> (u16, &str);
}

impl Keyed for Operation {
    fn home_and_id(&self) -> (u16, &str) {
        (self.home.0, self.id.as_ref().map_or("", |id| id.as_str()))
    }
}

impl Keyed for RecordKey {
    fn home_and_id(&self) -> (u16, &str) {
        (self.home.0, self.id.as_str())
    }
}

/// The remembered row of a record's winner, as a snapshot brings it.
pub(super) fn remembered_winner(record: &Record) -> IdempotencyRow {
    let kind = if record.is_tombstone() { OperationKind::Delete } else { OperationKind::Put };
    IdempotencyRow {
        op_id: record.op_id,
        dot: record.dot,
        key: record.key.clone(),
        version: record.version,
        request_hash: request_hash(kind, record.value.as_deref(), &record.key),
    }
}

/// The greater of two versions.
pub(super) fn greatest(versions: impl Iterator<Item = Version>) -> Version {
    versions.max().unwrap_or(Version::ZERO)
}
