//! Acknowledgements: when logged operations become visible, and when their clients are told.
//!
//! With a durability above `local` a write is logged first and becomes visible only once enough followers have it
//! durably: otherwise others would read what a failover then removes.

use std::sync::Arc;

use longhaul_core::ack::achieved;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate;
use longhaul_core::ids::{Dot, Epoch, RegionId, Timeline};
use longhaul_core::merge::merge;
use longhaul_core::operation::{Operation, TraceContext};
use longhaul_core::record::Record;
use longhaul_core::regime::{Durability, Mode, Regime};
use longhaul_core::replication::Position;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use tokio::sync::oneshot;

use super::task::Writer;
use super::transaction::{Reply, Transaction};
use super::{WriteAnswer, WriteError};
use crate::spans;
use crate::state::Region;
use crate::store::{ConflictKind, ConflictRow, StoreError};

/// A client that waits for its acknowledgement.
pub(super) struct Waiting {
    /// Its operation.
    pub(super) dot: Dot,
    /// Its version.
    pub(super) version: Version,
    /// The regime under which it was accepted.
    pub(super) regime: Arc<Regime>,
    /// Whether it had been accepted before.
    pub(super) repeated: bool,
    /// When the client is told that the outcome is unknown, boot nanoseconds.
    pub(super) deadline_ns: u64,
    /// The client.
    pub(super) reply: oneshot::Sender<Result<WriteAnswer, WriteError>>,
    /// When it was accepted, boot nanoseconds.
    pub(super) accepted_ns: u64,
    /// Its trace, if that is kept and its durability needs followers.
    pub(super) trace: Option<TraceContext>,
}

impl Waiting {
    /// Answers a write whose durability holds: acknowledged, if the epoch and the lease allow it **at this moment**.
    pub(super) fn answer(self, region: &Region) {
        let now = region.regime();
        let answer = if region.still_acknowledges(&self.regime) {
            region.counters.writes_acknowledged.add(1);
            region.counters.writes_repeated.add(u64::from(self.repeated));
            // The simulated world watches here that of two primaries only one acknowledges, and that it may.
            let Dot { timeline, seq } = self.dot;
            tracing::trace!(
                target: "longhaul_region::acknowledged",
                epoch = self.regime.epoch.0,
                region = timeline.region.0,
                incarnation = timeline.incarnation.0,
                seq,
            );
            Ok(WriteAnswer {
                dot: self.dot,
                version: self.version,
                epoch: now.epoch,
                promised: self.regime.durability,
                achieved: achieved(&now),
                repeated: self.repeated,
            })
        } else {
            region.counters.writes_unknown.add(1);
            Err(self.fenced())
        };
        self.waited(region, answer.as_ref().err().map(|error| error.code));
        let _ = self.reply.send(answer);
    }

    /// Tells how long it waited for followers, if it had to.
    fn waited(&self, region: &Region, code: Option<ErrorCode>) {
        if !waits(&self.regime) {
            return;
        }
        region.timings.ack_wait.record_ns(region.clock.boot_ns().saturating_sub(self.accepted_ns));
        if let Some(context) = self.trace {
            let durability = self.regime.durability.to_string();
            spans::ack_waited(region, context, self.accepted_ns, &durability, code.map(ErrorCode::as_str));
        }
    }

    fn fenced(&self) -> WriteError {
        WriteError::new(
            ErrorCode::FencedAfterAccept,
            format!(
                "the write is in the log of epoch {}, but this region may no longer acknowledge it; read the record to \
                 learn whether it took effect",
                self.regime.epoch
            ),
        )
    }

    fn timed_out(self, region: &Region) {
        region.counters.writes_unknown.add(1);
        self.waited(region, Some(ErrorCode::AckTimeout));
        let detail = format!(
            "the write is in the log, but its durability {} was not confirmed within {} ms; read the record to learn \
             whether it took effect",
            self.regime.durability, region.config.timings.ack_deadline_ms
        );
        let _ = self.reply.send(Err(WriteError::new(ErrorCode::AckTimeout, detail)));
    }
}

impl Writer {
    /// Whether operations of the own timeline are visible as soon as they are durable here.
    pub(super) fn shows_at_once(&self) -> bool {
        !waits(&self.regime)
    }

    /// Takes a follower's acknowledgement, and shows what it made durable enough.
    pub(super) async fn peer_durable(
        &mut self,
        transaction: &mut Transaction,
        peer: RegionId,
        epoch: Epoch,
        durable: &VersionVector,
    ) -> Result<(), StoreError> {
        if self.acks.record(peer, epoch, durable) {
            self.show_acknowledged(transaction).await?;
        }
        Ok(())
    }

    /// Shows every operation of the own timeline that satisfies the regime's durability.
    pub(super) async fn show_acknowledged(&mut self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let timeline = self.own;
        let held = self.position(timeline);
        let committed = self.acks.committed(&self.regime, timeline, held.seq);
        if committed > held.visible {
            self.show(transaction, timeline, committed).await?;
        }
        self.answer_repeats(transaction);
        Ok(())
    }

    /// Whether an operation that is visible here is as durable as the regime demands. It may be older than the demand:
    /// accepted under a weaker durability, or by a former primary.
    pub(super) fn is_durable(&self, dot: Dot) -> bool {
        self.shows_at_once()
            || self.acks.committed(&self.regime, dot.timeline, self.position(dot.timeline).seq) >= dot.seq
    }

