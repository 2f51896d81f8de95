//! The writer: one task that owns the log. Sequence numbers, versions, chains, records, digests and positions change
//! here and nowhere else, and what is told to anybody is durable first.
//!
//! Two bounded queues lead to it: writes of users, and commands of the region's own tasks (batches of peers among
//! them), so that neither starves the other. Each turn it takes what is there, stages it in order into one
//! transaction, commits, publishes, and answers. A request whose client has gone away is staged like any other: a
//! write that was accepted is not undone by a broken connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordKey, RegionId};
use longhaul_core::limits::WRITE_QUEUE_MAX;
use longhaul_core::operation::{OperationKind, TraceContext};
use longhaul_core::quarantine::Decision;
use longhaul_core::record::Record;
use longhaul_core::regime::{Durability, Regime};
use longhaul_core::replication::frame::{Batch, Refused};
use longhaul_core::replication::snapshot::SnapshotHeader;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::store::ConflictRow;

mod acks;
mod adopt;
mod apply;
mod collect;
mod decide;
mod digests;
mod quarantine;
pub(crate) mod recover;
mod snapshot;
mod task;
mod transaction;
mod write;

#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod tests;

pub(crate) use task::Writer;

/// Commands that wait for the writer. Whoever sends one waits for room; nothing is refused.
const COMMAND_QUEUE_MAX: usize = 64;

/// What must hold of the record for the write to be accepted. Checked against what this region has logged, visible or
/// not; in active-active that is a promise of this region alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `If-Match: "VERSION"`: the live record has this version.
    Version(Version),
    /// `If-Match: *`: there is a live record.
    Exists,
    /// `If-None-Match: *`: there is no live record.
    Absent,
    /// Nobody wrote the record since the sealed history (bringing back a quarantined operation).
    Sealed,
    /// The record or tombstone has this version (bringing back the operation after that one).
    Head(Version),
}

/// A write as the service takes it.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The record.
    pub key: RecordKey,
    /// `Put`, `Delete` or `Merge`.
    pub kind: OperationKind,
    /// JSON text; none for a delete.
    pub value: Option<Bytes>,
    /// The client's id.
    pub op_id: OpId,
    /// What must hold.
    pub condition: Option<Condition>,
    /// The greatest version that the client has seen: this write gets a greater one.
    pub after: Option<Version>,
    /// The request's trace.
    pub trace: Option<TraceContext>,
    /// The quarantined operation that this brings back (`Merge` only).
    pub merged_from: Option<Dot>,
}

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteAnswer {
    /// The operation that it became.
    pub dot: Dot,
    /// Its version.
    pub version: Version,
    /// The epoch under which it is acknowledged.
    pub epoch: Epoch,
    /// The durability that was promised when it was accepted.
    pub promised: Durability,
    /// The durability that it has reached.
    pub achieved: Durability,
    /// Whether this operation had been accepted before.
    pub repeated: bool,
}

/// A write that was not acknowledged. The code says whether it may have taken effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct WriteError {
    /// The stable code.
    pub code: ErrorCode,
    /// What happened and what to do; one line, without record ids.
    pub detail: String,
    /// The region to ask instead.
    pub ask: Option<RegionId>,
    /// The live record's version (`precondition_failed`).
    pub current: Option<Version>,
}

impl WriteError {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), ask: None, current: None }
    }
}

/// The writer has stopped: the region is closing or its store has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the region is closing or its store has failed; start it again")]
pub struct WriterGone;

/// Which writes a closed gate holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateScope {
    /// None: the gate is open (what the regime forbids stays forbidden).
    Open,
    /// All.
    All,
    /// Those of records of other homes.
    ForeignHomes,
}

/// What adopting a regime did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Whether it was newer than the one before.
    pub changed: bool,
    /// Operations beyond cuts that were put into quarantine.
    pub quarantined: u64,
}

/// What became of a part of a snapshot; the error is a line that says why it was not taken.
pub(crate) type SnapshotResult = Result<(), String>;

/// What became of a batch.
pub(crate) type ApplyResult = Result<(), Refused>;

/// A chunk of a snapshot: every row of the source after `after` up to and including `up_to`, in key order.
#[derive(Debug)]
pub(crate) struct SnapshotChunk {
    /// The source's header.
    pub header: Arc<SnapshotHeader>,
    /// Only records of this home are in the snapshot, if set.
    pub home: Option<RegionId>,
    /// Where the chunk begins (exclusive).
    pub after: Option<RecordKey>,
    /// Where it ends (inclusive); `None`: at the end of the table.
    pub up_to: Option<RecordKey>,
    /// The rows.
    pub rows: Vec<Record>,
    /// Homes of which the source lacks records: what is absent of them was not deleted.
    pub lacking: BTreeSet<RegionId>,
}

