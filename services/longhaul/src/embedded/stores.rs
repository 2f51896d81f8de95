//! Where the regions of an embedded testbed keep their records: SQLite files in its folder, or one PostgreSQL server
//! with a schema for each region.

use std::path::Path;

use longhaul_core::topology::{Location, Topology};
use longhaul_region::config::StoreConfig;
use longhaul_region::store::postgres::Server;

/// The stores of a testbed.
#[derive(Debug)]
pub(crate) struct Stores {
    database: Option<Database>,
}

#[derive(Debug)]
struct Database {
    url: String,
    /// What the schemas of this testbed begin with; another testbed's begin with something else.
    prefix: String,
    schemas: Vec<String>,
}

impl Stores {
    /// Stores on this server, or in files. `secret` is the testbed's own and stays the same over restarts.
    pub(crate) fn new(url: Option<&str>, secret: &str, topology: &Topology) -> Self {
        let database = url.map(|url| {
            // Not the secret itself: whoever may list schemas need not be able to forge sessions.
            let prefix = format!("longhaul_{:08x}", fingerprint(secret));
            let schemas = topology.regions().map(|(_, name)| schema(&prefix, name.as_str())).collect();
            Database { url: url.to_owned(), prefix, schemas }
        });
        Self { database }
    }

    /// Whether the server can be used; the error is one line. Files need no check: they are created.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let Some(database) = &self.database else { return Ok(()) };
        let server = Server::new(&database.url, &database.prefix, "check").map_err(|error| error.to_string())?;
        server.check_access().await.map_err(|error| format!("{error} (--database-url)"))
    }

    /// The store of a region; `folder` is its own.
    pub(crate) fn of(&self, location: &Location, folder: &Path) -> StoreConfig {
        match &self.database {
            None => StoreConfig::sqlite(folder),
            Some(database) => StoreConfig::Postgres {
                url: database.url.clone(),
                schema: schema(&database.prefix, location.name.as_str()),
            },
        }
    }

    /// Drops what a temporary testbed has created on the server.
    pub(crate) async fn discard(&self) {
        let Some(database) = &self.database else { return };
        for schema in &database.schemas {
            let dropped = match Server::new(&database.url, schema, "discard") {
                Ok(server) => server.drop_schema(schema).await,
                Err(error) => Err(error),
            };
            if let Err(error) = dropped {
                tracing::warn!(%error, schema, "a schema of this testbed could not be dropped");
            }
        }
    }
}

fn schema(prefix: &str, region: &str) -> String {
    format!("{prefix}_{}", region.replace('-', "_"))
}

/// FNV-1a, 64 bits folded to 32.
fn fingerprint(secret: &str) -> u32 {
    let hash = secret
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_of_each_testbed_has_a_schema_of_its_own() {
        let topology = Topology::shipped("two-regions").unwrap().unwrap();
        let url = "postgres://me@127.0.0.1/db";
        let schemas = |secret| Stores::new(Some(url), secret, &topology).database.unwrap().schemas;
        let (mine, again, yours) = (schemas("mine"), schemas("mine"), schemas("yours"));
        assert_eq!(mine, again, "a testbed finds its records after a restart");
        let all: std::collections::BTreeSet<_> = mine.iter().chain(&yours).collect();
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all.iter().all(|schema| schema.len() <= 63 && !schema.contains('-')));
    }
}
