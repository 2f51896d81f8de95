//! Connecting to the server, and what every connection must have.

use std::str::FromStr as _;
use std::time::Duration;

use longhaul_core::limits::{STORE_CONNECT_DEADLINE, STORE_DEADLINE};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Error};

use super::error::{lost, unusable};
use crate::store::StoreError;

/// Oldest server that is accepted, as `server_version_num` says it.
const VERSION_MIN: i32 = 130_000;
/// With nothing heard for this long the server asks whether the client is still there, and again every second.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(1);
/// After so many questions without an answer the server ends the session, and with it the lock that it held.
const KEEPALIVE_COUNT: u32 = 2;

/// Where a database is and how this process names itself there.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    name: String,
    instance: String,
}

impl Server {
    /// Reads the configuration's address. `instance` names this process among the instances of a region; it must differ
    /// in every life.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the address cannot be read.
    pub fn new(url: &str, schema: &str, instance: &str) -> Result<Self, StoreError> {
        let parsed = PgConnectOptions::from_str(url).map_err(|error| {
            // The address may hold a password: it is not repeated.
            let remedy = "write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE";
            unusable("the configured PostgreSQL address", format!("it cannot be read: {error}"), remedy)
        })?;
        let place = parsed.get_socket().map_or_else(
            || format!("{}:{}", parsed.get_host(), parsed.get_port()),
            |socket| format!("{} (port {})", socket.display(), parsed.get_port()),
        );
        let database = parsed.get_database().unwrap_or_else(|| parsed.get_username());
        let name = format!("postgres://{place}/{database} schema {schema}");
        let deadline = STORE_DEADLINE.as_millis().to_string();
        let options = parsed
            .application_name(&application_name(instance))
            .options([
                ("search_path", schema),
                // Overrides what a role or a database may have set: a commit that returned is on the disk.
                ("synchronous_commit", "on"),
                ("default_transaction_isolation", "read committed"),
                ("statement_timeout", deadline.as_str()),
                ("lock_timeout", deadline.as_str()),
                // A process that stops in the middle of a transaction must not hold its rows for ever.
                ("idle_in_transaction_session_timeout", deadline.as_str()),
                ("tcp_keepalives_idle", KEEPALIVE_IDLE.as_secs().to_string().as_str()),
                ("tcp_keepalives_interval", "1"),
                ("tcp_keepalives_count", KEEPALIVE_COUNT.to_string().as_str()),
                ("client_min_messages", "warning"),
                ("bytea_output", "hex"),
            ])
            .disable_statement_logging();
        Ok(Self { options, name, instance: instance.to_owned() })
    }

    /// What to call it in messages: address, database and schema, no password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This process among the instances of the region.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether the server can be reached and used.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong, in one line.
    pub async fn check_access(&self) -> Result<(), StoreError> {
        self.connect().await.map(|_| ())
    }

    /// Drops a schema with everything in it. For a testbed that removes what it created.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be used now.
    pub async fn drop_schema(&self, schema: &str) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        let text = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
        let dropping = sqlx::query(AssertSqlSafe(text)).execute(&mut connection);
        match tokio::time::timeout(STORE_DEADLINE, dropping).await {
            Ok(dropped) => dropped.map(|_| ()).map_err(|error| super::error::failed(&self.name, &error)),
            Err(_) => Err(lost(&self.name, "a schema could not be dropped in time")),
        }
    }

    /// Connects, and checks what every connection must have.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            let settings = settings(&mut connection).await?;
            Ok::<_, Error>((connection, settings))
        };
        let Ok(connected) = tokio::time::timeout(STORE_CONNECT_DEADLINE, connecting).await else {
            return Err(lost(&self.name, format!("it did not answer within {} s", STORE_CONNECT_DEADLINE.as_secs())));
        };
        let (connection, settings) = connected.map_err(|error| super::error::failed(&self.name, &error))?;
        self.check(&settings)?;
        Ok(connection)
    }

    fn check(&self, settings: &Settings) -> Result<(), StoreError> {
        let refuse = |reason: String, remedy: &str| Err(unusable(&self.name, reason, remedy));
        if settings.version < VERSION_MIN {
            return refuse(format!("the server is version {}", settings.version), "use PostgreSQL 13 or newer");
        }
        if !matches!(settings.synchronous_commit.as_str(), "on" | "remote_apply") {
            let reason = format!("a connection has synchronous_commit = {}", settings.synchronous_commit);
            return refuse(reason, "remove what overrides it: a commit that returned must be on the disk");
        }
        if settings.fsync != "on" {
            let remedy = "start the server with fsync = on: a power cut would lose what was acknowledged";
            return refuse(format!("the server runs with fsync = {}", settings.fsync), remedy);
        }
        if settings.encoding != "UTF8" {
            let reason = format!("the database has encoding {}", settings.encoding);
            return refuse(reason, "create it with ENCODING 'UTF8'");
        }
        if settings.in_recovery {
            return Err(lost(
                &self.name,
                "the server is a standby and takes no writes; promote it or correct the address",
            ));
        }
        Ok(())
    }
}

/// How an instance's connections are named in `pg_stat_activity`.
pub(super) fn application_name(instance: &str) -> String {
    format!("longhaul {instance}")
}

struct Settings {
    version: i32,
    synchronous_commit: String,
    fsync: String,
    encoding: String,
    in_recovery: bool,
}

async fn settings(connection: &mut PgConnection) -> Result<Settings, Error> {
    let (version, synchronous_commit, fsync, encoding, in_recovery): (i32, String, String, String, bool) =
        sqlx::query_as(
            "SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'), \
             current_setting('fsync'), current_setting('server_encoding'), pg_is_in_recovery()",
        )
        .fetch_one(connection)
        .await?;
    Ok(Settings { version, synchronous_commit, fsync, encoding, in_recovery })
}
