//! Latency of what succeeded, from the intended start: an outage is not hidden by users who wait.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use longhaul_core::report::Percentiles;

use super::history::Case;

/// Largest duration that is told apart from longer ones, microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// A histogram of durations with three significant digits.
#[derive(Debug)]
pub struct Durations(Histogram<u64>);

impl Durations {
    /// An empty one.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("1 µs to 1 h with 3 digits are valid bounds"))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Adds a duration in nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.0.saturating_record(ns / 1_000);
    }

    /// Its percentiles, milliseconds; zero if it is empty.
    pub fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.0.max() as f64 / 1e3, count: self.0.len() }
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self::new()
    }
}

/// Which operations to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Reads.
    Reads,
    /// Writes.
    Writes,
}

/// Per edge.
pub fn by_edge(case: &Case<'_>, which: Which) -> BTreeMap<String, Percentiles> {
    let mut durations: BTreeMap<u16, Durations> = BTreeMap::new();
    for entry in case.ledger.measured().filter(|entry| entry.succeeded()) {
        if which == Which::All || (which == Which::Writes) == entry.kind.writes() {
            durations.entry(entry.edge).or_default().add(entry.ended_ns.saturating_sub(entry.intended_ns));
        }
    }
    let name = |edge: u16| case.ledger.edges[usize::from(edge)].name.clone();
    durations.into_iter().map(|(edge, durations)| (name(edge), durations.percentiles())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn latency_counts_from_the_intended_start() {
        let mut scene = Scene::new();
        for step in 1..=100_u32 {
            let at_s = f64::from(step) / 10.0;
            // Meant for at_s, sent half a second late, answered 1 to 100 ms after that.
            let index = scene.put(0, at_s + 0.5, at_s + 0.5 + f64::from(step) / 1000.0);
            scene.ledger.entries[index].intended_ns -= 500_000_000;
        }
        let london = scene.judge(|case| by_edge(case, Which::Writes))["london"];
        assert_eq!(london.count, 100);
        assert!((london.p50 - 550.0).abs() < 1.0 && (london.p90 - 590.0).abs() < 1.0, "{london:?}");
        assert!((london.max - 600.0).abs() < 1.0);
        assert!(scene.judge(|case| by_edge(case, Which::Reads)).is_empty());
    }
}
