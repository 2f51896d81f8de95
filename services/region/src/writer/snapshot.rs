//! Merging a snapshot, chunk by chunk.

use std::collections::BTreeSet;

use longhaul_core::ids::{RecordKey, RegionId};
use longhaul_core::record::Record;
use longhaul_core::regime::Mode;
use longhaul_core::replication::snapshot::{SnapshotHeader, gone, merge_positions, merge_row};
use longhaul_core::replication::{Positions, durable_vector};
use longhaul_core::vector::VersionVector;

use super::SnapshotChunk;
use super::task::Writer;
use super::transaction::{Transaction, greatest, remembered_winner};
use crate::replicator::data_flows;
use crate::store::StoreError;

/// Local rows compared at a time.
const PAGE: usize = 512;

impl Writer {
    /// Merges the rows of one chunk, and removes local rows of the same range that the source had applied and no longer
    /// has.
    pub(super) async fn merge_chunk(&mut self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        if !self.takes_snapshot(&chunk.header, chunk.home) {
            return Ok(());
        }
        let header_vector = durable_vector(&chunk.header.positions);
        let present: BTreeSet<RecordKey> = chunk.rows.iter().map(|row| row.key.clone()).collect();
        // On the way out of isolation the vector says nothing about rows: a purge erased what this region itself had
        // written for other homes, and left its own timeline as it was. What is absent was purged, not deleted; nothing
        // is collected before the mode has changed.
        let isolated = self.regime.mode == Mode::RegionalIsolation;
        let have = if isolated { VersionVector::default() } else { chunk.have.as_ref().clone() };
        let mut transaction = Transaction::default();
        transaction.load(&self.region, present.iter().cloned()).await?;
        for row in &chunk.rows {
            let local = transaction.record(&row.key);
            if merge_row(local, row, &have) {
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
                .filter(|row| !present.contains(&row.key) && gone(row, &header_vector))
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
        self.commit(transaction).await
    }

    /// Whether a snapshot may still be merged: rows of other homes must not come in once isolation is in force. A home
    /// that was frozen gets its own back.
    fn takes_snapshot(&self, header: &SnapshotHeader, home: Option<RegionId>) -> bool {
        let me = self.region.id();
        let own_home_returns = home == Some(me) && self.regime.frozen_homes.contains(&me);
        header.dataset_generation == self.regime.dataset_generation && (data_flows(&self.regime) || own_home_returns)
    }

    /// Takes the snapshot's positions once all of its rows are merged. Refused, with a line that says why, while the
    /// clock does not admit the snapshot's versions.
    pub(super) async fn finish_snapshot(&mut self, header: &SnapshotHeader) -> Result<Result<(), String>, StoreError> {
        if !self.takes_snapshot(header, None) {
            return Ok(Err("the regime changed while the snapshot was fetched; it starts anew".to_owned()));
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
        self.commit(transaction).await?;
        self.region.counters.snapshots_merged.add(1);
        self.note_history();
        Ok(Ok(()))
    }
}