    /// Answers, after the commit, whoever repeats an operation that is durable enough by now.
    fn answer_repeats(&mut self, transaction: &mut Transaction) {
        let (durable, rest) =
            std::mem::take(&mut self.repeats).into_iter().partition(|waiting| self.is_durable(waiting.dot));
        self.repeats = rest;
        self.waiting_count -= Vec::len(&durable);
        transaction.replies.extend(durable.into_iter().map(Reply::Written));
    }

    /// Applies logged operations up to `up_to` to the records, and answers whoever waits for them after the commit.
    pub(super) async fn show(
        &mut self,
        transaction: &mut Transaction,
        timeline: Timeline,
        up_to: u64,
    ) -> Result<(), StoreError> {
        let operations: Vec<Arc<Operation>> = match self.unapplied.get_mut(&timeline) {
            Some(queue) => {
                let count = queue.iter().take_while(|operation| operation.dot.seq <= up_to).count();
                queue.drain(..count).collect()
            }
            None => Vec::new(),
        };
        transaction.load(&self.region, operations.iter().filter_map(|operation| operation.key())).await?;
        for operation in &operations {
            self.apply(transaction, operation);
            if let Some(key) = operation.key()
                && self.overlay.get(&key).is_some_and(|record| record.dot == operation.dot)
            {
                self.overlay.remove(&key);
            }
        }
        let position = self.positions.entry(timeline).or_insert(Position::START);
        position.visible = position.visible.max(up_to.min(position.seq));
        transaction.moved(timeline);
        if timeline == self.own {
            let later = self.waiting.split_off(&(up_to + 1));
            for waiting in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
                self.waiting_count -= 1;
                transaction.replies.push(Reply::Written(waiting));
            }
        }
        Ok(())
    }

    /// Applies one operation to the records. Its record must have been loaded.
    pub(super) fn apply(&self, transaction: &mut Transaction, operation: &Operation) {
        let Some(key) = operation.key() else { return };
        transaction.shown(operation.op_id);
        let merged = match merge(transaction.record(&key), operation) {
            Ok(merged) => merged,
            Err(error) => {
                self.region.counters.divergence_alarms.add(1);
                tracing::error!(dot = %operation.dot, "two operations cannot both exist: {}", error_kind(&error));
                return;
            }
        };
        if merged.born_dead {
            self.region.counters.born_dead.add(1);
            tracing::error!(dot = %operation.dot, "an operation had seen the record and has a smaller version");
        }
        if let Some(lost) = merged.overwritten {
            self.region.counters.conflicts.add(u64::from(!lost.retry));
            transaction.commit.conflicts.push(ConflictRow {
                key: key.clone(),
                loser: lost.loser,
                loser_op_id: lost.loser_op_id,
                loser_version: lost.loser_version,
                loser_value: lost.loser_value,
                winner: lost.winner,
                winner_op_id: lost.winner_op_id,
                kind: if lost.retry { ConflictKind::StaleRetry } else { ConflictKind::Concurrent },
                found_ns: self.region.clock.wall_ns(),
            });
        }
        if merged.wins {
            transaction.set_record(key, Record::from_operation(operation));
        }
    }

    /// Tells clients whose deadline has passed that their outcome is unknown.
    pub(super) fn expire(&mut self) {
        if self.waiting_count == 0 {
            return;
        }
        let now_ns = self.region.clock.boot_ns();
        for expired in self.repeats.extract_if(.., |waiting| waiting.deadline_ns <= now_ns) {
            self.waiting_count -= 1;
            expired.timed_out(&self.region);
        }
        for waiting in self.waiting.values_mut() {
            for expired in waiting.extract_if(.., |waiting| waiting.deadline_ns <= now_ns) {
                self.waiting_count -= 1;
                expired.timed_out(&self.region);
            }
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    /// Tells clients whose writes the adopted regime no longer lets this region acknowledge.
    pub(super) fn fence_waiting(&mut self) {
        let (regime, me) = (Arc::clone(&self.regime), self.region.id());
        let fenced = |waiting: &mut Waiting| !gate::still_acknowledges(&waiting.regime, &regime, me, true);
        let mut all: Vec<Waiting> = self.repeats.extract_if(.., fenced).collect();
        for waiting in self.waiting.values_mut() {
            all.extend(waiting.extract_if(.., fenced));
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        self.waiting_count -= all.len();
        for waiting in all {
            self.region.counters.writes_unknown.add(1);
            let error = waiting.fenced();
            let _ = waiting.reply.send(Err(error));
        }
    }
}

/// Whether writes under this regime wait for followers.
fn waits(regime: &Regime) -> bool {
    regime.mode == Mode::ActivePassive && regime.durability != Durability::Local
}

/// The kind of a merge error, without the record that it names.
fn error_kind(error: &longhaul_core::merge::MergeError) -> &'static str {
    match error {
        longhaul_core::merge::MergeError::SameVersion { .. } => "they have the same version",
        longhaul_core::merge::MergeError::SameDot { .. } => "they have the same place in a log",
        longhaul_core::merge::MergeError::OtherRecord { .. } => "they write different records",
    }
}
