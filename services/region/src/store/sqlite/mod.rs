//! A store in a SQLite file, through sqlx.
//!
//! One connection writes, [`readers::READERS`] read beside it, one checkpoints. The journal is a write-ahead log with
//! `synchronous = FULL`, so a commit that returned is on the disk.
//!
//! **Dropped futures.** A statement runs on its connection's thread, whatever becomes of the future that waits for it.
//! Dropping [`Store::commit`] before it has sent `COMMIT` rolls everything back; dropping it later commits
//! everything, and only the answer is lost. Nothing is ever torn, and the next commit waits for the end of this one;
//! but whoever drops the future does not know which of the two it was, nor whether the disk failed. The writer task
//! therefore never drops it.
//!
//! **Failures.** After a failed write nobody knows what is on the disk, and a second flush may succeed without it. So
//! the first [`StoreError::Failed`] of a write, unless it is a plain refusal (a dot that is already there), makes all
//! later ones fail with it: the process must stop, and learn from the file what survived.

mod bulk;
mod checkpoint;
mod commit;
mod error;
mod open;
mod purge;
mod readers;
mod reads;
mod sweep;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use self::readers::{Reader, Readers};
use self::sweep::RawFiles;
use super::needles::Needles;
use super::{
    Commit, ConflictRow, IdempotencyRow, Identity, Loaded, OperationId, QuarantineRow, Store, StoreError, StoreFuture,
    StoreStats,
};

/// A region's store in one SQLite file (and its `-wal`, `-shm` and `-lock` beside it).
pub struct SqliteStore {
    path: PathBuf,
    writer: Mutex<Option<SqliteConnection>>,
    checkpointer: Mutex<Option<SqliteConnection>>,
    readers: Readers,
    failure: OnceLock<String>,
    // Fields are dropped in this order: the files after the connections, the lock last.
    files: Arc<RawFiles>,
    lock: File,
}

impl SqliteStore {
    /// Opens the store at `path`, or creates it there for `identity`. Its folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another process has it open, if it belongs to another topology or region, is no
    /// store of ours, is damaged, or has a newer schema; [`StoreError::Failed`] if the disk failed.
    pub async fn open(path: impl AsRef<Path>, identity: Identity) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let opened = open::open(&path, &identity).await?;
        let files = RawFiles::open(&path).map_err(|error| error::broken(&path, error.to_string()))?;
        Ok(Self {
            writer: Mutex::new(Some(opened.writer)),
            checkpointer: Mutex::new(Some(opened.checkpointer)),
            readers: Readers::new(opened.readers),
            failure: OnceLock::new(),
            files: Arc::new(files),
            lock: opened.lock,
            path,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The writing connection, unless a write has failed before.
    async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, StoreError> {
        let writer = self.writer.lock().await;
        if let Some(failure) = self.failure.get() {
            return Err(error::broken(&self.path, format!("an earlier write failed: {failure}")));
        }
        MutexGuard::try_map(writer, Option::as_mut).map_err(|_| error::failed(&self.path, &Error::PoolClosed))
    }

    async fn reader(&self) -> Result<Reader<'_>, StoreError> {
        self.readers.acquire().await.map_err(|error| error::failed(&self.path, &error))
    }

    fn read<T>(&self, outcome: Result<T, Error>) -> Result<T, StoreError> {
        outcome.map_err(|error| error::failed(&self.path, &error))
    }

    fn written<T>(&self, outcome: Result<T, Error>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            let failed = error::failed(&self.path, &error);
            if !error::is_refusal(&error) {
                // The first failure stays: it is the cause of the others.
                let _ = self.failure.set(error.to_string());
            }
            failed
        })
    }

    async fn erase(&self, home: RegionId, keep_positions: &[Timeline]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        self.written(purge::remove_foreign(&mut writer, home, keep_positions).await)?;
        // A reader would hold on to old pages in the write-ahead log.
        let _nobody_reads = self.read(self.readers.pause().await)?;
        // The pages that are rewritten next are those of the database file, so everything must be there first.
        self.written(purge::rewrite(&mut writer).await)?;
        if self.written(checkpoint::truncate(&mut writer).await)? {
            return Ok(());
        }
        Err(error::broken(&self.path, "another program reads it, so the old pages cannot be erased"))
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        if let Some(checkpointer) = self.checkpointer.lock().await.as_mut() {
            self.written(checkpoint::passive(checkpointer).await)?;
        }
        if self.files.log_bytes() > checkpoint::LOG_BYTES_MAX {
            let mut writer = self.writer().await?;
            // If somebody reads for long, the next round tries again.
            self.written(checkpoint::truncate(&mut writer).await)?;
        }
        Ok(())
    }

    async fn find(&self, needles: &[Bytes]) -> Result<Vec<(usize, String)>, StoreError> {
        let needles = Arc::new(Needles::new(needles));
        let mut seen = self.read(sweep::search_rows(self.reader().await?.connection(), &needles).await)?;
        let files = Arc::clone(&self.files);
        let raw = tokio::task::spawn_blocking(move || files.search(&needles)).await;
        let raw = raw.map_err(|error| error::broken(&self.path, error.to_string()))?;
        seen.merge(raw.map_err(|error| error::broken(&self.path, error.to_string()))?);
        Ok(seen.into_list())
    }

    /// Everything into the database file, then all connections; the writer's last, since only it can remove the
    /// write-ahead log.
    async fn shut(&self) -> Result<(), StoreError> {
        let Some(mut writer) = self.writer.lock().await.take() else { return Ok(()) };
        self.read(self.readers.close().await)?;
        if let Some(checkpointer) = self.checkpointer.lock().await.take() {
            self.read(checkpointer.close().await)?;
        }
        self.read(checkpoint::truncate(&mut writer).await)?;
        self.read(writer.close().await)?;
        self.lock.unlock().map_err(|error| error::broken(&self.path, error.to_string()))
    }
}

