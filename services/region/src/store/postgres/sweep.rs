//! Looking for bytes in every row. The server's files are out of reach: what deleted rows left there is removed by the
//! purge, which writes the tables anew.

use futures::TryStreamExt as _;
use sqlx::Error;
use sqlx::postgres::PgConnection;

use crate::store::needles::{Needles, Sightings};

/// Every table that holds anything of a user: its name, and a query for a row's name and its bytes.
const TABLES: [(&str, &str); 6] = [
    ("record", "SELECT home || '/' || id, convert_to(id, 'UTF8'), value FROM record"),
    ("log", "SELECT region || '.' || incarnation || ':' || seq, body, NULL::bytea FROM log"),
    ("idempotency", "SELECT encode(op_id, 'hex'), op_id, convert_to(id, 'UTF8') FROM idempotency"),
    (
        "conflict",
        "SELECT loser_region || '.' || loser_incarnation || ':' || loser_seq, body, NULL::bytea FROM conflict",
    ),
    ("quarantine", "SELECT region || '.' || incarnation || ':' || seq, body, NULL::bytea FROM quarantine"),
    ("meta", "SELECT name, convert_to(name, 'UTF8'), value FROM meta"),
];

/// Searches the rows.
pub(super) async fn search_rows(connection: &mut PgConnection, needles: &Needles) -> Result<Sightings, Error> {
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
