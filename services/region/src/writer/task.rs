//! The writer's loop: take what is there, stage it, commit, publish, answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ack::AckTracker;
use longhaul_core::clock::RegionClock;
use longhaul_core::ids::{Dot, RecordKey, RegionId, Timeline};
use longhaul_core::limits::COMMIT_BATCH_MAX;
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::regime::Regime;
use longhaul_core::replication::{Position, Positions, durable_vector};
use longhaul_core::vector::VersionVector;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::acks::Waiting;
use super::digests::Digests;
use super::recover::Recovered;
use super::transaction::{Reply, Transaction};
use super::{COMMAND_QUEUE_MAX, Command, GateScope, QueuedWrite, WriterQueues, meta};
use crate::failpoint::{FailPoint, reach};
use crate::spans;
use crate::state::{Region, own_timeline};
use crate::store::{Commit, QuarantineRow, StoreError};

/// How often waiting clients are checked for their deadline.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(20);
/// With less than this left of its bound, the clock's bound is raised by a commit of its own before anything is
/// stamped; normally it rides on other commits long before.
const BOUND_LEFT_MIN_NS: u64 = 500_000_000;

/// The owner of the log.
pub(crate) struct Writer {
    pub(super) region: Arc<Region>,
    pub(super) regime: Arc<Regime>,
    pub(super) clock: RegionClock,
    pub(super) clock_upper_ns: u64,
    pub(super) clock_blocked: bool,
    /// Sealed timelines are not complete here yet.
    pub(super) lacks_history: bool,
    /// Durable and in-transaction positions.
    pub(super) positions: Positions,
    /// The same as a vector: the context of the next operation.
    pub(super) vector: VersionVector,
    /// The timeline that this region writes.
    pub(super) own: Timeline,
    pub(super) digests: Digests,
    pub(super) acks: AckTracker,
    pub(super) gate: GateScope,
    /// Who waits until every write that was accepted before the gate closed has been answered: those up to this place.
    pub(super) gate_replies: Vec<(Dot, oneshot::Sender<()>)>,
    /// Logged operations that are not visible yet, in order.
    pub(super) unapplied: BTreeMap<Timeline, VecDeque<Arc<Operation>>>,
    /// The newest unapplied state of each record of the own timeline. Looked up only.
    pub(super) overlay: HashMap<RecordKey, Record>,
    /// Clients whose operations are not visible yet, by sequence number.
    pub(super) waiting: BTreeMap<u64, Vec<Waiting>>,
    pub(super) waiting_count: usize,
    /// Clients that repeat an operation that is visible already and is not as durable as the regime demands by now.
    pub(super) repeats: Vec<Waiting>,
    /// Homes that were purged and not merged again.
    pub(super) unmerged: BTreeSet<RegionId>,
    /// How far rows of snapshots may run ahead of the positions, per timeline.
    pub(super) rows_ahead: VersionVector,
    /// Records that a removed tail had touched and that are not repaired yet.
    pub(super) unrepaired: BTreeMap<RecordKey, Vec<QuarantineRow>>,
}

impl Writer {
    /// A writer on what was recovered.
    pub(crate) fn new(region: Arc<Region>, recovered: Recovered) -> Self {
        let regime = region.regime();
        let me = region.id();
        region.publish_unmerged(recovered.unmerged.clone());
        Self {
            unmerged: recovered.unmerged,
            rows_ahead: recovered.rows_ahead,
            own: own_timeline(&regime, me),
            vector: durable_vector(&recovered.positions),
            positions: recovered.positions,
            clock: recovered.clock,
            clock_upper_ns: recovered.clock_upper_ns,
            clock_blocked: false,
            lacks_history: false,
            digests: Digests::new(recovered.digests),
            acks: AckTracker::new(me),
            gate: GateScope::Open,
            gate_replies: Vec::new(),
            unapplied: recovered.unapplied,
            overlay: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            repeats: Vec::new(),
            unrepaired: recovered.unrepaired,
            region,
            regime,
        }
    }

