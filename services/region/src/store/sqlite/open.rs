//! Opening: is this file a store, ours, whole, and of a schema that we know?

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Error, SqlSafeStr as _};

use super::error::{REMEDY_DAMAGED, not_a_database, opening, unusable};
use super::readers::READERS;
use crate::store::{Identity, StoreError};

/// `PRAGMA application_id` of our files: "long".
const APPLICATION_ID: i64 = 0x6c6f_6e67;
/// Older versions can corrupt a database when a write-ahead log is reset while another connection commits.
/// Source: <https://sqlite.org/wal.html>, "The WAL-Reset Bug".
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How long a statement waits for a lock. Within the process the writer's own lock keeps the peace; this is for a
/// person who looks at the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages of the write-ahead log after which a commit checkpoints by itself (64 MB): the net under
/// [`super::SqliteStore`]'s `maintain`, for a writer that never pauses.
const AUTO_CHECKPOINT_PAGES: u32 = 16_384;
/// Page cache of the writer and of each reader, in KiB.
const WRITER_CACHE_KIB: u32 = 16 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;

/// Everything that is open.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) writer: SqliteConnection,
    pub(super) checkpointer: SqliteConnection,
    pub(super) readers: Vec<SqliteConnection>,
}

/// `path` with something appended to its last part.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens or creates.
pub(super) async fn open(path: &Path, identity: &Identity) -> Result<Opened, StoreError> {
    let lock = lock(path)?;
    check_header(path)?;
    let mut writer = connect(path, Access::Write).await?;
    check_is_ours(path, &mut writer).await?;
    check_is_whole(path, &mut writer).await?;
    enable_write_ahead_log(path, &mut writer).await?;
    migrate(path, &mut writer).await?;
    check_identity(path, &mut writer, identity).await?;
    let checkpointer = connect(path, Access::Write).await?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(connect(path, Access::Read).await?);
    }
    Ok(Opened { lock, writer, checkpointer, readers })
}

/// Two processes on one store would be two writers of one timeline. The system releases the lock when the process
/// ends, however it ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = beside(path, "-lock");
    let cannot = |error: io::Error| {
        unusable(path, format!("{}: {error}", beside.display()), "check that this user may write in its folder")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            let reason = format!("its folder {} cannot be made: {error}", folder.display());
            unusable(path, reason, "name a folder in which this user may write")
        })?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&beside).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(unusable(path, "another process has it open", "stop that process, or give the region another path"))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// Looks at the file before SQLite does. Source: <https://sqlite.org/fileformat2.html#the_database_header>.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let cannot = |error: io::Error| unusable(path, error.to_string(), "check that this user may read and write it");
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(error)),
    };
    let bytes = file.metadata().map_err(cannot)?.len();
    let log_bytes = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    if bytes == 0 && log_bytes == 0 {
        return Ok(());
    }
    if bytes == 0 {
        return Err(unusable(path, "it is empty, but it has a write-ahead log", REMEDY_DAMAGED));
    }
    let mut header = [0; 100];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Err(not_a_database(path));
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    // With a write-ahead log the header may be ahead of the file: a checkpoint that was cut short is continued.
    if log_bytes == 0 && pages * page_bytes > bytes {
        let reason = format!("it is truncated: {bytes} bytes of {}", pages * page_bytes);
        return Err(unusable(path, reason, REMEDY_DAMAGED));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Connects and checks what every connection must have: settings are per connection, and one that silently kept its
/// default would acknowledge what is not on the disk.
async fn connect(path: &Path, access: Access) -> Result<SqliteConnection, StoreError> {
    let cache_kib = if access == Access::Write { WRITER_CACHE_KIB } else { READER_CACHE_KIB };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(access == Access::Write)
        .read_only(access == Access::Read)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(false)
        .pragma("cache_size", format!("-{cache_kib}"))
        // Nothing of a record goes to a temporary file, where no purge would find it.
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", AUTO_CHECKPOINT_PAGES.to_string())
        .thread_name(|id| format!("store-{id}"))
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| opening(path, &error))?;
    let (synchronous, version) = settings(&mut connection).await.map_err(|error| opening(path, &error))?;
    if synchronous != 2 {
        let reason = format!("a connection has synchronous = {synchronous} instead of 2 (FULL)");
        return Err(unusable(path, reason, "use the SQLite that this program was built with"));
    }
    if parse_version(&version) < SQLITE_VERSION_MIN {
        let reason = format!("SQLite {version} can corrupt it");
        return Err(unusable(path, reason, "build with SQLite 3.51.3 or newer"));
    }
    Ok(connection)
}

async fn settings(connection: &mut SqliteConnection) -> Result<(i64, String), Error> {
    let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await?;
    let version = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    Ok((synchronous, version))
}

/// `3.51.3` as numbers; what cannot be read counts as 0.
fn parse_version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// A database of somebody else is left as it is.
async fn check_is_ours(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: Result<(i64, i64), Error> = async {
        let id = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
        // A creation that was cut short left at most the table of the migrator.
        let others = "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'";
        Ok((id, sqlx::query_scalar(others).fetch_one(connection).await?))
    }
    .await;
    match found.map_err(|error| opening(path, &error))? {
        (APPLICATION_ID, _) | (0, 0) => Ok(()),
        _ => Err(not_a_database(path)),
    }
}

/// Reads every page once: about a second per gigabyte, and better now than in the middle of a drill.
async fn check_is_whole(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let said: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|error| opening(path, &error))?;
    if said == "ok" {
        return Ok(());
    }
    Err(unusable(path, format!("it is damaged: {}", said.replace('\n', " ")), REMEDY_DAMAGED))
}

async fn enable_write_ahead_log(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL")
        .fetch_one(connection)
        .await
        .map_err(|error| opening(path, &error))?;
    if mode == "wal" {
        return Ok(());
    }
    let reason = format!("its file system allows only journal mode {mode}");
    Err(unusable(path, reason, "put it on a local file system with shared memory"))
}

fn migrator() -> Migrator {
    let sql = include_str!("../../../migrations/sqlite/0001_store.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "store".into(), MigrationType::Simple, sql, false)])
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    match migrator().run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Err(opening(path, &error)),
        Err(MigrateError::VersionMissing(version)) => {
            let reason = format!("it has schema {version}, which is newer than this program");
            Err(unusable(path, reason, "start the version of longhaul that wrote it, or a newer one"))
        }
        Err(error) => Err(unusable(path, format!("its schema is not ours: {error}"), REMEDY_DAMAGED)),
    }
}

async fn check_identity(path: &Path, connection: &mut SqliteConnection, identity: &Identity) -> Result<(), StoreError> {
    let kept: Result<(String, i64), Error> = async {
        sqlx::query("INSERT INTO identity VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
            .bind(identity.topology_fingerprint.clone())
            .bind(i64::from(identity.region.0))
            .execute(&mut *connection)
            .await?;
        sqlx::query_as("SELECT topology_fingerprint, region FROM identity").fetch_one(connection).await
    }
    .await;
    let (fingerprint, region) = kept.map_err(|error| opening(path, &error))?;
    let remedy = "give each region of each topology a path of its own";
    if region != i64::from(identity.region.0) {
        return Err(unusable(path, format!("it belongs to region {region}, not to {}", identity.region), remedy));
    }
    if fingerprint != identity.topology_fingerprint {
        let wanted = &identity.topology_fingerprint;
        return Err(unusable(path, format!("it belongs to topology {fingerprint}, not to {wanted}"), remedy));
    }
    Ok(())
}
