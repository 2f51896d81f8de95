//! Merging a snapshot, chunk by chunk.

use std::collections::BTreeSet;

use longhaul_core::ids::{RecordKey, RegionId, Timeline};
use longhaul_core::record::Record;
use longhaul_core::replication::apply::{ApplyView, Refusal};
use longhaul_core::replication::snapshot::{
    SnapshotHeader, admit_header, admit_rows, gone, merge_positions, merge_row,
};
use longhaul_core::replication::{Position, Positions, durable_vector};
use longhaul_core::vector::VersionVector;

use super::task::{Writer, entry};
use super::transaction::{Transaction, greatest, remembered_winner};
use super::{SnapshotChunk, SnapshotResult, meta};
use crate::store::StoreError;

/// Local rows compared at a time.
const PAGE: usize = 512;

impl Writer {
    /// Merges the rows of one chunk, and removes local rows of the same range that the source had applied and no longer
    /// has (but for homes of which it lacks records). Refused, with a line that says why, if the regime, the promise or
    /// the clock does not admit them now.
    pub(super) async fn merge_chunk(&mut self, chunk: SnapshotChunk) -> Result<SnapshotResult, StoreError> {
        if let Err(refusal) = self.judge(&chunk.header, chunk.home, &chunk.rows) {
            return Ok(Err(refusal.to_string()));
        }
        let header_vector = durable_vector(&chunk.header.positions);
        let present: BTreeSet<RecordKey> = chunk.rows.iter().map(|row| row.key.clone()).collect();
        let mut transaction = Transaction::default();
        self.note_rows_ahead(&mut transaction, chunk.home, &chunk.rows);
        transaction.load(&self.region, present.iter().cloned()).await?;
        let nothing = VersionVector::default();
        let own_home_returns = self.own_home_returns(chunk.home);
        for row in &chunk.rows {
            let local = transaction.record(&row.key);
            // Of a purged home the vector tells nothing, but for the home's own timelines: the purge erased what others,
            // this region too, had written for that home, and left this region's own place as it was. What is absent
            // was purged, not deleted.
            // Nor does it of the own home when it comes back: records that a removed tail had touched are absent, and what
            // the others kept of them is older than this region's place.
            let telling = !own_home_returns
                && (!self.unmerged.contains(&row.key.home) || row.dot.timeline.region == row.key.home);
            let have = if telling { &self.vector } else { &nothing };
            if merge_row(local, row, have) {
                transaction.commit.idempotency.push(remembered_winner(row));
                transaction.set_record(row.key.clone(), Some(row.clone()));
            }
        }
        let mut after = chunk.after.clone();
        loop {
            let page = self.region.store.scan(chunk.home, after.as_ref(), PAGE).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|row| row.key.clone());
            let within = |row: &&Record| chunk.up_to.as_ref().is_none_or(|end| row.key <= *end);
            let vanished: Vec<RecordKey> = page
                .iter()
                .filter(within)
                .filter(|row| !present.contains(&row.key) && !chunk.lacking.contains(&row.key.home))
                .filter(|row| gone(row, &header_vector))
                .map(|row| row.key.clone())
                .collect();
            transaction.load(&self.region, vanished.iter().cloned()).await?;
            for key in vanished {
                transaction.set_record(key, None);
            }
            let ended = chunk.up_to.as_ref().is_some_and(|end| after.as_ref().is_none_or(|after| after >= end));
            if !more || ended {
                break;
            }
        }
        self.commit(transaction).await.map(Ok)
    }

    /// Judges a snapshot, or a part of it, at this moment. Rows of other homes must not come in once isolation is in
    /// force; a home that was frozen gets its own back.
    fn judge(&self, header: &SnapshotHeader, home: Option<RegionId>, rows: &[Record]) -> Result<(), Refusal> {
        let wall_ns = self.region.clock.wall_ns();
        let view = ApplyView {
            regime: &self.regime,
            promised: self.region.promised(),
            positions: &self.positions,
            clock: &self.clock,
            top_up: None,
        };
        match admit_header(&view, header, wall_ns) {
            Err(Refusal::Isolation) if self.own_home_returns(home) => {}
            judged => judged?,
        }
        admit_rows(&view, rows, wall_ns)
    }

    fn own_home_returns(&self, home: Option<RegionId>) -> bool {
        let me = self.region.id();
        home == Some(me) && self.regime.frozen_homes.contains(&me)
    }

    /// Remembers durably which timelines have rows beyond their positions: those of every page until the snapshot's
    /// positions are taken, and afterwards those of pages that were read later than its header, until the log has come
    /// so far.
    fn note_rows_ahead(&mut self, transaction: &mut Transaction, home: Option<RegionId>, rows: &[Record]) {
        let before = self.rows_ahead.clone();
        // A home's snapshot names the home's timelines only: what others had written for it was complete before isolation
        // began. And what comes back to its own home is this home's to keep.
        let me = self.region.id();
        let counts = |row: &&Record| home.is_none_or(|home| home != me && row.dot.timeline.region == home);
        for row in rows.iter().filter(counts) {
            self.rows_ahead.advance(row.dot.timeline, row.dot.seq);
        }
        self.rows_ahead.0.retain(|timeline, seq| self.vector.get(*timeline) < *seq);
        if self.rows_ahead != before {
            transaction.commit.meta.push(entry(meta::ROWS_AHEAD, &self.rows_ahead));
        }
    }

    /// Takes the snapshot's positions once all of its rows are merged. Refused, with a line that says why, if the regime
    /// or the promise is no longer that of the header, or while the clock does not admit the snapshot's versions.
    pub(super) async fn finish_snapshot(
        &mut self,
        header: &SnapshotHeader,
        home: Option<RegionId>,
    ) -> Result<SnapshotResult, StoreError> {
        if let Err(refusal) = self.judge(header, None, &[]) {
            return Ok(Err(refusal.to_string()));
        }
        let newest = greatest(header.positions.values().map(|position| position.version).chain([header.hlc]));
        if let Err(error) = self.clock.admit(&newest, self.region.clock.wall_ns()) {
            return Ok(Err(error.to_string()));
        }
        let mut positions: Positions = self.positions.clone();
        let jumped = merge_positions(&mut positions, header);
        let mut transaction = Transaction::default();
        for timeline in &jumped {
            transaction.commit.forgotten.push(*timeline);
            self.unapplied.remove(timeline);
        }
        let hidden: Vec<_> = header
            .positions
            .keys()
            .filter(|timeline| !jumped.contains(timeline))
            .map(|timeline| (*timeline, positions.get(timeline).map_or(0, |position| position.visible)))
            .collect();
        for timeline in &jumped {
            if let Some(position) = positions.get(timeline) {
                self.positions.insert(*timeline, *position);
                self.vector.set(*timeline, position.seq);
            }
            transaction.moved(*timeline);
        }
        for (timeline, visible) in hidden {
            if self.position(timeline).visible < visible {
                self.show(&mut transaction, timeline, visible).await?;
            }
        }
        self.note_merged(&mut transaction, home);
        self.note_rows_ahead(&mut transaction, home, &[]);
        self.commit(transaction).await?;
        self.region.publish_unmerged(self.unmerged.clone());
        self.region.counters.snapshots_merged.add(1);
        self.note_history();
        Ok(Ok(()))
    }

    /// Notes that this region has a home's records again, or those of every home.
    fn note_merged(&mut self, transaction: &mut Transaction, home: Option<RegionId>) {
        let before = self.unmerged.len();
        self.unmerged.retain(|unmerged| home.is_some_and(|home| home != *unmerged));
        if self.unmerged.len() == before {
            return;
        }
        transaction.commit.meta.push(entry(meta::UNMERGED, &self.unmerged));
        if !self.unmerged.is_empty() {
            return;
        }
        // The purge forgot the places of regions that are no members any more, and nobody is left to bring them. Their
        // timelines ended before isolation, whose certificate says that every home had all of its records: their effect
        // is in what was merged.
        let cuts: Vec<(Timeline, u64)> = self.regime.cuts.iter().collect();
        for (timeline, cut) in cuts.into_iter().filter(|(timeline, _)| !self.regime.is_active(timeline.region)) {
            if self.position(timeline).seq < cut {
                self.positions.insert(timeline, Position { seq: cut, visible: cut, ..Position::START });
                self.vector.set(timeline, cut);
                transaction.moved(timeline);
            }
        }
    }
}
