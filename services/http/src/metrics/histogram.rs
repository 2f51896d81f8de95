//! Histograms with fixed bounds, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds for durations in seconds: those of the semantic conventions for HTTP, with finer ones below, since a commit
/// takes less than a millisecond, and wider ones above, since a partition lasts longer than ten seconds.
pub const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0,
    30.0, 60.0,
];

/// A histogram.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last is beyond all of them.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

/// A histogram as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Upper bounds, inclusive.
    pub bounds: &'static [f64],
    /// How many fell into each, the last beyond all bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: f64,
}

impl Counts {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            bounds: SECONDS,
            counts: (0..=SECONDS.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        self.record_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one duration in nanoseconds.
    pub fn record_ns(&self, took_ns: u64) {
        let seconds = took_ns as f64 / 1e9;
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for ms in [1, 1, 3, 90_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let counts = histogram.counts();
        assert_eq!((counts.counts[1], counts.counts[3], *counts.counts.last().unwrap()), (2, 1, 1));
        assert_eq!(counts.count(), 4);
        assert!((counts.sum - 90.005).abs() < 1e-9);
    }
}
