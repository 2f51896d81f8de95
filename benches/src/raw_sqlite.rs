//! The reference for writes: SQLite group commit of the same payload, without HTTP, replication or regime. Writers put
//! rows into a queue; one connection commits whatever is there, at most 256 rows at once, `synchronous=FULL`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

type Row = (String, oneshot::Sender<()>);

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
    let (queue, mut rows) = mpsc::channel::<Row>(4096);
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let queue = queue.clone();
        tasks.spawn(async move {
            for n in 0_u64.. {
                let (done, committed) = oneshot::channel();
                if queue.send((format!("w{writer}-{n}"), done)).await.is_err() || committed.await.is_err() {
                    return;
                }
            }
        });
    }
    drop(queue);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let pad = "x".repeat(246);
    let mut count = 0_u64;
    let mut batch: Vec<Row> = Vec::with_capacity(256);
    while tokio::time::Instant::now() < end && rows.recv_many(&mut batch, 256).await > 0 {
        let items: Vec<[&str; 2]> = batch.iter().map(|(id, _)| [id.as_str(), pad.as_str()]).collect();
        let json = serde_json::to_string(&items)?;
        let mut transaction = connection.begin().await?;
        let insert = "INSERT INTO item (id, value) SELECT value->>0, value->>1 FROM json_each(?1) WHERE true \
                      ON CONFLICT (id) DO UPDATE SET value = excluded.value";
        sqlx::query(insert).bind(json).execute(&mut *transaction).await.context("insert")?;
        transaction.commit().await?;
        count += batch.len() as u64;
        for (_, done) in batch.drain(..) {
            // A writer that is gone does not want to know.
            let _ = done.send(());
        }
    }
    tasks.abort_all();
    connection.close().await?;
    Ok(count as f64 / seconds as f64)
}