    /// Runs until `stop`, then commits what is queued. Ends with an error, and without another acknowledgement, when
    /// the store fails.
    pub(crate) async fn run(mut self, mut queues: WriterQueues, stop: CancellationToken) -> Result<(), StoreError> {
        let mut commands = Vec::with_capacity(COMMAND_QUEUE_MAX);
        let mut writes = Vec::with_capacity(COMMIT_BATCH_MAX);
        let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.rebuild_overlay();
        self.region.publish_digests(&self.positions, self.digests.homes());
        loop {
            let stopping = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = queues.commands.recv_many(&mut commands, COMMAND_QUEUE_MAX) => false,
                _ = queues.writes.recv_many(&mut writes, COMMIT_BATCH_MAX) => false,
                _ = expiry.tick(), if self.waiting_count > 0 => false,
            };
            if stopping {
                queues.commands.close();
                queues.writes.close();
            }
            while commands.len() < COMMAND_QUEUE_MAX
                && let Ok(command) = queues.commands.try_recv()
            {
                commands.push(command);
            }
            while writes.len() < COMMIT_BATCH_MAX
                && let Ok(write) = queues.writes.try_recv()
            {
                writes.push(write);
            }
            let idle = commands.is_empty() && writes.is_empty();
            self.turn(&mut commands, &mut writes).await?;
            if stopping && idle {
                return Ok(());
            }
        }
    }

    async fn turn(&mut self, commands: &mut Vec<Command>, writes: &mut Vec<QueuedWrite>) -> Result<(), StoreError> {
        let mut transaction = Transaction::default();
        for command in commands.drain(..) {
            transaction = self.stage_command(transaction, command).await?;
        }
        if !writes.is_empty() {
            self.ensure_bound().await?;
            transaction.load_writes(&self.region, writes).await?;
            for write in writes.drain(..) {
                if let Some(context) = spans::recorded(write.request.trace) {
                    let now_ns = self.region.clock.boot_ns();
                    let waited_ns = write.arrived.elapsed().as_nanos() as u64;
                    spans::accepted(&self.region, context, now_ns.saturating_sub(waited_ns), now_ns);
                    transaction.traced.add(context);
                }
                self.stage_write(&mut transaction, write);
            }
        }
        self.expire();
        self.commit(transaction).await?;
        self.answer_gates();
        Ok(())
    }

    /// Stages a command; one that must be alone commits what was staged before it.
    async fn stage_command(
        &mut self,
        mut transaction: Transaction,
        command: Command,
    ) -> Result<Transaction, StoreError> {
        match command {
            Command::Apply { batch, reply } => {
                let result = self.stage_batch(&mut transaction, *batch).await?;
                transaction.replies.push(Reply::Applied(reply, result));
            }
            Command::PeerDurable { peer, epoch, durable } => {
                self.peer_durable(&mut transaction, peer, epoch, &durable).await?;
            }
            Command::Marker { kind, trace, reply } => {
                self.ensure_bound().await?;
                let result = self.stage_marker(&mut transaction, kind, trace);
                transaction.replies.push(Reply::Marked(reply, result));
            }
            Command::Persist { meta, reply } => {
                transaction.commit.meta.extend(meta);
                transaction.replies.push(Reply::Done(reply));
            }
            Command::KeepConflicts { rows, reply } => {
                transaction.commit.conflicts.extend(rows);
                transaction.replies.push(Reply::Done(reply));
            }
            Command::Gate { scope, reply } => {
                self.gate = scope;
                if scope == GateScope::Open {
                    transaction.replies.push(Reply::Done(reply));
                } else {
                    let last = Dot { timeline: self.own, seq: self.position(self.own).seq };
                    self.gate_replies.push((last, reply));
                }
            }
            Command::AcceptClockJump { reply } => {
                self.clock.accept_jump(self.region.clock.wall_ns(), self.region.clock.boot_ns());
                transaction.replies.push(Reply::Done(reply));
            }
            alone => {
                self.commit(std::mem::take(&mut transaction)).await?;
                self.run_alone(alone).await?;
            }
        }
        Ok(transaction)
    }

    /// Answers whoever waits for writes before a gate. Writes that pass the gate (those of the own home, on the way to
    /// isolation) may come without end, so it is not enough to wait until nobody waits.
    fn answer_gates(&mut self) {
        let first = self.waiting.keys().next().copied().unwrap_or(u64::MAX);
        let own = self.own;
        for (_, reply) in self.gate_replies.extract_if(.., |(last, _)| last.timeline != own || last.seq < first) {
            let _ = reply.send(());
        }
    }

    async fn run_alone(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Adopt { regime, reply } => {
                let adopted = self.adopt(*regime).await?;
                let _ = reply.send(adopted);
            }
            Command::Snapshot { chunk, reply } => {
                let result = self.merge_chunk(*chunk).await?;
                let _ = reply.send(result);
            }
            Command::SnapshotFinish { header, home, reply } => {
                let result = self.finish_snapshot(&header, home).await?;
                let _ = reply.send(result);
            }
            Command::Collect { reply } => {
                self.collect().await?;
                let _ = reply.send(());
            }
            Command::Purge { reply } => {
                self.purge().await?;
                let _ = reply.send(());
            }
            Command::Repair { keys, rows, reply } => {
                let left = self.repair(&keys, rows).await?;
                let _ = reply.send(left);
            }
            Command::Decide { dots, decision, reply } => {
                let decided = self.decide(&dots, decision).await?;
                let _ = reply.send(decided);
            }
            Command::CheckDigests { home, reply } => {
                let equal = self.digests_match(home).await?;
                let _ = reply.send(equal);
            }
            Command::Apply { .. }
            | Command::PeerDurable { .. }
            | Command::Marker { .. }
            | Command::Persist { .. }
            | Command::KeepConflicts { .. }
            | Command::Gate { .. }
            | Command::AcceptClockJump { .. } => {}
        }
        Ok(())
    }

    /// Commits, publishes, and answers.
    pub(super) async fn commit(&mut self, mut transaction: Transaction) -> Result<(), StoreError> {
        let replies = if transaction.is_empty() {
            transaction.replies
        } else {
            let upper = self.bound_needed();
            if let Some(upper_ns) = upper {
                transaction.commit.meta.push(bound_entry(upper_ns));
            }
            let operations = transaction.commit.operations.len();
            let traced = std::mem::take(&mut transaction.traced);
            let (mut commit, mut committed) = transaction.finish(&self.positions, &mut self.digests);
            let own = |operation: &Operation| operation.dot.timeline == self.own && operation.kind.writes();
            let writes = commit.operations.iter().any(own);
            let applies = commit.operations.iter().any(|operation| operation.dot.timeline.region != self.own.region);
            if writes {
                reach(FailPoint::BeforeCommit);
            }
            let apart = is_broken(Rule::IdempotencyWithWrite).then(|| std::mem::take(&mut commit.idempotency));
            let from_ns = self.region.clock.boot_ns();
            self.region.store.commit(commit).await?;
            let to_ns = self.region.clock.boot_ns();
            if let Some(idempotency) = apart {
                self.region.store.commit(Commit { idempotency, ..Commit::default() }).await?;
            }
            if writes {
                reach(FailPoint::BeforeAnswer);
            }
            if applies {
                reach(FailPoint::BeforeBatchAnswer);
            }
            self.region.counters.commits.add(1);
            self.region.timings.commit.record_ns(to_ns.saturating_sub(from_ns));
            traced.committed(&self.region, operations, from_ns, to_ns);
            committed.ship(&self.region, self.own, to_ns);
            if let Some(upper_ns) = upper {
                self.set_bound(upper_ns);
            }
            committed.publish(&self.region, &self.positions, &self.digests);
            if self.lacks_history {
                self.note_history();
            }
            committed.replies
        };
        self.answer(replies);
        Ok(())
    }

    /// Answers whoever waited for a commit.
    pub(super) fn answer(&self, replies: Vec<Reply>) {
        let answers = replies.iter().any(|reply| matches!(reply, Reply::Written(_)));
        for reply in replies {
            match reply {
                Reply::Written(waiting) => waiting.answer(&self.region),
                Reply::Refused(reply, error) => {
                    let _ = reply.send(Err(error));
                }
                Reply::Applied(reply, result) => {
                    let _ = reply.send(result);
                }
                Reply::Marked(reply, result) => {
                    let _ = reply.send(result);
                }
                Reply::Done(reply) => {
                    let _ = reply.send(());
                }
            }
        }
        if answers {
            reach(FailPoint::AfterAnswer);
        }
    }

    /// Blocks a region that starts without all of sealed history.
    pub(crate) fn note_recovered_history(&mut self) {
        self.note_history();
    }

    /// One timeline's position.
    pub(super) fn position(&self, timeline: Timeline) -> Position {
        self.positions.get(&timeline).copied().unwrap_or(Position::START)
    }

    /// Whether the adopted regime ended this timeline.
    pub(super) fn is_sealed(&self, timeline: Timeline) -> bool {
        self.regime.cuts.0.contains_key(&timeline)
    }

    /// Raises the clock's durable bound by a commit of its own if it is nearly used up.
    async fn ensure_bound(&mut self) -> Result<(), StoreError> {
        let now_ns = self.region.clock.wall_ns().max(self.clock.last_ns());
        if self.clock_upper_ns.saturating_sub(now_ns) >= BOUND_LEFT_MIN_NS {
            return Ok(());
        }
        if let Some(upper_ns) = self.bound_needed() {
            let commit = Commit { meta: vec![bound_entry(upper_ns)], ..Default::default() };
            self.region.store.commit(commit).await?;
            self.set_bound(upper_ns);
        }
        Ok(())
    }

    fn bound_needed(&self) -> Option<u64> {
        self.clock.upper_needed(self.region.clock.wall_ns(), self.region.clock.boot_ns())
    }

    fn set_bound(&mut self, upper_ns: u64) {
        self.clock.set_upper(upper_ns);
        self.clock_upper_ns = self.clock_upper_ns.max(upper_ns);
    }

    /// The overlay from what is logged and not visible.
    pub(super) fn rebuild_overlay(&mut self) {
        self.overlay.clear();
        for operation in self.unapplied.get(&self.own).into_iter().flatten() {
            if let (Some(key), Some(record)) = (operation.key(), Record::from_operation(operation)) {
                self.overlay.insert(key, record);
            }
        }
    }
}

/// A durable value as it is written.
pub(super) fn entry<T: serde::Serialize>(name: &str, value: &T) -> (String, Bytes) {
    let bytes = postcard::to_stdvec(value).expect("sets and vectors of numbers can be encoded");
    (name.to_owned(), bytes.into())
}

pub(super) fn bound_entry(upper_ns: u64) -> (String, Bytes) {
    (meta::CLOCK_UPPER.to_owned(), Bytes::copy_from_slice(&upper_ns.to_be_bytes()))
}
