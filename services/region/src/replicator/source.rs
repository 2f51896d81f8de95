//! Where a stream stands in each timeline that its puller wants, and the next batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_core::ids::{RegionId, Timeline};
use longhaul_core::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
use longhaul_core::operation::Operation;
use longhaul_core::regime::Regime;
use longhaul_core::replication::frame::{Batch, Frame, SnapshotRequired};
use longhaul_core::replication::{Position, shippable};
use longhaul_core::vector::VersionVector;

use crate::state::Region;
use crate::store::StoreError;

/// The sender's cursors of one stream.
pub(super) struct Source {
    /// Whose operations the puller wants.
    wanted: BTreeSet<RegionId>,
    cursors: BTreeMap<Timeline, Cursor>,
    have: VersionVector,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Sent up to here.
    sent: u64,
    /// What the puller was told to show.
    visible: u64,
    /// Nothing is sent before this moment of the boot clock.
    not_before_ns: u64,
    /// The log does not reach back: nothing is sent before the puller wants anew.
    needs_snapshot: bool,
}

impl Source {
    pub(super) fn new(wanted: impl IntoIterator<Item = RegionId>, have: VersionVector) -> Self {
        Self { wanted: wanted.into_iter().collect(), cursors: BTreeMap::new(), have }
    }

    /// Starts again from what the puller has now.
    pub(super) fn want(&mut self, origins: impl IntoIterator<Item = RegionId>, have: VersionVector) {
        let wanted: BTreeSet<RegionId> = origins.into_iter().collect();
        // Timelines that are under way go on where they are: what is in flight would only be sent again.
        self.cursors.retain(|timeline, cursor| wanted.contains(&timeline.region) && !cursor.needs_snapshot);
        self.wanted = wanted;
        self.have = have;
    }

    /// The puller refused: go on from what it has, after a pause.
    pub(super) fn rewind(&mut self, timeline: Timeline, have: u64, not_before_ns: u64) {
        let cursor = Cursor { sent: have, visible: 0, not_before_ns, needs_snapshot: false };
        self.cursors.insert(timeline, cursor);
    }

    /// Forgets every pause (the regime changed: what was refused may be admitted now).
    pub(super) fn resume(&mut self) {
        for cursor in self.cursors.values_mut() {
            cursor.not_before_ns = 0;
            cursor.visible = 0;
        }
    }

    /// The next frame to send, and its cost; `None` if there is nothing to send now.
    pub(super) async fn next(&mut self, region: &Region, regime: &Regime) -> Result<Option<(Frame, u64)>, StoreError> {
        let positions = region.positions();
        let now_ns = region.clock.boot_ns();
        for (timeline, position) in positions.iter().filter(|(timeline, _)| self.wanted.contains(&timeline.region)) {
            let held = self.have.get(*timeline);
            let cursor = self.cursors.entry(*timeline).or_insert(Cursor {
                sent: held,
                visible: 0,
                not_before_ns: 0,
                needs_snapshot: false,
            });
            if cursor.needs_snapshot || cursor.not_before_ns > now_ns {
                continue;
            }
            let head = shippable(regime, *timeline, position.seq);
            let visible = shippable(regime, *timeline, position.visible);
            if cursor.sent < head {
                let operations = read(region, *timeline, cursor.sent, head).await?;
                if operations.first().map(|first| first.dot.seq) != Some(cursor.sent + 1) {
                    cursor.needs_snapshot = true;
                    let floors = VersionVector::from_iter([(*timeline, floor(&operations, *position))]);
                    return Ok(Some((Frame::SnapshotRequired(SnapshotRequired { floors }), 0)));
                }
                cursor.sent = operations.last().map_or(cursor.sent, |last| last.dot.seq);
                cursor.visible = visible;
                region.counters.operations_sent.add(operations.len() as u64);
                let operations = operations.iter().map(|operation| Operation::clone(operation)).collect();
                let batch = Batch { epoch: regime.epoch, timeline: *timeline, operations, visible };
                let cost = batch.credit_bytes();
                return Ok(Some((Frame::Batch(batch), cost)));
            }
            // Sent and not shown yet: tell as soon as it is (the acknowledgements of other followers decide that).
            if cursor.visible < visible.min(cursor.sent) {
                cursor.visible = visible;
                let batch = Batch { epoch: regime.epoch, timeline: *timeline, operations: Vec::new(), visible };
                return Ok(Some((Frame::Batch(batch), 0)));
            }
        }
        Ok(None)
    }

    /// When the first pause ends, boot nanoseconds.
    pub(super) fn next_pause_end(&self, now_ns: u64) -> Option<u64> {
        self.cursors.values().map(|cursor| cursor.not_before_ns).filter(|at| *at > now_ns).min()
    }
}

async fn read(region: &Region, timeline: Timeline, after: u64, up_to: u64) -> Result<Vec<Arc<Operation>>, StoreError> {
    if let Some(page) = region.tail.read(timeline, after, up_to, BATCH_OPERATIONS_MAX, BATCH_BYTES_MAX) {
        return Ok(page);
    }
    let page = region.store.log(timeline, after, BATCH_OPERATIONS_MAX, BATCH_BYTES_MAX).await?;
    Ok(page.into_iter().filter(|operation| operation.dot.seq <= up_to).map(Arc::new).collect())
}

/// The last sequence number that is no longer in the log.
fn floor(operations: &[Arc<Operation>], position: Position) -> u64 {
    operations.first().map_or(position.seq, |first| first.dot.seq - 1)
}
