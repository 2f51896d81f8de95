//! Adopting a regime, in the same critical section as the commits: what lies beyond a cut leaves history in the very
//! transaction that makes the regime durable. A crash leaves either the old regime with its tail or the new one
//! without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_core::ids::{Dot, RecordKey, Timeline};
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::operation::{Chain, Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::regime::{MemberState, Mode, Regime};
use longhaul_core::replication::Position;

use super::recover::{read_log, regime_entry};
use super::task::{Writer, entry};
use super::transaction::Transaction;
use super::{Adopted, GateScope, meta};
use crate::failpoint::{FailPoint, reach};
use crate::state::{Blocker, OwnLog, own_timeline};
use crate::store::{QuarantineReason, QuarantineRow, QuarantineState, StoreError};

/// Rows looked at together where the log does not tell what a timeline has written.
const SCAN_PAGE: usize = 1000;

impl Writer {
    /// Adopts a chosen regime; an older or equal one changes nothing.
    pub(super) async fn adopt(&mut self, regime: Regime) -> Result<Adopted, StoreError> {
        if regime.epoch <= self.regime.epoch {
            return Ok(Adopted::default());
        }
        let mut transaction = Transaction::default();
        let mut quarantined = 0;
        let beyond: Vec<(Timeline, u64)> =
            regime.cuts.iter().filter(|(timeline, cut)| self.position(*timeline).seq > *cut).collect();
        let keeps = is_broken(Rule::Cut);
        for (timeline, cut) in beyond.iter().filter(|_| !keeps) {
            quarantined += self.truncate(&mut transaction, &regime, *timeline, *cut).await?;
        }
        let ahead: Vec<Dot> = self
            .rows_ahead
            .iter()
            .filter_map(|(timeline, seq)| Some((timeline, seq, regime.cuts.0.get(&timeline).copied()?)))
            .filter(|(_, seq, cut)| seq > cut)
            .map(|(timeline, _, seq)| Dot { timeline, seq })
            .collect();
        for cut in ahead {
            quarantined += self.remove_rows_beyond(&mut transaction, &regime, cut).await?;
            self.rows_ahead.0.remove(&cut.timeline);
            transaction.commit.meta.push(entry(meta::ROWS_AHEAD, &self.rows_ahead));
        }
        let same_data = regime.dataset_generation == self.regime.dataset_generation;
        let own = own_timeline(&regime, self.region.id());
        let new_timeline = own != self.own;
        transaction.commit.meta.push(regime_entry(&regime));
        self.clock.observe_floor(regime.hlc_floor_ns);
        self.regime = Arc::new(regime);
        self.own = own;
        self.gate = GateScope::Open;
        self.rebuild_overlay();
        self.show_history(&mut transaction).await?;
        if !new_timeline {
            self.show_acknowledged(&mut transaction).await?;
        }
        // Whoever reads the positions must not find the old regime with them, and nobody may be acknowledged under the
        // old regime any more: so the regime is published between the commit and the answers.
        let answers = std::mem::take(&mut transaction.replies);
        self.commit(transaction).await?;
        reach(FailPoint::Adopted);
        if new_timeline && self.region.own_log() != OwnLog::Unconfirmed {
            // Nobody can know more of a timeline that begins now.
            self.region.set_own_log(OwnLog::Confirmed);
        }
        if !self.unrepaired.is_empty() {
            self.region.block(Blocker::Repairing, true);
        }
        if !same_data {
            self.region.peers.forget_reports();
        }
        self.region.set_top_up(None);
        self.region.publish_regime(Arc::clone(&self.regime));
        for (timeline, _) in self.regime.cuts.iter() {
            self.region.tail.forget(timeline);
        }
        self.fence_waiting();
        self.answer(answers);
        self.note_history();
        tracing::info!(
            epoch = self.regime.epoch.0,
            mode = %self.regime.mode,
            quarantined,
            "adopted a regime"
        );
        self.region.counters.quarantined.add(quarantined);
        Ok(Adopted { changed: true, quarantined })
    }

    /// Puts the tail of a timeline beyond its cut aside. Records that show it are removed in the same transaction, so
    /// that operations that arrive later merge as if it had never been; they are fetched again before the region
    /// serves.
    async fn truncate(
        &mut self,
        transaction: &mut Transaction,
        regime: &Regime,
        timeline: Timeline,
        cut: u64,
    ) -> Result<u64, StoreError> {
        let held = self.position(timeline);
        let tail = read_log(&self.region.store, timeline, cut, held.seq).await?;
        let boundary = self.region.store.log(timeline, cut.saturating_sub(1), 1, 1).await?.into_iter().next();
        let position = boundary.filter(|last| cut > 0 && last.dot.seq == cut).map_or(
            Position { seq: cut, visible: cut, ..Position::START },
            |last| Position { seq: cut, visible: cut, version: last.version, chain: last.chain },
        );
        transaction.load(&self.region, tail.iter().filter_map(|operation| operation.key())).await?;
        let exposed = exposed_keys(transaction, &tail, Dot { timeline, seq: cut });
        let reason = reason(regime, timeline);
        let found_ns = self.region.clock.wall_ns();
        let mut count = 0;
        for operation in tail.iter().filter(|operation| operation.kind.writes()) {
            let key = operation.key();
            let row = QuarantineRow {
                operation: Operation::clone(operation),
                reason,
                epoch: regime.epoch,
                found_ns,
                state: QuarantineState::Open,
                repaired: key.as_ref().is_none_or(|key| !exposed.contains(key)),
            };
            if let Some(key) = key.filter(|_| !row.repaired) {
                self.unrepaired.entry(key).or_default().push(row.clone());
            }
            transaction.commit.quarantine.push(row);
            count += 1;
        }
        for key in exposed {
            transaction.set_record(key, None);
        }
        let dense = tail.first().map(|first| first.dot.seq) == Some(cut + 1) && tail.len() as u64 == held.seq - cut;
        if !dense {
            // A snapshot jumped over that part of the log: only the records themselves tell what came of it.
            count += self.remove_rows_beyond(transaction, regime, Dot { timeline, seq: cut }).await?;
        }
        if let Some(queue) = self.unapplied.get_mut(&timeline) {
            queue.retain(|operation| operation.dot.seq <= cut);
        }
        transaction.commit.truncated.push((timeline, cut));
        transaction.moved(timeline);
        // Operations up to the cut that were not visible yet become so in `show_history`.
        let position = Position { visible: held.visible.min(cut), ..position };
        self.positions.insert(timeline, position);
        self.vector.set(timeline, cut);
        self.region.tail.truncate(timeline, cut);
        Ok(count)
    }

    /// Removes every record that shows an operation of a timeline beyond its cut although the log does not have the
    /// operation, and puts the operation aside as far as the record tells it. That the keys are to be repaired is
    /// durable with it.
    async fn remove_rows_beyond(
        &mut self,
        transaction: &mut Transaction,
        regime: &Regime,
        cut: Dot,
    ) -> Result<u64, StoreError> {
        let found_ns = self.region.clock.wall_ns();
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.region.store.scan(None, after.as_ref(), SCAN_PAGE).await?;
            after = page.last().map(|row| row.key.clone());
            let beyond = |row: &&Record| row.dot.timeline == cut.timeline && row.dot.seq > cut.seq;
            let exposed: Vec<&Record> = page.iter().filter(beyond).collect();
            transaction.load(&self.region, exposed.iter().map(|row| row.key.clone())).await?;
            for record in exposed {
                if transaction.record(&record.key).is_none_or(|now| now.dot != record.dot) {
                    continue; // Removed with the part of the tail that is in the log.
                }
                let row = QuarantineRow {
                    operation: operation_of(record),
                    reason: reason(regime, cut.timeline),
                    epoch: regime.epoch,
                    found_ns,
                    state: QuarantineState::Open,
                    repaired: false,
                };
                self.unrepaired.entry(record.key.clone()).or_default().push(row.clone());
                transaction.commit.quarantine.push(row);
                transaction.set_record(record.key.clone(), None);
                count += 1;
            }
            if page.len() < SCAN_PAGE {
                return Ok(count);
            }
        }
    }

    /// Everything before a cut is history, and without a durability to wait for everything of one's own is visible.
    async fn show_history(&mut self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let hidden: BTreeMap<Timeline, u64> = self
            .positions
            .iter()
            .filter(|(_, position)| position.visible < position.seq)
            .filter(|(timeline, _)| {
                self.regime.cuts.0.contains_key(timeline) || (**timeline == self.own && self.shows_at_once())
            })
            .map(|(timeline, position)| (*timeline, position.seq))
            .collect();
        for (timeline, seq) in hidden {
            self.show(transaction, timeline, seq).await?;
        }
        Ok(())
    }

    /// Blocks the region while sealed history is missing here, and unblocks it once it is complete.
    pub(super) fn note_history(&mut self) {
        // In isolation other homes' history neither comes nor counts.
        let purged = self.unmerged.iter().any(|home| !self.regime.frozen_homes.contains(home));
        let missing = self.regime.mode != Mode::RegionalIsolation
            && (purged || self.regime.cuts.iter().any(|(timeline, cut)| self.position(timeline).visible < cut));
        self.lacks_history = missing;
        self.region.block(Blocker::CatchingUp, missing);
    }
}

