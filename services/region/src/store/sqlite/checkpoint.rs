//! Moving the write-ahead log into the database.

use sqlx::Error;
use sqlx::sqlite::SqliteConnection;

/// Size of the write-ahead log above which it is cut back to nothing.
pub(super) const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Copies what can be copied without waiting for anybody, beside the writer.
pub(super) async fn passive(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await?;
    Ok(())
}

/// Copies everything and cuts the file to nothing. Says whether that worked: a reader that does not end within the
/// busy timeout keeps it from happening.
pub(super) async fn truncate(connection: &mut SqliteConnection) -> Result<bool, Error> {
    let (busy, _log_pages, _copied_pages): (i64, i64, i64) =
        sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    Ok(busy == 0)
}
