//! A store in a schema of a PostgreSQL database, which several API instances of a region may share.
//!
//! One connection holds the store ([`hold`]), one writes, [`readers::READERS`] read beside it. Every connection runs
//! with `synchronous_commit = on`, so a commit that returned is on the server's disk; that, and `fsync`, is checked when
//! it opens.
//!
//! **Lost answers.** A commit whose answer did not come may have happened. The first failure of a write, unless it is a
//! plain refusal (a dot that is already there), therefore makes all later ones fail: the region ends this opening of the
//! store, opens it again under a new term, and learns from it what survived. What was on its way is over by then: the
//! new term waits for the old one's transactions, and later ones find their term gone.
//!
//! **Dropped futures.** Dropping [`Store::commit`] leaves a transaction whose end nobody knows; the writer task never
//! drops it.

mod commit;
mod error;
#[cfg(test)]
pub mod fixture;
mod hold;
mod open;
mod purge;
mod readers;
mod reads;
mod server;
mod sweep;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::limits::STORE_DEADLINE;
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};
use tokio::sync::Mutex;

use self::error::Failure;
pub use self::hold::{Attempt, Candidate, HOLD_USABLE, Hold, Holder};
use self::readers::Readers;
pub use self::server::Server;
pub use self::view::Look;
use super::needles::Needles;
use super::{
    Commit, ConflictRow, IdempotencyRow, Loaded, OperationId, QuarantineRow, Store, StoreError, StoreFuture, StoreStats,
};

/// Deadline of what walks over whole tables: purges, sweeps.
const LONG_DEADLINE: Duration = Duration::from_secs(120);

/// A region's store, open for one term.
pub struct PostgresStore {
    server: Server,
    term: i64,
    writer: Mutex<Writer>,
    readers: Readers,
}

/// The writing connection, or why there is none any more.
enum Writer {
    Open(PgConnection),
    Failed(String),
    Closed,
}

impl PostgresStore {
    /// Opens the store under a term, which another connection of this process holds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be used now.
    pub async fn open(server: &Server, term: i64) -> Result<Self, StoreError> {
        let writer = Mutex::new(Writer::Open(server.connect().await?));
        Ok(Self { server: server.clone(), term, writer, readers: Readers::new(server.clone()) })
    }

    /// Runs something that writes; its first failure is the last thing that this opening of the store does.
    async fn write<T>(
        &self,
        deadline: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().await;
        let connection = match &mut *writer {
            Writer::Open(connection) => connection,
            Writer::Failed(reason) => {
                return Err(error::lost(self.server.name(), format!("an earlier write failed: {reason}")));
            }
            Writer::Closed => return Err(error::lost(self.server.name(), "it has been closed")),
        };
        let failed = match tokio::time::timeout(deadline, work(connection)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Failure::Sql(error))) if error::is_refusal(&error) => {
                return Err(StoreError::Failed { path: self.server.name().to_owned(), reason: error.to_string() });
            }
            Ok(Err(Failure::Sql(error))) => error::failed(self.server.name(), &error),
            Ok(Err(Failure::Deposed)) => hold::deposed(&self.server, self.term),
            Err(_) => error::lost(
                self.server.name(),
                format!("a write did not end within {} s, so that its outcome is unknown", deadline.as_secs()),
            ),
        };
        *writer = Writer::Failed(failed.to_string());
        Err(failed)
    }

    async fn read<T>(
        &self,
        deadline: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let mut reader = self.readers.acquire().await?;
        let outcome = tokio::time::timeout(deadline, work(reader.connection())).await;
        let late = |_| Err(Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time")));
        reader.finish(outcome.unwrap_or_else(late))
    }
}

impl Store for PostgresStore {
    fn load(&self) -> StoreFuture<'_, Loaded> {
        Box::pin(self.read(STORE_DEADLINE, async |reader| reads::load(reader).await))
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, ()> {
        Box::pin(self.write(STORE_DEADLINE, async move |writer| commit::write(writer, self.term, commit).await))
    }

    fn records<'a>(&'a self, keys: &'a [RecordKey]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::records(reader, keys).await))
    }

    fn idempotency<'a>(&'a self, op_ids: &'a [OpId]) -> StoreFuture<'a, Vec<IdempotencyRow>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::idempotency(reader, op_ids).await))
    }

    fn log(
        &self,
        timeline: Timeline,
        after: u64,
        max_operations: usize,
        max_bytes: usize,
    ) -> StoreFuture<'_, Vec<Operation>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| {
            reads::log(reader, timeline, after, max_operations, max_bytes).await
        }))
    }

    fn scan<'a>(
        &'a self,
        home: Option<RegionId>,
        after: Option<&'a RecordKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Record>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::scan(reader, home, after, limit).await))
    }

    fn tombstones(&self, at_or_below: Version, limit: usize) -> StoreFuture<'_, Vec<Record>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::tombstones(reader, at_or_below, limit).await))
    }

    fn trim_log<'a>(&'a self, up_to: &'a [(Timeline, u64)]) -> StoreFuture<'a, ()> {
        Box::pin(self.write(LONG_DEADLINE, async move |writer| commit::trim_log(writer, self.term, up_to).await))
    }

    fn conflicts(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<ConflictRow>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::conflicts(reader, offset, limit).await))
    }

    fn quarantine(&self, offset: u64, limit: usize) -> StoreFuture<'_, Vec<QuarantineRow>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::quarantine(reader, offset, limit).await))
    }

    fn operation_ids(&self, after: Option<OpId>, limit: usize) -> StoreFuture<'_, Vec<OperationId>> {
        Box::pin(self.read(STORE_DEADLINE, async move |reader| reads::operation_ids(reader, after, limit).await))
    }

    fn purge<'a>(&'a self, home: RegionId, keep_positions: &'a [Timeline]) -> StoreFuture<'a, ()> {
        Box::pin(self.write(LONG_DEADLINE, async move |writer| {
            sqlx::query("SET statement_timeout = 0").execute(&mut *writer).await?;
            purge::remove_foreign(writer, self.term, home, keep_positions).await?;
            purge::rewrite(writer).await?;
            sqlx::query("RESET statement_timeout").execute(writer).await?;
            Ok(())
        }))
    }

    fn find_bytes<'a>(&'a self, needles: &'a [Bytes]) -> StoreFuture<'a, Vec<(usize, String)>> {
        Box::pin(self.read(LONG_DEADLINE, async move |reader| {
            sqlx::query("SET statement_timeout = 0").execute(&mut *reader).await?;
            let seen = sweep::search_rows(reader, &Needles::new(needles)).await?;
            sqlx::query("RESET statement_timeout").execute(reader).await?;
            Ok(seen.into_list())
        }))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        Box::pin(self.read(STORE_DEADLINE, async |reader| reads::stats(reader).await))
    }

    /// Nothing: the server checkpoints and vacuums by itself.
    fn maintain(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            let writer = std::mem::replace(&mut *self.writer.lock().await, Writer::Closed);
            if let Writer::Open(connection) = writer {
                let closing = tokio::time::timeout(STORE_DEADLINE, connection.close()).await;
                if !matches!(closing, Ok(Ok(()))) {
                    tracing::debug!("the connection to the store broke while it was closed; nothing was open on it");
                }
            }
            Ok(())
        })
    }
}
