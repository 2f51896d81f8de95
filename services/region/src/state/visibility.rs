//! When sampled operations became visible at this region, on the host's boot clock: what staleness and lag are
//! measured from.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use longhaul_core::ids::OpId;
use longhaul_http::wire::status::VisibilityPage;

/// Entries kept; the oldest goes first.
pub const VISIBILITY_ENTRIES_MAX: usize = 100_000;
/// Entries in one page.
const PAGE: usize = 5000;

/// A ring of moments. The sample is a function of the operation id, so every region records the same operations.
#[derive(Debug)]
pub struct Visibility {
    sample: u32,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// How many entries were ever added.
    added: u64,
    entries: VecDeque<(OpId, u64)>,
}

impl Visibility {
    /// Records one of `sample` operations; 0 records none.
    pub fn new(sample: u32) -> Self {
        Self { sample, ring: Mutex::new(Ring::default()) }
    }

    /// Whether this operation is in the sample.
    pub fn samples(&self, op_id: OpId) -> bool {
        // The low bytes of every UUID layout are random.
        let (_, low) = op_id.0.as_u64_pair();
        self.sample > 0 && low.is_multiple_of(u64::from(self.sample))
    }

    /// Notes that these operations became visible at a moment of the boot clock.
    pub fn record(&self, op_ids: impl Iterator<Item = OpId>, boot_ns: u64) {
        if self.sample == 0 {
            return;
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for op_id in op_ids.filter(|op_id| self.samples(*op_id)) {
            if ring.entries.len() == VISIBILITY_ENTRIES_MAX {
                ring.entries.pop_front();
            }
            ring.entries.push_back((op_id, boot_ns));
            ring.added += 1;
        }
    }

    /// Forgets everything (isolation: operation ids must not leave their home afterwards).
    pub fn clear(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).entries.clear();
    }

    /// Entries after the first `after` ones. A `next` below `after` says that the count began anew (a restart).
    pub fn page(&self, after: u64) -> VisibilityPage {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let after = after.min(ring.added);
        let first = ring.added - ring.entries.len() as u64;
        let skip = after.saturating_sub(first) as usize;
        let visible: Vec<_> =
            ring.entries.iter().skip(skip).take(PAGE).map(|(op_id, at)| (op_id.to_string(), *at)).collect();
        VisibilityPage { next: after.max(first) + visible.len() as u64, visible }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let visibility = Visibility::new(1);
        let ids: Vec<OpId> = (0..10_u128).map(|n| OpId(Uuid::from_u128(n))).collect();
        visibility.record(ids[..4].iter().copied(), 1);
        let first = visibility.page(0);
        assert_eq!((first.next, first.visible.len()), (4, 4));
        assert_eq!(visibility.page(first.next).visible, []);
        visibility.record(ids[4..].iter().copied(), 2);
        let second = visibility.page(first.next);
        assert_eq!(second.visible.first(), Some(&(ids[4].to_string(), 2)));
        assert_eq!(second.next, 10);
        assert_eq!(visibility.page(5000).next, 10, "the reader learns that it is ahead");
    }

    #[test]
    fn the_sample_is_the_same_for_every_region() {
        let (a, b) = (Visibility::new(3), Visibility::new(3));
        for n in 0..100_u128 {
            assert_eq!(a.samples(OpId(Uuid::from_u128(n))), b.samples(OpId(Uuid::from_u128(n))));
        }
        assert!(!Visibility::new(0).samples(OpId(Uuid::nil())));
    }
}