/// Why what lies beyond the cut of this timeline is put aside.
fn reason(regime: &Regime, timeline: Timeline) -> QuarantineReason {
    let evicted = regime.members.get(&timeline.region).is_some_and(|member| member.state == MemberState::Evicted);
    if evicted { QuarantineReason::Evicted } else { QuarantineReason::PastCut }
}

/// The operation that made a record, as far as the record tells it: when it was accepted is not in it, and its version
/// is close to that; its place in the rolling hash is not in it either.
fn operation_of(record: &Record) -> Operation {
    Operation {
        dot: record.dot,
        epoch: record.epoch,
        kind: if record.is_tombstone() { OperationKind::Delete } else { OperationKind::Put },
        home: record.key.home,
        id: Some(record.key.id.clone()),
        value: record.value.clone(),
        version: record.version,
        context: record.context.clone(),
        op_id: record.op_id,
        accepted_ns: record.version.time_ns,
        trace: None,
        merged_from: None,
        chain: Chain::default(),
    }
}

/// The records that show an operation of this timeline beyond the cut.
fn exposed_keys(transaction: &Transaction, tail: &[Arc<Operation>], cut: Dot) -> BTreeSet<RecordKey> {
    let beyond = |dot: Dot| dot.timeline == cut.timeline && dot.seq > cut.seq;
    tail.iter()
        .filter_map(|operation| operation.key())
        .filter(|key| transaction.record(key).is_some_and(|record| beyond(record.dot)))
        .collect()
}
