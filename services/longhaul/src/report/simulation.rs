//! A drill over many seeds: one row for each figure, and progress while the seeds run.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

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
pub(crate) struct SeedProgress {
    bar: ProgressBar,
    /// About how long a run takes, virtual milliseconds.
    run_ms: u64,
}

impl SeedProgress {
    /// Progress of so many runs over seeds under a title, each of about this virtual length.
    pub(crate) fn new(title: &str, seeds: u64, runs: u64, length: Duration) -> Self {
        let run_ms = length.as_millis() as u64;
        let bar = ProgressBar::new(runs.saturating_mul(run_ms));
        let style = ProgressStyle::with_template("{spinner} {msg} {percent}%, {eta} left {wide_bar}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(format!("{title}, {seeds} seeds"));
        if bar.is_hidden() {
            eprintln!("{}", bar.message());
        }
        Self { bar, run_ms }
    }

    /// A run begins; it has ended when this is dropped.
    pub(crate) fn run(&self) -> RunProgress<'_> {
        RunProgress { whole: self, at_ms: 0 }
    }
}

impl Drop for SeedProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Progress within one run.
pub(crate) struct RunProgress<'a> {
    whole: &'a SeedProgress,
    at_ms: u64,
}

impl RunProgress<'_> {
    /// The run has come to this moment of its virtual time. What it takes beyond its length is not shown.
    pub(crate) fn is_at(&mut self, virtual_time: Duration) {
        let at_ms = (virtual_time.as_millis() as u64).min(self.whole.run_ms);
        // Often enough for eyes.
        if at_ms >= self.at_ms + 100 {
            self.whole.bar.inc(at_ms - self.at_ms);
            self.at_ms = at_ms;
        }
    }
}

impl Drop for RunProgress<'_> {
    fn drop(&mut self) {
        self.whole.bar.inc(self.whole.run_ms - self.at_ms);
    }
}
