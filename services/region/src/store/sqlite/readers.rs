//! The read-only connections.
//!
//! Not `sqlx::Pool`: a pool answers a connection that fails its checks by trying again until a timeout, keeps a
//! detached task, and cannot be held whole, which the purge needs. A connection to a local file does not go away.

use std::sync::{Mutex, PoisonError};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many reads run at once; more wait.
pub(super) const READERS: u32 = 4;

/// All read-only connections.
pub(super) struct Readers {
    permits: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

/// One connection, given back when dropped, also in the middle of a statement: the connection's thread ends it first.
pub(super) struct Reader<'a> {
    connection: Option<SqliteConnection>,
    idle: &'a Mutex<Vec<SqliteConnection>>,
    _permit: SemaphorePermit<'a>,
}

impl Readers {
    pub(super) fn new(connections: Vec<SqliteConnection>) -> Self {
        Self { permits: Semaphore::new(connections.len()), idle: Mutex::new(connections) }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<Reader<'_>, Error> {
        let permit = self.permits.acquire().await.map_err(|_| Error::PoolClosed)?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Reader { connection: Some(connection.ok_or(Error::PoolClosed)?), idle: &self.idle, _permit: permit })
    }

    /// Waits until nobody reads, and keeps readers waiting until the answer is dropped.
    pub(super) async fn pause(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.permits.acquire_many(READERS).await.map_err(|_| Error::PoolClosed)
    }

    /// Waits until nobody reads and closes.
    pub(super) async fn close(&self) -> Result<(), Error> {
        let _nobody_reads = self.pause().await?;
        self.permits.close();
        let connections = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in connections {
            connection.close().await?;
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("a reader holds its connection until it is dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}
