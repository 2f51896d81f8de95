//! Where a region keeps what it knows.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest name of a PostgreSQL schema, bytes. Source: PostgreSQL manual, "Identifiers and Key Words": longer ones are
/// cut without a word.
const SCHEMA_BYTES_MAX: usize = 63;

/// Where a region keeps what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreConfig {
    /// In memory: gone with the process.
    #[default]
    Memory,
    /// A SQLite file.
    Sqlite {
        /// The folder of the file.
        folder: PathBuf,
    },
    /// A PostgreSQL database, which several API instances of the region may share.
    Postgres {
        /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of libpq's connection URIs.
        url: String,
        /// The schema; several regions may live in one database, each in its own.
        #[serde(default = "schema_default")]
        schema: String,
    },
}

fn schema_default() -> String {
    "longhaul".to_owned()
}

impl StoreConfig {
    /// A SQLite file in `folder`.
    pub fn sqlite(folder: impl Into<PathBuf>) -> Self {
        Self::Sqlite { folder: folder.into() }
    }

    /// The name of the schema if it is one that needs no quotes: lower case letters, digits and `_`.
    pub(super) fn unusable_schema(&self) -> Option<&str> {
        let Self::Postgres { schema, .. } = self else { return None };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts = schema.bytes().next().is_some_and(|first| plain(first) && !first.is_ascii_digit());
        let usable =
            starts && schema.bytes().all(plain) && schema.len() <= SCHEMA_BYTES_MAX && !schema.starts_with("pg_");
        (!usable).then_some(schema)
    }
}
