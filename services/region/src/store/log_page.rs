//! The bounds of one page of a log, the same in every store.

use longhaul_core::operation::Operation;

/// Collects log entries until a count or a size is reached.
pub(super) struct LogPage {
    operations: Vec<Operation>,
    bytes: usize,
    max_operations: usize,
    max_bytes: usize,
}

impl LogPage {
    /// An empty page.
    pub(super) const fn new(max_operations: usize, max_bytes: usize) -> Self {
        Self { operations: Vec::new(), bytes: 0, max_operations, max_bytes }
    }

    /// Adds an entry and says whether it fitted; when it did not, the page is complete. The first entry fits whatever
    /// its size, or a reader would wait for ever behind one that is too large.
    pub(super) fn push(&mut self, operation: Operation) -> bool {
        let bytes = self.bytes.saturating_add(operation.wire_bytes());
        let full = self.operations.len() >= self.max_operations;
        if full || (bytes > self.max_bytes && !self.operations.is_empty()) {
            return false;
        }
        self.bytes = bytes;
        self.operations.push(operation);
        true
    }

    /// The entries.
    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}
