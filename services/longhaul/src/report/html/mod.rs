//! One self-contained HTML page: no script, no external resource, light and dark.

mod page;
mod plot;
mod sections;

use std::fmt::Write;

use longhaul_core::report::{Comparison, RunReport};

use super::comparison::{COLUMNS, row};
use super::figures::verdict;
use super::tables::regime;
use crate::waterfall::Waterfall;
use page::{document, escape, html_table};

/// The page of a run.
pub(crate) fn run_page(report: &RunReport, waterfall: Option<&Waterfall>) -> String {
    let title = format!("{}, {}", report.plan.name, regime(report));
    document(&title, &run_body(report, 1, waterfall))
}

/// The page of a comparison: the table, and every run below it.
pub(crate) fn comparison_page(comparison: &Comparison) -> String {
    let mut body = format!(
        "<header><h1>{} in every regime</h1><p>Seed {}, the same operations in each run. Figures are of the worst edge.</p></header>",
        escape(&comparison.plan),
        comparison.seed
    );
    let rows = comparison.runs.iter().map(|run| row(run).map(|cell| escape(&cell)).to_vec());
    body.push_str(&html_table(&COLUMNS, rows, 1));
    body.push_str(&sections::comparison_bars(comparison));
    for run in &comparison.runs {
        let open = if comparison.runs.len() == 1 { " open" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "<details class=\"run\"{open}><summary>{} <span class=\"verdict {word}\">{word}</span></summary>{}</details>",
            escape(&regime(run)),
            run_body(run, 2, None),
            word = verdict(run.verdict)
        );
    }
    document(&format!("{}: comparison", comparison.plan), &body)
}

fn run_body(report: &RunReport, level: u8, waterfall: Option<&Waterfall>) -> String {
    let mut body = sections::heading(report, level);
    body.push_str(&sections::key_figures(report));
    body.push_str(&sections::timelines(report));
    body.push_str(&sections::recovery(report));
    body.push_str(&sections::traces(report, waterfall));
    body.push_str(&sections::latency(report));
    body.push_str(&sections::lag(report));
    body.push_str(&sections::lost(report));
    body.push_str(&sections::facts(report));
    body.push_str(&sections::certificate(report));
    body.push_str(&sections::cost(report));
    body.push_str(&sections::plan(report));
    body
}

#[cfg(test)]
mod tests;
