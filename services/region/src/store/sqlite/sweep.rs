//! Looking for bytes: in every row, and in the raw files, where deleted rows may live on.
//!
//! Both are needed. A long value is spread over pages, so a raw search misses what lies across a border; a search of
//! rows misses what has been deleted but not overwritten.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures::TryStreamExt as _;
use sqlx::Error;
use sqlx::sqlite::SqliteConnection;

use super::open::beside;
use crate::store::needles::{Needles, Sightings};

/// Every table that holds anything of a user: its name, and a query for a row's name and its bytes.
const TABLES: [(&str, &str); 6] = [
    ("record", "SELECT home || '/' || id, CAST(id AS BLOB), value FROM record"),
    ("log", "SELECT region || '.' || incarnation || ':' || seq, body, NULL FROM log"),
    ("idempotency", "SELECT lower(hex(op_id)), op_id, CAST(id AS BLOB) FROM idempotency"),
    ("conflict", "SELECT loser_region || '.' || loser_incarnation || ':' || loser_seq, body, NULL FROM conflict"),
    ("quarantine", "SELECT region || '.' || incarnation || ':' || seq, body, NULL FROM quarantine"),
    ("meta", "SELECT name, CAST(name AS BLOB), value FROM meta"),
];

/// Searches the rows.
pub(super) async fn search_rows(connection: &mut SqliteConnection, needles: &Needles) -> Result<Sightings, Error> {
    let mut seen = Sightings::default();
    for (table, query) in TABLES {
        let mut rows = sqlx::query_as::<_, (String, Vec<u8>, Option<Vec<u8>>)>(query).fetch(&mut *connection);
        while let Some((row, first, second)) = rows.try_next().await? {
            seen.search_row(needles, table, &row, &first);
            seen.search_row(needles, table, &row, second.as_deref().unwrap_or_default());
        }
    }
    Ok(seen)
}

/// The raw files.
///
/// The two on which SQLite holds locks stay open as long as the store: closing any handle of a file drops every POSIX
/// lock that the process has on it. Source: <https://sqlite.org/howtocorrupt.html>, section 2.2.
pub(super) struct RawFiles {
    path: PathBuf,
    locked: Mutex<Vec<(String, File)>>,
}

impl RawFiles {
    /// Opens the files of an open store.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut locked = Vec::new();
        for suffix in ["", "-shm"] {
            let file = beside(path, suffix);
            locked.push((file.display().to_string(), File::open(file)?));
        }
        Ok(Self { path: path.to_owned(), locked: Mutex::new(locked) })
    }

    /// Searches the files. It blocks: not for a runtime's thread.
    pub(super) fn search(&self, needles: &Needles) -> io::Result<Sightings> {
        let mut seen = Sightings::default();
        for (name, file) in self.locked.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            file.rewind()?;
            seen.search_file(needles, name, file)?;
        }
        for suffix in ["-wal", "-journal"] {
            let file = beside(&self.path, suffix);
            match File::open(&file) {
                Ok(open) => seen.search_file(needles, &file.display().to_string(), open)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        let size = |suffix| std::fs::metadata(beside(&self.path, suffix)).map_or(0, |file| file.len());
        ["", "-wal", "-shm", "-journal"].into_iter().map(size).sum()
    }

    /// Bytes of the write-ahead log.
    pub(super) fn log_bytes(&self) -> u64 {
        std::fs::metadata(beside(&self.path, "-wal")).map_or(0, |file| file.len())
    }
}
