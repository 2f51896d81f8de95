//! The whole quarantine, read in pages.

use super::{QuarantineRow, Store, StoreError};

/// Rows of one page: few enough that a quarantine of any size is never in memory as a whole.
const ROWS: usize = 1000;

/// Every quarantined operation of a store by dot, a page at a time.
pub(crate) struct QuarantinePages<'a> {
    store: &'a dyn Store,
    offset: u64,
    ended: bool,
}

impl<'a> QuarantinePages<'a> {
    /// Begins with the first row.
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, offset: 0, ended: false }
    }

    /// The next rows, at least one; nothing once all have been read.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<QuarantineRow>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.store.quarantine(self.offset, ROWS).await?;
        self.offset += page.len() as u64;
        self.ended = page.len() < ROWS;
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::QuarantineState;
    use super::super::conformance::fixtures::{SECOND, dot, key, quarantined};
    use super::super::memory::MemoryStore;
    use super::super::{Commit, Store};
    use super::*;

    async fn sizes(rows: u64) -> Vec<usize> {
        let store = MemoryStore::default();
        let record = key(1, "aside");
        let quarantine = (1..=rows).map(|seq| quarantined(dot(SECOND, seq), &record, QuarantineState::Open)).collect();
        store.commit(Commit { quarantine, ..Commit::default() }).await.unwrap();

        let mut pages = QuarantinePages::new(&store);
        let mut sizes = Vec::new();
        let mut seqs = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            sizes.push(page.len());
            seqs.extend(page.iter().map(|row| row.operation.dot.seq));
        }
        assert_eq!(seqs, (1..=rows).collect::<Vec<_>>());
        sizes
    }

    #[tokio::test]
    async fn every_row_comes_once_and_no_page_is_empty() {
        assert!(sizes(0).await.is_empty());
        assert_eq!(sizes(1).await, [1]);
        assert_eq!(sizes(ROWS as u64).await, [ROWS]);
        assert_eq!(sizes(2 * ROWS as u64 + 1).await, [ROWS, ROWS, 1]);
    }
}
