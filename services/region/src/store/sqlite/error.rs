//! What SQLite says, as store errors.

use std::path::Path;

use sqlx::error::ErrorKind;

use crate::store::StoreError;

/// SQLite's primary result codes that mean something of their own here. Source: <https://sqlite.org/rescode.html>.
const CORRUPT: u32 = 11;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;

/// What to do about a file that cannot be used any more.
pub(super) const REMEDY_DAMAGED: &str =
    "restore it, or move it away together with its -wal and -shm so that the region is built again from the others";

/// The primary result code, without the extended part.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn reason(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(said) => format!("{} (SQLite code {})", said.message(), said.code().unwrap_or_default()),
        None => error.to_string(),
    }
}

/// Whether the statement was refused for what it says (a dot that is already there), not because the disk failed.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|said| !matches!(said.kind(), ErrorKind::Other))
}

/// An error of a store that was open.
pub(super) fn failed(path: &Path, error: &sqlx::Error) -> StoreError {
    broken(path, reason(error))
}

/// A store that was open and cannot be used any more.
pub(super) fn broken(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Failed { path: path.display().to_string(), reason: reason.into() }
}

/// A file that is not what it must be.
pub(super) fn unusable(path: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), reason: reason.into(), remedy: remedy.into() }
}

/// An error while opening: damage and wrong files are the person's to mend, everything else is a disk that failed.
pub(super) fn opening(path: &Path, error: &sqlx::Error) -> StoreError {
    match primary_code(error) {
        Some(NOT_A_DATABASE) => not_a_database(path),
        Some(CORRUPT) => unusable(path, format!("it is damaged: {}", reason(error)), REMEDY_DAMAGED),
        Some(CANNOT_OPEN) => {
            unusable(path, reason(error), "check that its folder exists and that this user may write there")
        }
        _ => failed(path, error),
    }
}

/// A file of somebody else.
pub(super) fn not_a_database(path: &Path) -> StoreError {
    unusable(path, "it is not a store of longhaul", "give the region another path, or move that file away")
}
