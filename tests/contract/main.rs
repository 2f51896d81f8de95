//! Contracts of the repository: documents, dependency directions, sizes, and what bad input is answered with.

mod bad_input;
mod dependencies;
mod documents;
mod features;
mod names;
mod reliability;
mod sources;

use std::path::{Path, PathBuf};

/// The program under test.
const LONGHAUL: &str = env!("CARGO_BIN_EXE_longhaul");

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