/// What the region's own tasks ask of the writer.
pub(crate) enum Command {
    Apply { batch: Box<Batch>, reply: oneshot::Sender<ApplyResult> },
    Adopt { regime: Box<Regime>, reply: oneshot::Sender<Adopted> },
    Marker { kind: OperationKind, trace: Option<TraceContext>, reply: oneshot::Sender<Result<Dot, WriteError>> },
    PeerDurable { peer: RegionId, epoch: Epoch, durable: VersionVector },
    Snapshot { chunk: Box<SnapshotChunk>, reply: oneshot::Sender<SnapshotResult> },
    SnapshotFinish { header: Arc<SnapshotHeader>, home: Option<RegionId>, reply: oneshot::Sender<SnapshotResult> },
    Collect { reply: oneshot::Sender<()> },
    Purge { reply: oneshot::Sender<()> },
    Repair { keys: Vec<RecordKey>, rows: Vec<Record>, reply: oneshot::Sender<usize> },
    Decide { dots: Vec<Dot>, decision: Decision, reply: oneshot::Sender<u64> },
    Gate { scope: GateScope, reply: oneshot::Sender<()> },
    Persist { meta: Vec<(String, Bytes)>, reply: oneshot::Sender<()> },
    KeepConflicts { rows: Vec<ConflictRow>, reply: oneshot::Sender<()> },
    AcceptClockJump { reply: oneshot::Sender<()> },
    CheckDigests { home: RegionId, reply: oneshot::Sender<bool> },
}

/// A write in the queue.
pub(crate) struct QueuedWrite {
    pub request: WriteRequest,
    pub reply: oneshot::Sender<Result<WriteAnswer, WriteError>>,
    pub arrived: Instant,
}

/// The way to the writer.
#[derive(Clone)]
pub struct WriterHandle {
    writes: mpsc::Sender<QueuedWrite>,
    commands: mpsc::Sender<Command>,
}

/// The writer's ends of the queues.
pub(crate) struct WriterQueues {
    pub writes: mpsc::Receiver<QueuedWrite>,
    pub commands: mpsc::Receiver<Command>,
}

