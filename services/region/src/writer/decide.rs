//! What a person decided about quarantined operations.

use std::collections::BTreeSet;

use longhaul_core::ids::Dot;
use longhaul_core::quarantine::Decision;

use super::task::Writer;
use super::transaction::Transaction;
use crate::store::quarantine_pages::QuarantinePages;
use crate::store::{QuarantineRow, QuarantineState, StoreError};

impl Writer {
    /// Marks open quarantined operations as decided; returns how many there were.
    pub(super) async fn decide(&mut self, dots: &[Dot], decision: Decision) -> Result<u64, StoreError> {
        let dots: BTreeSet<Dot> = dots.iter().copied().collect();
        let state = match decision {
            Decision::Merge => QuarantineState::Merged,
            Decision::Discard => QuarantineState::Discarded,
        };
        let mut transaction = Transaction::default();
        let mut pages = QuarantinePages::new(&*self.region.store);
        while let Some(page) = pages.next().await? {
            let open = page.into_iter().filter(|row| row.state == QuarantineState::Open);
            let decided = open.filter(|row| dots.contains(&row.operation.dot));
            transaction.commit.quarantine.extend(decided.map(|row| QuarantineRow { state, ..row }));
        }
        for row in transaction.commit.quarantine.iter().filter(|row| !row.repaired) {
            if let Some(rows) = row.operation.key().and_then(|key| self.unrepaired.get_mut(&key)) {
                rows.retain(|known| known.operation.dot != row.operation.dot);
                rows.push(row.clone());
            }
        }
        let count = transaction.commit.quarantine.len() as u64;
        self.commit(transaction).await?;
        self.region.counters.quarantine_decided.add(count);
        Ok(count)
    }
}
