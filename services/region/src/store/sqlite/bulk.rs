//! Statements over many rows.
//!
//! A statement costs a hop to the connection's thread and back, more than many rows cost; so all rows travel in one
//! statement with many value tuples. Their number is rounded up to a power of two, so that the connection keeps every
//! statement prepared; the tuples that are too many hold nothing but `NULL`, and the statement passes over them.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Error};

use crate::store::rows::integer;

/// Most rows in a statement: a power of two. The widest table has eight columns, and SQLite takes 32,766 values.
const ROWS_PER_STATEMENT_MAX: usize = 256;

/// A statement around a query of rows. Values are always bound, never part of the text. The first of a row's values
/// is never `NULL`.
pub(super) struct Bulk {
    /// Up to the rows.
    pub(super) before: &'static str,
    /// Values in a row.
    pub(super) columns: usize,
    /// After the rows.
    pub(super) after: &'static str,
}

/// Values of rows on their way into a statement.
pub(super) struct Values(SqliteArguments);

impl Values {
    fn add<'t, T>(&mut self, value: T) -> Result<(), Error>
    where
        T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.0.add(value).map_err(Error::Encode)
    }

    pub(super) fn number(&mut self, value: u64) -> Result<(), Error> {
        self.add(integer(value)?)
    }

    pub(super) fn signed(&mut self, value: i64) -> Result<(), Error> {
        self.add(value)
    }

    pub(super) fn text(&mut self, value: &str) -> Result<(), Error> {
        self.add(value)
    }

    pub(super) fn blob(&mut self, value: Vec<u8>) -> Result<(), Error> {
        self.add(value)
    }

    pub(super) fn blob_or_null(&mut self, value: Option<&[u8]>) -> Result<(), Error> {
        self.add(value)
    }

    pub(super) fn timeline(&mut self, timeline: longhaul_core::ids::Timeline) -> Result<(), Error> {
        self.number(timeline.region.0.into())?;
        self.number(timeline.incarnation.0.into())
    }

    pub(super) fn dot(&mut self, dot: longhaul_core::ids::Dot) -> Result<(), Error> {
        self.timeline(dot.timeline)?;
        self.number(dot.seq)
    }
}

impl Bulk {
    fn text(&self, tuples: usize) -> String {
        let tuple_bytes = 2 * self.columns + 2;
        let mut text = String::with_capacity(self.before.len() + self.after.len() + tuples * tuple_bytes + 64);
        text.push_str(self.before);
        text.push_str(" SELECT * FROM (VALUES ");
        for tuple in 0..tuples {
            text.push_str(if tuple == 0 { "(?" } else { ",(?" });
            for _ in 1..self.columns {
                text.push_str(",?");
            }
            text.push(')');
        }
        text.push_str(") WHERE column1 IS NOT NULL ");
        text.push_str(self.after);
        text
    }

    /// Runs the statement over all rows, in order; `bind` adds the values of one row.
    pub(super) async fn run<R>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[R],
        mut bind: impl FnMut(&R, &mut Values) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for chunk in rows.chunks(ROWS_PER_STATEMENT_MAX) {
            let tuples = chunk.len().next_power_of_two();
            let mut values = Values(SqliteArguments::default());
            values.0.reserve(tuples * self.columns, 0);
            for row in chunk {
                bind(row, &mut values)?;
            }
            for _ in 0..(tuples - chunk.len()) * self.columns {
                values.blob_or_null(None)?;
            }
            let text = Arc::<str>::from(self.text(tuples));
            sqlx::query_with(AssertSqlSafe(text), values.0).execute(&mut *connection).await?;
        }
        Ok(())
    }
}
