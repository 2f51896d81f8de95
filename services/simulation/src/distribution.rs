//! One drill, many seeds: distributions instead of one number.

use std::collections::BTreeMap;

use longhaul_core::report::{ReadWrite, RunReport, Verdict};
use serde::Serialize;

/// How a figure is spread over runs. Nearest-rank percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// 5th percentile.
    pub p5: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Largest.
    pub max: f64,
    /// In how many runs the figure exists.
    pub count: u64,
}

impl Distribution {
    /// Of these figures; `None` of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let rank = |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        Some(Self { p5: rank(0.05), p50: rank(0.5), p95: rank(0.95), max, count: sorted.len() as u64 })
    }
}

/// What a run tells of one figure, if it has it.
type Figure = fn(&Row) -> Option<f64>;

/// One run in a line. Figures are of the worst edge, milliseconds unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its seed.
    pub seed: u64,
    /// Its verdict.
    pub verdict: Verdict,
    /// Recovery of writes; absent if an edge did not recover.
    pub rto_write_ms: Option<f64>,
    /// Recovery of reads; absent if an edge did not recover.
    pub rto_read_ms: Option<f64>,
    /// Acknowledged writes that were lost.
    pub rpo_writes: u64,
    /// How far back the loss reaches, seconds.
    pub rpo_s: f64,
    /// Age of the answers of reads, 99th percentile.
    pub staleness_p99_ms: f64,
    /// Latency, 99th percentile.
    pub latency_p99_ms: f64,
    /// Share of operations that succeeded in time.
    pub availability: f64,
}

impl Row {
    /// The line of a report.
    pub fn of(report: &RunReport) -> Self {
        let worst = |kind: fn(&ReadWrite) -> Option<f64>| {
            let edges: Option<Vec<f64>> = report.rto_ms.values().map(kind).collect();
            edges.and_then(|edges| edges.into_iter().reduce(f64::max))
        };
        Self {
            seed: report.seed,
            verdict: report.verdict,
            rto_write_ms: worst(|edge| edge.write),
            rto_read_ms: worst(|edge| edge.read),
            rpo_writes: report.rpo.writes,
            rpo_s: report.rpo.seconds,
            staleness_p99_ms: report.staleness_ms.p99,
            latency_p99_ms: report.latency_ms.values().map(|edge| edge.p99).fold(0.0, f64::max),
            availability: report.availability.values().copied().fold(1.0, f64::min),
        }
    }
}

/// A drill over many seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimulationReport {
    /// Always `simulated`: no figure here was measured on real processes or links.
    pub world: &'static str,
    /// The plan's name.
    pub plan: String,
    /// The topology's name.
    pub topology: String,
    /// The regime in which every run starts.
    pub regime: String,
    /// The version of the program.
    pub version: String,
    /// Runs by verdict.
    pub verdicts: Verdicts,
    /// By figure, as in [`Row`].
    pub distributions: BTreeMap<&'static str, Distribution>,
    /// Runs in which writes at some edge did not recover before the end.
    pub not_recovered: u64,
    /// Virtual time of all runs together, seconds.
    pub virtual_s: f64,
    /// Why runs ended without a report, by seed.
    pub troubles: BTreeMap<u64, String>,
    /// Every run, by seed.
    pub runs: Vec<Row>,
    /// The whole report of the run with the median recovery of writes.
    pub median_run: Option<RunReport>,
}

/// Runs by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Verdicts {
    /// Every expectation was met.
    pub passed: u64,
    /// An expectation was not met.
    pub failed: u64,
    /// The run proves nothing.
    pub invalid: u64,
}

/// Collects runs.
#[derive(Debug, Default)]
pub struct Collection {
    rows: BTreeMap<u64, Row>,
    troubles: BTreeMap<u64, String>,
    virtual_s: f64,
}

impl Collection {
    /// A run ended, after so much virtual time.
    pub fn add(&mut self, seed: u64, report: Result<RunReport, String>, virtual_s: f64) {
        self.virtual_s += virtual_s;
        match report {
            Ok(report) => {
                self.rows.insert(seed, Row::of(&report));
            }
            Err(reason) => {
                self.troubles.insert(seed, reason);
            }
        }
    }

    /// How many runs have ended.
    pub fn len(&self) -> usize {
        self.rows.len() + self.troubles.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The seed of the run with the median recovery of writes: run again, it gives the same report.
    pub fn median_seed(&self) -> Option<u64> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by(|a, b| {
            let recovery = |row: &Row| row.rto_write_ms.unwrap_or(f64::INFINITY);
            recovery(a).total_cmp(&recovery(b)).then(a.seed.cmp(&b.seed))
        });
        rows.get(rows.len().saturating_sub(1) / 2).map(|row| row.seed)
    }

    /// The report over all runs.
    pub fn report(self, plan: &str, topology: &str, regime: String, median_run: Option<RunReport>) -> SimulationReport {
        let runs: Vec<Row> = self.rows.into_values().collect();
        let count = |verdict: Verdict| runs.iter().filter(|run| run.verdict == verdict).count() as u64;
        let figures: [(&'static str, Figure); 7] = [
            ("rto_write_ms", |row| row.rto_write_ms),
            ("rto_read_ms", |row| row.rto_read_ms),
            ("rpo_writes", |row| Some(row.rpo_writes as f64)),
            ("rpo_s", |row| Some(row.rpo_s)),
            ("staleness_p99_ms", |row| Some(row.staleness_p99_ms)),
            ("latency_p99_ms", |row| Some(row.latency_p99_ms)),
            ("availability", |row| Some(row.availability)),
        ];
        let distributions = figures.into_iter().filter_map(|(name, figure)| {
            Distribution::of(runs.iter().filter_map(figure)).map(|distribution| (name, distribution))
        });
        SimulationReport {
            world: "simulated",
            plan: plan.to_owned(),
            topology: topology.to_owned(),
            regime,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            verdicts: Verdicts {
                passed: count(Verdict::Passed),
                failed: count(Verdict::Failed),
                invalid: count(Verdict::Invalid),
            },
            distributions: distributions.collect(),
            not_recovered: runs.iter().filter(|row| row.rto_write_ms.is_none()).count() as u64,
            virtual_s: self.virtual_s,
            troubles: self.troubles,
            median_run,
            runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_figures_that_occurred() {
        assert_eq!(Distribution::of([]), None);
        let spread = Distribution::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((spread.p5, spread.p50, spread.p95, spread.max, spread.count), (5.0, 50.0, 95.0, 100.0, 100));
        let one = Distribution::of([7.0]).unwrap();
        assert_eq!((one.p5, one.p50, one.p95), (7.0, 7.0, 7.0));
    }
}
