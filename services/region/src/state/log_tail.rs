//! The end of every timeline's log, in memory: streams to peers that keep up never read the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::ids::Timeline;
use longhaul_core::operation::Operation;

/// Approximate bytes kept per timeline. More than the credit of a stream, so that a peer at the far end of the longest
/// link still finds everything here.
pub const TAIL_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The last operations of each timeline, all of them durable.
#[derive(Debug, Default)]
pub struct LogTail(Mutex<BTreeMap<Timeline, Tail>>);

#[derive(Debug, Default)]
struct Tail {
    operations: VecDeque<Arc<Operation>>,
    bytes: usize,
}

impl LogTail {
    /// Takes operations that a commit made durable, in order.
    pub(crate) fn append(&self, operations: impl Iterator<Item = Arc<Operation>>) {
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for operation in operations {
            let tail = tails.entry(operation.dot.timeline).or_default();
            if tail.operations.back().is_some_and(|last| last.dot.seq + 1 != operation.dot.seq) {
                *tail = Tail::default();
            }
            tail.bytes += operation.wire_bytes();
            tail.operations.push_back(operation);
            while tail.bytes > TAIL_BYTES_MAX {
                let Some(first) = tail.operations.pop_front() else { break };
                tail.bytes -= first.wire_bytes();
            }
        }
    }

    /// Forgets what lies beyond a cut.
    pub(crate) fn truncate(&self, timeline: Timeline, seq: u64) {
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tails.get_mut(&timeline) {
            tail.operations.retain(|operation| operation.dot.seq <= seq);
            tail.bytes = tail.operations.iter().map(|operation| operation.wire_bytes()).sum();
        }
    }

    /// Forgets a timeline: it has ended, and nobody follows it any more who could not read the store.
    pub(crate) fn forget(&self, timeline: Timeline) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&timeline);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Operations after `after` up to `up_to`, at most so many and about so many bytes (at least one if there is one).
    /// `None` if the store has to be asked, because the operation after `after` is no longer here.
    pub fn read(
        &self,
        timeline: Timeline,
        after: u64,
        up_to: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> Option<Vec<Arc<Operation>>> {
        let tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let operations = &tails.get(&timeline)?.operations;
        let first = operations.front()?.dot.seq;
        if after + 1 < first || after >= operations.back()?.dot.seq {
            return None;
        }
        let mut bytes = 0;
        let mut page = Vec::new();
        for operation in operations.iter().skip((after + 1 - first) as usize).take(max_operations) {
            if operation.dot.seq > up_to || (bytes > 0 && bytes + operation.wire_bytes() > max_bytes) {
                break;
            }
            bytes += operation.wire_bytes();
            page.push(Arc::clone(operation));
        }
        Some(page)
    }
}
