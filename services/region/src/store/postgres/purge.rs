//! Erasing what does not belong to one home.

use longhaul_core::ids::{RegionId, Timeline};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};

use super::error::Failure;
use super::hold::fence;

/// Rows of other homes. The log goes whole, since its entries mix homes.
const FOREIGN: [&str; 5] = [
    "DELETE FROM record WHERE home <> $1",
    "DELETE FROM idempotency WHERE home <> $1",
    "DELETE FROM conflict WHERE home <> $1",
    "DELETE FROM quarantine WHERE home <> $1",
    "DELETE FROM digest WHERE home <> $1",
];

/// Writes each table anew, so that no page keeps what an update or a delete left in it.
const REWRITE: [&str; 8] = [
    "VACUUM FULL record",
    "VACUUM FULL log",
    "VACUUM FULL idempotency",
    "VACUUM FULL conflict",
    "VACUUM FULL quarantine",
    "VACUUM FULL digest",
    "VACUUM FULL position",
    "VACUUM FULL meta",
];

/// Removes the rows, in one transaction.
pub(super) async fn remove_foreign(
    connection: &mut PgConnection,
    term: i64,
    home: RegionId,
    keep_positions: &[Timeline],
) -> Result<(), Failure> {
    let mut transaction = connection.begin().await?;
    fence(&mut transaction, term).await?;
    for statement in FOREIGN {
        sqlx::query(statement).bind(i64::from(home.0)).execute(&mut *transaction).await?;
    }
    sqlx::query("DELETE FROM log").execute(&mut *transaction).await?;
    sqlx::query(
        "DELETE FROM position WHERE (region, incarnation) NOT IN (SELECT * FROM UNNEST($1::bigint[], $2::bigint[]))",
    )
    .bind(keep_positions.iter().map(|kept| i64::from(kept.region.0)).collect::<Vec<_>>())
    .bind(keep_positions.iter().map(|kept| i64::from(kept.incarnation.0)).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Writes the tables anew.
///
/// The server's write-ahead log holds old rows until it is recycled, and only the server's owner can change that; a
/// checkpoint lets it begin, where the role may ask for one.
pub(super) async fn rewrite(connection: &mut PgConnection) -> Result<(), Error> {
    for statement in REWRITE {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    match sqlx::query("CHECKPOINT").execute(connection).await {
        Err(error) if error.as_database_error().is_some() => {
            tracing::debug!(%error, "the role may not ask for a checkpoint; the server makes one by itself");
            Ok(())
        }
        done => done.map(|_| ()),
    }
}
