//! `trace`: a trace as a waterfall in the terminal, from the files of a testbed or a report.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use longhaul_telemetry::archive::Archive;

use crate::cli::TraceArgs;
use crate::outcome::Outcome;
use crate::waterfall::{Waterfall, text};

/// The folder of span files in a testbed's data folder and in a report's folder.
pub(crate) const SPANS_FOLDER: &str = "spans";

/// Draws a trace.
pub(crate) fn run(args: &TraceArgs) -> Outcome {
    match draw(args) {
        Ok(text) => {
            print!("{text}");
            Outcome::Met
        }
        Err(reason) => Outcome::invalid(reason),
    }
}

fn draw(args: &TraceArgs) -> Result<String, String> {
    let folders = match &args.from {
        Some(folder) => vec![folder.clone()],
        None => newest(),
    };
    for folder in &folders {
        if let Some(waterfall) = find(folder, &args.trace)? {
            if args.json {
                let json = serde_json::to_string_pretty(&waterfall).map_err(|error| format!("a defect: {error}"))?;
                return Ok(json + "\n");
            }
            return Ok(text(&waterfall));
        }
    }
    let looked: Vec<_> = folders.iter().take(3).map(|folder| folder.display().to_string()).collect();
    Err(match looked.as_slice() {
        [] => "there is neither a report nor a running testbed with traces here; name a report's or a testbed's data \
               folder with --from"
            .to_owned(),
        looked => format!(
            "there is no trace {} in {}; name another report's or testbed's data folder with --from",
            args.trace,
            looked.join(", ")
        ),
    })
}

fn find(folder: &Path, wanted: &str) -> Result<Option<Waterfall>, String> {
    let cannot = |error: std::io::Error| format!("the traces in {} cannot be read: {error}", folder.display());
    let archive = Archive::open(&folder.join(SPANS_FOLDER));
    let id = match wanted {
        "last-failover" => archive.last_with("longhaul.change").map_err(cannot)?,
        "last-drill" => archive.last_with("longhaul.plan").map_err(cannot)?,
        id => Some(id.to_ascii_lowercase()),
    };
    let Some(id) = id else { return Ok(None) };
    let spans = archive.traces(&BTreeSet::from([id.clone()])).map_err(cannot)?;
    Ok(Waterfall::of(&id, &spans))
}

/// Folders with traces, newest first: reports below the present folder, and testbeds that run without a folder of their
/// own.
fn newest() -> Vec<PathBuf> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let places = [(PathBuf::from("reports"), ""), (std::env::temp_dir(), "longhaul-")];
    for (place, prefix) in places {
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
            let changed = std::fs::metadata(path.join(SPANS_FOLDER)).and_then(|metadata| metadata.modified());
            if let (true, Ok(changed)) = (named, changed) {
                found.push((changed, path));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_trace_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let args = TraceArgs { trace: "last-failover".to_owned(), from: Some(folder.path().to_owned()), json: false };
        let reason = draw(&args).unwrap_err();
        assert!(reason.contains("last-failover") && reason.contains("--from"), "{reason}");
        assert!(reason.contains(&folder.path().display().to_string()), "{reason}");
    }
}