impl WriterHandle {
    /// The queues.
    pub(crate) fn channel() -> (Self, WriterQueues) {
        let (write_sender, writes) = mpsc::channel(WRITE_QUEUE_MAX);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE_MAX);
        (Self { writes: write_sender, commands: command_sender }, WriterQueues { writes, commands })
    }

    /// Writes that wait.
    pub fn queued(&self) -> usize {
        self.writes.max_capacity() - self.writes.capacity()
    }

    /// Writes and waits for the acknowledgement. Dropping the future undoes nothing. The only errors before anything
    /// was queued are `overloaded` and `shutting_down`.
    pub async fn write(&self, request: WriteRequest) -> Result<WriteAnswer, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.writes.try_send(QueuedWrite { request, reply, arrived: Instant::now() }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::new(
                ErrorCode::Overloaded,
                format!("{WRITE_QUEUE_MAX} writes are waiting already; try again later"),
            ),
            mpsc::error::TrySendError::Closed(_) => {
                WriteError::new(ErrorCode::ShuttingDown, "the region is closing; ask another one")
            }
        })?;
        answer.await.unwrap_or_else(|_| {
            let detail = "the store failed or the region closed before it could answer; read the record to learn more";
            Err(WriteError::new(ErrorCode::StoreFailed, detail))
        })
    }

    /// Adopts a **chosen** regime: in one transaction everything beyond its cuts goes into quarantine and the regime
    /// becomes durable; then it is visible to everybody. An older or equal one changes nothing.
    pub async fn adopt(&self, regime: Regime) -> Result<Adopted, WriterGone> {
        self.ask(|reply| Command::Adopt { regime: Box::new(regime), reply }).await
    }

    /// Appends a barrier to this region's timeline and returns its place once it is durable. Everything accepted
    /// before lies before it.
    pub async fn barrier(&self, trace: Option<TraceContext>) -> Result<Dot, WriteError> {
        self.marker(OperationKind::Barrier, trace).await
    }

    /// Appends a no-op.
    pub async fn noop(&self) -> Result<Dot, WriteError> {
        self.marker(OperationKind::Noop, None).await
    }

    async fn marker(&self, kind: OperationKind, trace: Option<TraceContext>) -> Result<Dot, WriteError> {
        let gone = |gone: WriterGone| WriteError::new(ErrorCode::ShuttingDown, gone.to_string());
        self.ask(|reply| Command::Marker { kind, trace, reply }).await.map_err(gone)?
    }

    /// Makes small named values durable. Names that begin with `voter` belong to the regime module.
    pub async fn persist(&self, meta: Vec<(String, Bytes)>) -> Result<(), WriterGone> {
        self.ask(|reply| Command::Persist { meta, reply }).await
    }

    /// Makes conflicts that another region found durable here; those that are known here stay as they are.
    pub async fn keep_conflicts(&self, rows: Vec<ConflictRow>) -> Result<(), WriterGone> {
        self.ask(|reply| Command::KeepConflicts { rows, reply }).await
    }

    /// Holds back new writes of a scope (they are refused as `switching`) and returns once every write accepted before
    /// has been answered (bounded by the acknowledgement deadline). [`GateScope::Open`] returns at once.
    pub async fn gate(&self, scope: GateScope) -> Result<(), WriterGone> {
        self.ask(|reply| Command::Gate { scope, reply }).await
    }

    /// Erases everything that does not belong to this home: a local erase, no deletes. Positions of other regions'
    /// timelines go too, so that coming out of isolation starts from snapshots.
    pub async fn purge(&self) -> Result<(), WriterGone> {
        self.ask(|reply| Command::Purge { reply }).await
    }

    /// Believes the wall clock after a forward jump that a person or the other regions confirmed.
    pub async fn accept_clock_jump(&self) -> Result<(), WriterGone> {
        self.ask(|reply| Command::AcceptClockJump { reply }).await
    }

    pub(crate) async fn apply(&self, batch: Batch) -> Result<ApplyResult, WriterGone> {
        self.ask(|reply| Command::Apply { batch: Box::new(batch), reply }).await
    }

    pub(crate) async fn peer_durable(
        &self,
        peer: RegionId,
        epoch: Epoch,
        durable: VersionVector,
    ) -> Result<(), WriterGone> {
        self.commands.send(Command::PeerDurable { peer, epoch, durable }).await.map_err(|_| WriterGone)
    }

    pub(crate) async fn snapshot_chunk(&self, chunk: SnapshotChunk) -> Result<SnapshotResult, WriterGone> {
        self.ask(|reply| Command::Snapshot { chunk: Box::new(chunk), reply }).await
    }

    pub(crate) async fn snapshot_finish(
        &self,
        header: Arc<SnapshotHeader>,
        home: Option<RegionId>,
    ) -> Result<SnapshotResult, WriterGone> {
        self.ask(|reply| Command::SnapshotFinish { header, home, reply }).await
    }

    pub(crate) async fn collect(&self) -> Result<(), WriterGone> {
        self.ask(|reply| Command::Collect { reply }).await
    }

    /// Installs what the surviving history has of these keys; returns how many keys are left to repair.
    pub(crate) async fn repair(&self, keys: Vec<RecordKey>, rows: Vec<Record>) -> Result<usize, WriterGone> {
        self.ask(|reply| Command::Repair { keys, rows, reply }).await
    }

    /// Marks quarantined operations as decided; returns how many.
    pub(crate) async fn decide(&self, dots: Vec<Dot>, decision: Decision) -> Result<u64, WriterGone> {
        self.ask(|reply| Command::Decide { dots, decision, reply }).await
    }

    /// Counts a home's digests again from its rows; false if they differ from what the writer kept.
    pub(crate) async fn check_digests(&self, home: RegionId) -> Result<bool, WriterGone> {
        self.ask(|reply| Command::CheckDigests { home, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, WriterGone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| WriterGone)?;
        answer.await.map_err(|_| WriterGone)
    }
}

/// Names of durable values.
pub(crate) mod meta {
    /// The adopted regime, JSON.
    pub(crate) const REGIME: &str = "regime";
    /// The bound above which the clock does not stamp, 8 bytes big-endian.
    pub(crate) const CLOCK_UPPER: &str = "clock_upper";
    /// Homes that were purged and not merged again, postcard.
    pub(crate) const UNMERGED: &str = "unmerged_homes";
    /// How far rows may run ahead of the positions, per timeline, postcard.
    pub(crate) const ROWS_AHEAD: &str = "rows_ahead";
    /// Distinguishes a region that has run before from a new one.
    pub(crate) const BORN: &str = "born";
}

/// Rows by key, as a peer answered.
pub(crate) type RowsByKey = BTreeMap<RecordKey, Record>;
