//! The reference for writes over PostgreSQL: group commit of the same payload, without HTTP, replication or regime.
//! Writers put rows into a queue; one connection commits whatever is there, at most 256 rows at once,
//! `synchronous_commit=on`.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

type Row = (String, oneshot::Sender<()>);

/// Rows a second.
pub(crate) async fn group_commit(url: &str, writers: u32, seconds: u64) -> anyhow::Result<f64> {
    let options = PgConnectOptions::from_str(url)?.options([("synchronous_commit", "on")]);
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS item (id text PRIMARY KEY, value text NOT NULL)")
        .execute(&mut connection)
        .await?;
    sqlx::query("TRUNCATE item").execute(&mut connection).await?;
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
        let ids: Vec<&str> = batch.iter().map(|(id, _)| id.as_str()).collect();
        let values = vec![pad.as_str(); ids.len()];
        let mut transaction = connection.begin().await?;
        let insert = "INSERT INTO item (id, value) SELECT * FROM UNNEST($1::text[], $2::text[]) \
                      ON CONFLICT (id) DO UPDATE SET value = excluded.value";
        sqlx::query(insert).bind(ids).bind(values).execute(&mut *transaction).await.context("insert")?;
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
