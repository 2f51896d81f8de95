//! Forgetting: tombstones and log entries behind the stability frontier, and everything foreign on the way to
//! isolation.

use std::collections::BTreeSet;

use longhaul_core::digest::bucket;
use longhaul_core::gate::may_replicate;
use longhaul_core::ids::{Dot, RegionId, Timeline};
use longhaul_core::replication::frontier::{collectable_log, frontier};
use longhaul_core::replication::{MemberReport, durable_vector};
use longhaul_core::vector::VersionVector;

use super::meta;
use super::task::{Writer, entry};
use super::transaction::Transaction;
use crate::store::{Commit, DigestMap, StoreError};

/// Tombstones removed in one commit.
const TOMBSTONES_PER_COMMIT: usize = 512;
/// Rows counted at a time.
const PAGE: usize = 1000;

impl Writer {
    /// Removes tombstones at or below the frontier and log entries that every member has. Does nothing after a
    /// divergence: what explains it must not vanish.
    pub(super) async fn collect(&mut self) -> Result<(), StoreError> {
        if self.region.counters.divergence_alarms.get() > 0 {
            return Ok(());
        }
        let me = self.region.id();
        let mut reports = self.region.peers.member_reports();
        let own = MemberReport::new(self.own.incarnation, self.regime.dataset_generation, &self.positions);
        reports.insert(me, own);
        for report in reports.values_mut() {
            self.lower_to_shown(report).await?;
        }
        if let Some(stable) = frontier(&self.regime, &reports) {
            let dead = self.region.store.tombstones(stable, TOMBSTONES_PER_COMMIT).await?;
            let mut transaction = Transaction::default();
            transaction.load(&self.region, dead.iter().map(|row| row.key.clone())).await?;
            for row in &dead {
                // The record may have been written again since the transaction that the read saw.
                if transaction.record(&row.key).is_some_and(|now| now.dot == row.dot) {
                    transaction.set_record(row.key.clone(), None);
                }
            }
            self.region.counters.tombstones_collected.add(dead.len() as u64);
            self.commit(transaction).await?;
        }
        let retained = self.region.config.timings.log_retained;
        let bounds: Vec<(Timeline, u64)> = collectable_log(&self.regime, &reports)
            .iter()
            .map(|(timeline, seq)| {
                let position = self.position(timeline);
                // The entry at the bound stays: a cut there needs its chain.
                let shown = position.visible.min(seq.saturating_sub(1));
                (timeline, shown.min(position.seq.saturating_sub(retained)))
            })
            .filter(|(_, seq)| *seq > 0)
            .collect();
        if !bounds.is_empty() {
            self.region.store.trim_log(&bounds).await?;
        }
        Ok(())
    }

    /// Puts the version of the last operation that a member shows in the place of the last one that it has; where this
    /// region cannot tell, the member has said nothing yet.
    async fn lower_to_shown(&self, report: &mut MemberReport) -> Result<(), StoreError> {
        let hidden: Vec<(Timeline, u64)> = report.hidden().collect();
        for (timeline, shown) in hidden {
            // Beyond what this region has itself, its own head is the lower bound.
            if self.position(timeline).seq < shown {
                continue;
            }
            match self.region.store.operation(Dot { timeline, seq: shown }).await? {
                Some(last) => report.heads.insert(timeline, last.version),
                None => report.heads.remove(&timeline),
            };
        }
        Ok(())
    }

    /// Erases everything that does not belong to this home. Does nothing once records travel again: whoever asked saw an
    /// earlier regime.
    pub(super) async fn purge(&mut self) -> Result<(), StoreError> {
        let me = self.region.id();
        if may_replicate(&self.regime) {
            return Ok(());
        }
        // Before anything is erased: from here on the vectors say nothing about the rows of other homes, not even the own
        // timeline's, which wrote for them and keeps its place. A log that is complete proves nothing either.
        let unmerged: BTreeSet<RegionId> = self
            .regime
            .members
            .keys()
            .copied()
            .filter(|home| *home != me)
            .chain(self.unmerged.iter().copied())
            .collect();
        let meta = vec![entry(meta::UNMERGED, &unmerged), entry(meta::ROWS_AHEAD, &VersionVector::default())];
        self.region.store.commit(Commit { meta, ..Commit::default() }).await?;
        self.region.publish_unmerged(unmerged.clone());
        self.unmerged = unmerged;
        self.rows_ahead = VersionVector::default();
        let keep: Vec<Timeline> = self.positions.keys().copied().filter(|timeline| timeline.region == me).collect();
        self.region.store.purge(me, &keep).await?;
        self.positions.retain(|timeline, _| timeline.region == me);
        self.vector = durable_vector(&self.positions);
        self.digests.keep_only(me);
        self.unapplied.retain(|timeline, _| timeline.region == me);
        self.unrepaired.retain(|key, _| key.home == me);
        self.rebuild_overlay();
        self.region.cache.clear();
        self.region.tail.clear();
        self.region.visibility.clear();
        self.region.shipping.end(&self.region);
        self.region.peers.forget_reports();
        self.region.publish_digests(&self.positions, self.digests.homes());
        self.region.publish_positions(self.positions.clone());
        Ok(())
    }

    /// Counts a home's digests again from its rows.
    pub(super) async fn digests_match(&mut self, home: RegionId) -> Result<bool, StoreError> {
        let mut counted = DigestMap::new();
        let mut after = None;
        loop {
            let page = self.region.store.scan(Some(home), after.as_ref(), PAGE).await?;
            for row in &page {
                counted.entry((home, bucket(&row.key.id))).or_default().replace(None, Some(row));
            }
            after = page.last().map(|row| row.key.clone());
            if page.len() < PAGE {
                break;
            }
        }
        Ok(self.digests.equal(home, &counted))
    }
}
