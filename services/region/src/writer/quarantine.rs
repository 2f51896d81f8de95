//! Repair of records that a removed tail had touched.

use longhaul_core::ids::RecordKey;
use longhaul_core::record::Record;

use super::RowsByKey;
use super::task::Writer;
use super::transaction::Transaction;
use crate::state::Blocker;
use crate::store::{QuarantineRow, StoreError};

impl Writer {
    /// Merges what the surviving history has of these keys, and marks their quarantined operations as repaired, in one
    /// transaction. Returns how many keys are left. The caller has made sure that the source had applied everything
    /// that this region had when the tail was removed.
    pub(super) async fn repair(&mut self, keys: &[RecordKey], rows: Vec<Record>) -> Result<usize, StoreError> {
        let mut rows: RowsByKey = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut transaction = Transaction::default();
        transaction.load(&self.region, keys.iter().cloned()).await?;
        for key in keys {
            let Some(quarantined) = self.unrepaired.remove(key) else { continue };
            if let Some(row) = rows.remove(key)
                && transaction.record(key).is_none_or(|local| row.version > local.version)
            {
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
