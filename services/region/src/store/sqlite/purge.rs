//! Erasing what does not belong to one home.

use longhaul_core::ids::{RegionId, Timeline};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};

/// Rows of other homes. The log goes whole, since its entries mix homes.
const FOREIGN: [&str; 5] = [
    "DELETE FROM record WHERE home <> ?",
    "DELETE FROM idempotency WHERE home <> ?",
    "DELETE FROM conflict WHERE home <> ?",
    "DELETE FROM quarantine WHERE home <> ?",
    "DELETE FROM digest WHERE home <> ?",
];

/// Removes the rows, in one transaction.
pub(super) async fn remove_foreign(
    connection: &mut SqliteConnection,
    home: RegionId,
    keep_positions: &[Timeline],
) -> Result<(), Error> {
    let kept: Vec<(u16, u32)> = keep_positions.iter().map(|kept| (kept.region.0, kept.incarnation.0)).collect();
    let kept = serde_json::to_string(&kept).map_err(|error| Error::Encode(error.into()))?;
    sqlx::query("PRAGMA secure_delete = ON").execute(&mut *connection).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for statement in FOREIGN {
        sqlx::query(statement).bind(i64::from(home.0)).execute(&mut *transaction).await?;
    }
    sqlx::query("DELETE FROM log").execute(&mut *transaction).await?;
    sqlx::query(
        "DELETE FROM position WHERE NOT EXISTS (SELECT 1 FROM json_each(?) AS kept \
         WHERE kept.value ->> 0 = region AND kept.value ->> 1 = incarnation)",
    )
    .bind(kept)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Writes the database anew, so that no page keeps what an earlier update or delete left in it, and goes back to
/// ordinary deletes. The write-ahead log still holds the old pages: it must be truncated next.
pub(super) async fn rewrite(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query("VACUUM").execute(&mut *connection).await?;
    sqlx::query("PRAGMA secure_delete = OFF").execute(connection).await?;
    Ok(())
}
