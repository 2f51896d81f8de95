//! The reference for writes over PostgreSQL: [`crate::group_commit`] with `synchronous_commit=on`.

use std::str::FromStr as _;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::group_commit::rows_per_second;

/// Rows a second.
pub(crate) async fn group_commit(url: &str, writers: u32, seconds: u64) -> anyhow::Result<f64> {
    let options = PgConnectOptions::from_str(url)?.options([("synchronous_commit", "on")]);
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS item (id text PRIMARY KEY, value text NOT NULL)")
        .execute(&mut connection)
        .await?;
    sqlx::query("TRUNCATE item").execute(&mut connection).await?;
    let rate = rows_per_second(writers, seconds, async |ids, value| {
        let values = vec![value; ids.len()];
        let mut transaction = connection.begin().await?;
        let insert = "INSERT INTO item (id, value) SELECT * FROM UNNEST($1::text[], $2::text[]) \
                      ON CONFLICT (id) DO UPDATE SET value = excluded.value";
        sqlx::query(insert).bind(ids).bind(values).execute(&mut *transaction).await.context("insert")?;
        Ok(transaction.commit().await?)
    })
    .await?;
    connection.close().await?;
    Ok(rate)
}
