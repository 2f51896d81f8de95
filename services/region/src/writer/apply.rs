//! Batches of peers: judged whole by the apply rule, then logged, and shown as far as their origin shows them.

use std::sync::Arc;

use longhaul_core::replication::apply::{ApplyView, admit_batch};
use longhaul_core::replication::frame::Batch;

use super::ApplyResult;
use super::task::Writer;
use super::transaction::Transaction;
use crate::store::StoreError;

impl Writer {
    /// Stages a batch. A refusal changes nothing.
    pub(super) async fn stage_batch(
        &mut self,
        transaction: &mut Transaction,
        batch: Batch,
    ) -> Result<ApplyResult, StoreError> {
        let wall_ns = self.region.clock.wall_ns();
        let timeline = batch.timeline;
        let admitted = {
            let view = ApplyView {
                regime: &self.regime,
                promised: self.region.promised(),
                positions: &self.positions,
                clock: &self.clock,
                top_up: self.region.top_up(),
            };
            match admit_batch(&view, &batch, wall_ns) {
                Ok(admitted) => admitted,
                Err(refusal) => {
                    self.region.counters.batches_refused.add(1);
                    return Ok(Err(refusal.to_frame(&view, &batch)));
                }
            }
        };
        let counters = &self.region.counters;
        counters.operations_skipped.add(admitted.skip as u64);
        counters.operations_applied.add((batch.operations.len() - admitted.skip) as u64);
        let mut position = admitted.position;
        // What lies before a cut is history: there is nothing left to wait for.
        let visible = if self.is_sealed(timeline) { position.seq } else { position.visible };
        position.visible = self.position(timeline).visible;
        let fresh: Vec<Arc<_>> = batch.operations.into_iter().skip(admitted.skip).map(Arc::new).collect();
        if fresh.is_empty() && visible <= position.visible {
            return Ok(Ok(()));
        }
        for operation in &fresh {
            transaction.log(Arc::clone(operation));
        }
        self.vector.set(timeline, position.seq);
        // Judged above, so that it is admitted; every later stamp of this region is greater.
        if let Err(error) = self.clock.admit(&position.version, wall_ns) {
            tracing::warn!(%error, "a version that was judged sound was not admitted");
        }
        self.positions.insert(timeline, position);
        self.unapplied.entry(timeline).or_default().extend(fresh);
        self.show(transaction, timeline, visible).await?;
        Ok(Ok(()))
    }
}
