//! A drill over many seeds: one row for each figure, and progress while the seeds run.

use std::fmt::Write;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use longhaul_simulation::distribution::SimulationReport;

use super::tables::table;

/// Runs without a report that are listed.
const TROUBLES_SHOWN: usize = 5;

/// What each figure is called, and how many decimals it has.
const FIGURES: [(&str, &str, usize); 7] = [
    ("rto_write_ms", "RTO of writes, ms", 0),
    ("rto_read_ms", "RTO of reads, ms", 0),
    ("rpo_writes", "RPO, writes", 0),
    ("rpo_s", "RPO, s", 2),
    ("staleness_p99_ms", "staleness p99, ms", 0),
    ("latency_p99_ms", "latency p99, ms", 0),
    ("availability", "availability", 4),
];

/// The report as tables.
pub(crate) fn simulation_text(report: &SimulationReport, folder: Option<&Path>) -> String {
    let mut text = format!(
        "drill {} on {}, {}, {} seeds, SIMULATED: virtual time, no real process or link; figures of the worst edge\n",
        report.plan,
        report.topology,
        report.regime,
        report.runs.len() + report.troubles.len()
    );
    let mut rows = table(["figure", "p5", "p50", "p95", "max", "runs"], 1);
    for (name, label, decimals) in FIGURES {
        let Some(spread) = report.distributions.get(name) else { continue };
        let figure = |figure: f64| format!("{figure:.decimals$}");
        rows.add_row([
            label.to_owned(),
            figure(spread.p5),
            figure(spread.p50),
            figure(spread.p95),
            figure(spread.max),
            spread.count.to_string(),
        ]);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{rows}");
    let verdicts = report.verdicts;
    let _ = writeln!(
        text,
        "verdicts: {} passed, {} failed, {} invalid; writes did not recover in {}; {:.0} s of virtual time",
        verdicts.passed, verdicts.failed, verdicts.invalid, report.not_recovered, report.virtual_s
    );
    for (seed, reason) in report.troubles.iter().take(TROUBLES_SHOWN) {
        let _ = writeln!(text, "no report with seed {seed}: {reason}");
    }
    if let Some(folder) = folder {
        let _ = writeln!(text, "report:   {} (the run with the median recovery)", folder.join("report.html").display());
    }
    text
}

/// Progress over seeds, on standard error.
pub(crate) struct SeedProgress(ProgressBar);

impl SeedProgress {
    /// Progress of `seeds` runs under a title.
    pub(crate) fn new(title: &str, seeds: u64) -> Self {
        let bar = ProgressBar::new(seeds);
        let style = ProgressStyle::with_template("{spinner} {msg} {pos}/{len} seeds, {eta} left {wide_bar}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(title.to_owned());
        if bar.is_hidden() {
            eprintln!("{title}, {seeds} seeds");
        }
        Self(bar)
    }

    /// One more run has ended.
    pub(crate) fn one_more(&self) {
        self.0.inc(1);
    }
}

impl Drop for SeedProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
