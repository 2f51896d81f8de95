//! What PostgreSQL says, as store errors: one line with the reason and the remedy.

use longhaul_core::limits::STORE_DEADLINE;
use sqlx::Error;
use sqlx::error::ErrorKind;

use crate::store::StoreError;

/// Connections that one instance of a region needs: the lock, the writer, the readers.
pub(super) const CONNECTIONS: usize = 2 + super::readers::READERS as usize;

/// What went wrong in a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another instance holds the store now; nothing was changed.
    Deposed,
    /// The server refused, or could not be asked.
    Sql(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether the statement was refused for what it says (a dot that is already there), not because the server failed.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.as_database_error().is_some_and(|said| !matches!(said.kind(), ErrorKind::Other))
}

/// The five letters of SQLSTATE. Source: PostgreSQL manual, appendix A.
fn state(error: &Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Reason and remedy.
fn explain(error: &Error) -> (String, String) {
    let Some(said) = error.as_database_error() else {
        let reason = match error {
            Error::Io(io) => io.to_string(),
            other => other.to_string(),
        };
        return (one_line(&reason), "start the database, or correct the store's url".to_owned());
    };
    let state = state(error).unwrap_or_default();
    let remedy = match state.as_str() {
        "53100" => "free space on the database's disk",
        "53300" => {
            return (
                one_line(said.message()),
                format!("raise max_connections: each instance of a region needs {CONNECTIONS}"),
            );
        }
        "57014" => {
            let reason = format!("a statement took longer than {} s", STORE_DEADLINE.as_secs());
            return (reason, "find out what slows the database down".to_owned());
        }
        "57P01" | "57P02" | "57P03" => "wait until the database has started",
        "28000" | "28P01" => "correct the user or the password in the store's url",
        "3D000" => "create the database",
        "42501" => "grant the role CREATE on the database",
        "25006" => "promote the server, or correct the store's url",
        "55P03" => "find out who holds the lock (pg_locks)",
        _ => "see the database's log",
    };
    (format!("{} (SQLSTATE {state})", one_line(said.message())), remedy.to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error of the server: it may pass.
pub(super) fn failed(name: &str, error: &Error) -> StoreError {
    let (reason, remedy) = explain(error);
    StoreError::Unavailable { path: name.to_owned(), reason, remedy }
}

/// A server that cannot be used now.
pub(super) fn lost(name: &str, reason: impl Into<String>) -> StoreError {
    let remedy = "start the database, or correct the store's url".to_owned();
    StoreError::Unavailable { path: name.to_owned(), reason: reason.into(), remedy }
}

/// A database that is not what it must be: a person has to mend it.
pub(super) fn unusable(name: &str, reason: impl Into<String>, remedy: impl Into<String>) -> StoreError {
    StoreError::Unusable { path: name.to_owned(), reason: reason.into(), remedy: remedy.into() }
}
