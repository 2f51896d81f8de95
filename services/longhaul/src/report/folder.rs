//! The folder of a report: `report.txt`, `report.json`, `report.html`, and the traces it speaks of in `spans`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use longhaul_core::report::{Comparison, RunReport};
use longhaul_simulation::distribution::SimulationReport;
use longhaul_telemetry::archive::Archive;
use serde::Serialize;

use super::{comparison, html, simulation, tables};
use crate::commands::trace::SPANS_FOLDER;
use crate::time;
use crate::waterfall::Waterfall;

/// Most lost writes whose traces are kept with the report.
const LOST_KEPT: usize = 20;

/// A folder that can be written to.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates it, before the run: a run whose report cannot be kept is not begun.
    pub(crate) fn prepare(named: Option<&Path>, plan: &str) -> Result<Self, String> {
        let plain: String =
            plan.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let path =
            named.map_or_else(|| Path::new("reports").join(format!("{plain}-{}", time::stamp())), Path::to_owned);
        let created = std::fs::create_dir_all(&path).and_then(|()| std::fs::write(path.join("report.txt"), ""));
        created.map_err(|error| {
            format!("the report folder {} cannot be written: {error}; choose another with --report", path.display())
        })?;
        Ok(Self(path))
    }

    /// Writes the report of a run.
    pub(crate) fn write_run(self, report: &RunReport) -> Result<PathBuf, String> {
        let waterfall = self.waterfall(report);
        self.write(&tables::run_text(report, None), report, &html::run_page(report, waterfall.as_ref()))
    }

    /// Copies the traces that the report speaks of from a testbed's data folder, as `spans/NAME.jsonl`.
    pub(crate) fn keep_traces(&self, data: &Path, name: &str, report: &RunReport) -> Result<(), String> {
        let traces = &report.traces;
        let named = [&traces.drill, &traces.failover, &traces.first_failed, &traces.first_success];
        let mut ids: BTreeSet<String> = named.into_iter().flatten().map(|link| link.trace_id.clone()).collect();
        ids.extend(report.rpo.lost.iter().filter_map(|lost| lost.trace_id.clone()).take(LOST_KEPT));
        let folder = self.0.join(SPANS_FOLDER);
        let to = folder.join(format!("{name}.jsonl"));
        let kept =
            std::fs::create_dir_all(&folder).and_then(|()| Archive::open(&data.join(SPANS_FOLDER)).extract(&ids, &to));
        kept.map_err(|error| {
            format!("{} cannot be written: {error}; free some space, or choose another folder", to.display())
        })
    }

    /// The failover's waterfall, or the drill's where there was no failover; `None` if its spans are not here.
    fn waterfall(&self, report: &RunReport) -> Option<Waterfall> {
        let id = &report.traces.failover.as_ref().or(report.traces.drill.as_ref())?.trace_id;
        let spans = Archive::open(&self.0.join(SPANS_FOLDER)).traces(&BTreeSet::from([id.clone()])).ok()?;
        Waterfall::of(id, &spans)
    }

    /// Writes a comparison.
    pub(crate) fn write_comparison(self, comparison: &Comparison) -> Result<PathBuf, String> {
        let mut text = comparison::comparison_text(comparison, None);
        for run in &comparison.runs {
            text.push('\n');
            text.push_str(&tables::run_text(run, None));
        }
        self.write(&text, comparison, &html::comparison_page(comparison))
    }

    /// Writes a simulation: the page is that of the median run.
    pub(crate) fn write_simulation(self, report: &SimulationReport) -> Result<PathBuf, String> {
        let mut text = simulation::simulation_text(report, None);
        let page = report.median_run.as_ref().map(|run| {
            text.push_str("\nthe run with the median recovery:\n");
            text.push_str(&tables::run_text(run, None));
            html::run_page(run, None)
        });
        self.write(&text, report, page.as_deref().unwrap_or("<!doctype html><title>no run has a report</title>"))
    }

    fn write<T: Serialize>(self, text: &str, json: &T, page: &str) -> Result<PathBuf, String> {
        let json = serde_json::to_string_pretty(json).map_err(|error| format!("a defect: {error}"))? + "\n";
        for (name, content) in [("report.txt", text), ("report.json", &json), ("report.html", page)] {
            let path = self.0.join(name);
            std::fs::write(&path, content).map_err(|error| {
                format!("{} cannot be written: {error}; free some space, or choose another folder", path.display())
            })?;
        }
        Ok(self.0)
    }
}