impl Store for SqliteStore {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    fn load(&self) -> StoreFuture<'_, Loaded> {
        Box::pin(async move { self.read(reads::load(self.reader().await?.connection()).await) })
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut writer = self.writer().await?;
            self.written(commit::write(&mut writer, commit).await)
        })
    }

    fn records<'a>(&'a self, keys: &'a [RecordKey]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move { self.read(reads::records(self.reader().await?.connection(), keys).await) })
    }

    fn idempotency<'a>(&'a self, op_ids: &'a [OpId]) -> StoreFuture<'a, Vec<IdempotencyRow>> {
        Box::pin(async move { self.read(reads::idempotency(self.reader().await?.connection(), op_ids).await) })
    }

    fn log(
        &self,
        timeline: Timeline,
        after: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> StoreFuture<'_, Vec<Operation>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            self.read(reads::log(reader.connection(), timeline, after, max_operations, max_bytes).await)
        })
    }

    fn scan<'a>(
        &'a self,
        home: Option<RegionId>,
        after: Option<&'a RecordKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Record>> {
        Box::pin(async move { self.read(reads::scan(self.reader().await?.connection(), home, after, limit).await) })
    }

    fn tombstones(&self, at_or_below: Version, limit: usize) -> StoreFuture<'_, Vec<Record>> {
        Box::pin(
            async move { self.read(reads::tombstones(self.reader().await?.connection(), at_or_below, limit).await) },
        )
    }

    fn trim_log<'a>(&'a self, up_to: &'a [(Timeline, u64)]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut writer = self.writer().await?;
            self.written(commit::trim_log(&mut writer, up_to).await)
        })
    }

    fn conflicts(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<ConflictRow>> {
        Box::pin(async move { self.read(reads::conflicts(self.reader().await?.connection(), offset, limit).await) })
    }

    fn quarantine(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<QuarantineRow>> {
        Box::pin(async move { self.read(reads::quarantine(self.reader().await?.connection(), offset, limit).await) })
    }

    fn operation_ids(&self, after: Option<OpId>, limit: usize) -> StoreFuture<'_, Vec<OperationId>> {
        Box::pin(async move { self.read(reads::operation_ids(self.reader().await?.connection(), after, limit).await) })
    }

    fn purge<'a>(&'a self, home: RegionId, keep_positions: &'a [Timeline]) -> StoreFuture<'a, ()> {
        Box::pin(self.erase(home, keep_positions))
    }

    fn find_bytes<'a>(&'a self, needles: &'a [Bytes]) -> StoreFuture<'a, Vec<(usize, String)>> {
        Box::pin(self.find(needles))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        Box::pin(async move {
            let stats = self.read(reads::stats(self.reader().await?.connection()).await)?;
            Ok(StoreStats { bytes: self.files.bytes(), ..stats })
        })
    }

    fn maintain(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.checkpoint())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.shut())
    }
}
