//! The schema: is it there, ours, and of a version that we know?

use longhaul_core::limits::STORE_DEADLINE;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Error, SqlSafeStr as _};

use super::error::{failed, lost, unusable};
use super::server::Server;
use crate::store::{Identity, StoreError};

/// Creates the schema where there is none, brings it up to date, and checks whose it is.
pub(super) async fn prepare(
    server: &Server,
    connection: &mut PgConnection,
    schema: &str,
    identity: &Identity,
) -> Result<(), StoreError> {
    let work = async {
        create(connection, schema).await.map_err(|error| failed(server.name(), &error))?;
        migrate(server, connection).await?;
        check_identity(server, connection, identity).await
    };
    match tokio::time::timeout(STORE_DEADLINE * 3, work).await {
        Ok(done) => done,
        Err(_) => Err(lost(server.name(), "its schema could not be prepared in time")),
    }
}

/// The name has been checked by the configuration: it needs no quotes.
async fn create(connection: &mut PgConnection, schema: &str) -> Result<(), Error> {
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_namespace WHERE nspname = $1")
        .bind(schema)
        .fetch_optional(&mut *connection)
        .await?;
    if found.is_some() {
        return Ok(());
    }
    let text = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    match sqlx::query(AssertSqlSafe(text)).execute(connection).await {
        // Two instances that start together may both create it; one of them is told so.
        Err(error) if super::error::is_refusal(&error) || is_duplicate(&error) => Ok(()),
        created => created.map(|_| ()),
    }
}

fn is_duplicate(error: &Error) -> bool {
    error.as_database_error().and_then(|said| said.code().map(|code| code == "42P06")).unwrap_or(false)
}

fn migrator() -> Migrator {
    let sql = include_str!("../../../migrations/postgres/0001_store.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "store".into(), MigrationType::Simple, sql, false)])
}

async fn migrate(server: &Server, connection: &mut PgConnection) -> Result<(), StoreError> {
    match migrator().run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(failed(server.name(), &error))
        }
        Err(MigrateError::VersionMissing(version)) => {
            let reason = format!("it has schema {version}, which is newer than this program");
            Err(unusable(server.name(), reason, "start the version of longhaul that wrote it, or a newer one"))
        }
        Err(error) => {
            let remedy = "give the region another schema, or drop this one so that it is built again from the others";
            Err(unusable(server.name(), format!("its schema is not ours: {error}"), remedy))
        }
    }
}

async fn check_identity(server: &Server, connection: &mut PgConnection, identity: &Identity) -> Result<(), StoreError> {
    let kept: Result<(String, i64), Error> = async {
        sqlx::query("INSERT INTO identity VALUES (true, $1, $2) ON CONFLICT DO NOTHING")
            .bind(identity.topology_fingerprint.clone())
            .bind(i64::from(identity.region.0))
            .execute(&mut *connection)
            .await?;
        sqlx::query_as("SELECT topology_fingerprint, region FROM identity").fetch_one(connection).await
    }
    .await;
    let (fingerprint, region) = kept.map_err(|error| failed(server.name(), &error))?;
    let remedy = "give each region of each topology a schema or a database of its own";
    if region != i64::from(identity.region.0) {
        return Err(unusable(
            server.name(),
            format!("it belongs to region {region}, not to {}", identity.region),
            remedy,
        ));
    }
    if fingerprint != identity.topology_fingerprint {
        let wanted = &identity.topology_fingerprint;
        return Err(unusable(server.name(), format!("it belongs to topology {fingerprint}, not to {wanted}"), remedy));
    }
    Ok(())
}
