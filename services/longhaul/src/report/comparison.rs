//! A comparison: one row for each mode and durability.

use std::path::Path;

use longhaul_core::report::{Comparison, RunReport};

use super::figures::{ms, ms_or_dash, percent, recovery, verdict, worst, worst_recovery, worst_share};
use super::tables::{regime, table};

/// The columns; figures are of the worst edge unless the name says otherwise.
pub(crate) const COLUMNS: [&str; 15] = [
    "regime",
    "RTO write ms",
    "RTO read ms",
    "RPO writes",
    "RPO s",
    "availability %",
    "p50 ms",
    "p99 ms",
    "stale p99 ms",
    "lag p50 ms",
    "conflicts",
    "lost updates",
    "quarantine",
    "residency",
    "verdict",
];

/// One run as a row.
pub(crate) fn row(run: &RunReport) -> [String; 15] {
    let rto = |kind: fn(&longhaul_core::report::ReadWrite) -> Option<f64>| {
        worst_recovery(&run.rto_ms, kind).map_or_else(|| "–".to_owned(), recovery)
    };
    [
        regime(run),
        rto(|edge| edge.write),
        rto(|edge| edge.read),
        run.rpo.writes.to_string(),
        format!("{:.2}", run.rpo.seconds),
        worst_share(&run.availability).map_or_else(|| "–".to_owned(), percent),
        ms_or_dash(worst(&run.latency_ms, |p| p.p50)),
        ms_or_dash(worst(&run.latency_ms, |p| p.p99)),
        ms(run.staleness_ms.p99),
        ms_or_dash(worst(&run.lag_ms, |p| p.p50)),
        run.conflicts.concurrent.to_string(),
        run.lost_updates.to_string(),
        run.quarantined.operations.to_string(),
        run.residency_violations.to_string(),
        verdict(run.verdict).to_owned(),
    ]
}

/// The comparison as a table.
pub(crate) fn comparison_text(comparison: &Comparison, folder: Option<&Path>) -> String {
    let mut table = table(COLUMNS, 1);
    for run in &comparison.runs {
        table.add_row(row(run));
    }
    let mut text = format!(
        "{} with seed {}, the same operations in every regime; figures of the worst edge\n{table}\n",
        comparison.plan, comparison.seed
    );
    for run in comparison.runs.iter().filter(|run| !run.reasons.is_empty()) {
        text.push_str(&format!("{}:\n", regime(run)));
        for reason in &run.reasons {
            text.push_str(&format!("  - {reason}\n"));
        }
    }
    if let Some(folder) = folder {
        text.push_str(&format!("report: {}\n", folder.join("report.html").display()));
    }
    text
}
