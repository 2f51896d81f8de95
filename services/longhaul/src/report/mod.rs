//! Reports: live progress, tables for people, JSON for machines, and one self-contained HTML page.

mod comparison;
mod figures;
mod folder;
mod html;
mod progress;
mod simulation;
mod tables;

pub(crate) use comparison::comparison_text;
pub(crate) use folder::Folder;
pub(crate) use progress::Progress;
pub(crate) use simulation::{SeedProgress, simulation_text};
pub(crate) use tables::run_text;

use std::io::Write;

use serde::Serialize;

/// Prints JSON on standard output, and nothing else.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| format!("a defect: {error}"))?;
    // A reader that closes early (`| head`) has what it wants.
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output cannot be written: {error}; check where it goes"))
        }
        _ => Ok(()),
    }
}
