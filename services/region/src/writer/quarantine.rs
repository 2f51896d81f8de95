//! Repair of records that a removed tail had touched.

use std::sync::Arc;

use longhaul_core::ids::RecordKey;
use longhaul_core::record::Record;
use longhaul_core::regime::Mode;

use super::RowsByKey;
use super::task::Writer;
use super::transaction::{Transaction, remembered_winner};
use crate::state::Blocker;
use crate::store::{QuarantineRow, StoreError};

impl Writer {
    /// Merges what the surviving history has of these keys, and marks their quarantined operations as repaired, in one
    /// transaction. Returns how many keys are left. The caller has made sure that the source had applied everything
    /// that this region had when the tail was removed.
    ///
    /// A row that this region's own vector does not cover is not taken: if its region is lost now, its timeline may be
    /// sealed below the row, and nobody would know that it is here. Its key stays for the next attempt; the log will
    /// have brought the operation by then. Only a home that gets its own records back in isolation takes every row, and
    /// remembers its operation: no log will bring them. What is kept there for a frozen home comes from the own log.
    pub(super) async fn repair(&mut self, keys: &[RecordKey], rows: Vec<Record>) -> Result<usize, StoreError> {
        let (me, regime) = (self.region.id(), Arc::clone(&self.regime));
        let isolated = regime.mode == Mode::RegionalIsolation;
        let stays = |key: &RecordKey| !isolated || key.home == me || regime.frozen_homes.contains(&key.home);
        let mut rows: RowsByKey = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut transaction = Transaction::default();
        transaction.load(&self.region, keys.iter().cloned()).await?;
        for key in keys {
            let row = rows
                .remove(key)
                .filter(|row| transaction.record(key).is_none_or(|local| row.version > local.version) && stays(key));
            if row.as_ref().is_some_and(|row| !isolated && !self.vector.covers(row.dot)) {
                continue;
            }
            let Some(quarantined) = self.unrepaired.remove(key) else { continue };
            if let Some(row) = row {
                if isolated && key.home == me {
                    transaction.commit.idempotency.push(remembered_winner(&row));
                }
                transaction.set_record(key.clone(), Some(row));
            }
            let repaired = quarantined.into_iter().map(|row| QuarantineRow { repaired: true, ..row });
            transaction.commit.quarantine.extend(repaired);
        }
        self.commit(transaction).await?;
        if self.unrepaired.is_empty() {
            self.region.block(Blocker::Repairing, false);
        }
        Ok(self.unrepaired.len())
    }
}
