//! Statements over many rows.
//!
//! A statement costs a hop to the connection's thread and back, more than a row costs; so rows travel in statements
//! with many value tuples. Their number is one of a few, so that the connection keeps every statement prepared.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Error};

use super::rows::integer;

/// Rows per statement, largest first.
const ROWS_PER_STATEMENT: [usize; 5] = [256, 64, 16, 4, 1];

/// A statement around value tuples. Values are always bound, never part of the text.
pub(super) struct Bulk {
    /// Up to the first tuple.
    pub(super) before: &'static str,
    /// Values in a tuple.
    pub(super) columns: usize,
    /// After the last tuple.
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
    fn text(&self, rows: usize) -> String {
        let mut text = String::with_capacity(self.before.len() + self.after.len() + rows * (2 * self.columns + 2));
        text.push_str(self.before);
        for row in 0..rows {
            text.push_str(if row == 0 { "(?" } else { ",(?" });
            for _ in 1..self.columns {
                text.push_str(",?");
            }
            text.push(')');
        }
        text.push_str(self.after);
        text
    }

    /// Runs the statement over all rows, in order; `bind` adds the values of one row.
    pub(super) async fn run<R>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[R],
        mut bind: impl FnMut(&R, &mut Values) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for rows_per_statement in ROWS_PER_STATEMENT {
            if rows.len() < rows_per_statement {
                continue;
            }
            let text = Arc::<str>::from(self.text(rows_per_statement));
            while let Some((chunk, rest)) = rows.split_at_checked(rows_per_statement) {
                let mut values = Values(SqliteArguments::default());
                values.0.reserve(rows_per_statement * self.columns, 0);
                for row in chunk {
                    bind(row, &mut values)?;
                }
                sqlx::query_with(AssertSqlSafe(text.clone()), values.0).execute(&mut *connection).await?;
                rows = rest;
            }
        }
        Ok(())
    }
}
