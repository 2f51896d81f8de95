//! The reference for writes over SQLite: [`crate::group_commit`] with `synchronous=FULL`.

use std::path::Path;

use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use crate::group_commit::rows_per_second;

/// Rows a second.
pub(crate) async fn group_commit(folder: &Path, writers: u32, seconds: u64) -> anyhow::Result<f64> {
    let mut connection = SqliteConnectOptions::new()
        .filename(folder.join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    let schema = "CREATE TABLE item (id TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID";
    sqlx::query(schema).execute(&mut connection).await?;
    let rate = rows_per_second(writers, seconds, async |ids, value| {
        let items: Vec<[&str; 2]> = ids.iter().map(|id| [*id, value]).collect();
        let json = serde_json::to_string(&items)?;
        let mut transaction = connection.begin().await?;
        let insert = "INSERT INTO item (id, value) SELECT value->>0, value->>1 FROM json_each(?1) WHERE true \
                      ON CONFLICT (id) DO UPDATE SET value = excluded.value";
        sqlx::query(insert).bind(json).execute(&mut *transaction).await.context("insert")?;
        Ok(transaction.commit().await?)
    })
    .await?;
    connection.close().await?;
    Ok(rate)
}
