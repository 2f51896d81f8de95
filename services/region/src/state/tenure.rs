//! For how long this process may answer for its region.
//!
//! Of several API instances over one store, one holds it. What that one answers beside the store (a lease, a vote, a
//! record from memory) cannot be fenced by the store, so it counts on time: the holder renews its tenure and answers
//! nothing beyond it, and the next holder begins after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From when until when, boot nanoseconds.
#[derive(Debug)]
pub struct Tenure {
    from_ns: u64,
    until_ns: AtomicU64,
}

impl Tenure {
    /// For a store that no other process can hold.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { from_ns: 0, until_ns: AtomicU64::new(u64::MAX) })
    }

    /// From a moment on, once it has been renewed.
    pub fn beginning(from_ns: u64) -> Arc<Self> {
        Arc::new(Self { from_ns, until_ns: AtomicU64::new(0) })
    }

    /// Its beginning.
    pub fn from_ns(&self) -> u64 {
        self.from_ns
    }

    /// Whether it holds at this moment.
    pub fn holds(&self, now_ns: u64) -> bool {
        (self.from_ns..self.until_ns.load(Ordering::Acquire)).contains(&now_ns)
    }

    /// Extends it. It never shrinks by a renewal that came late.
    pub fn renew(&self, until_ns: u64) {
        self.until_ns.fetch_max(until_ns, Ordering::AcqRel);
    }

    /// Ends it.
    pub fn end(&self) {
        self.until_ns.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_from_its_beginning_until_the_last_renewal() {
        let tenure = Tenure::beginning(10);
        assert!(!tenure.holds(11), "nobody has renewed it yet");
        tenure.renew(20);
        tenure.renew(15);
        assert_eq!([9, 10, 19, 20].map(|now| tenure.holds(now)), [false, true, true, false]);
        tenure.end();
        assert!(!tenure.holds(11));
        assert!(Tenure::unlimited().holds(1));
    }
}
