//! The connections that read beside the writer.
//!
//! Not `sqlx::Pool`: it keeps a detached task and answers a server that is gone by trying again until a timeout, while
//! a region wants to know at once. A connection that failed is dropped; the next read opens another one.

use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::server::Server;
use crate::store::StoreError;

/// How many reads run at once; more wait.
pub(super) const READERS: u32 = 4;

/// All reading connections.
pub(super) struct Readers {
    server: Server,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

/// One connection. It goes back only through [`Reader::finish`]: one that was dropped in the middle of a statement, or
/// whose statement failed, is closed.
pub(super) struct Reader<'a> {
    connection: PgConnection,
    readers: &'a Readers,
    _permit: SemaphorePermit<'a>,
}

impl Readers {
    pub(super) fn new(server: Server) -> Self {
        Self { server, permits: Semaphore::new(READERS as usize), idle: Mutex::new(Vec::new()) }
    }

    /// Waits for a connection, or opens one.
    pub(super) async fn acquire(&self) -> Result<Reader<'_>, StoreError> {
        let closed = |_| super::error::lost(self.server.name(), "it has been closed");
        let permit = self.permits.acquire().await.map_err(closed)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        Ok(Reader { connection, readers: self, _permit: permit })
    }

    /// Waits until nobody reads and closes.
    pub(super) async fn close(&self) {
        let nobody_reads = self.permits.acquire_many(READERS).await;
        self.permits.close();
        drop(nobody_reads);
        let connections = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in connections {
            // What is only read needs no goodbye.
            let _ = connection.close().await;
        }
    }
}

impl Reader<'_> {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives the connection back, if it served, and passes the outcome on.
    pub(super) fn finish<T>(self, outcome: Result<T, Error>) -> Result<T, StoreError> {
        match outcome {
            Ok(found) => {
                self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
                Ok(found)
            }
            Err(error) => Err(super::error::failed(self.readers.server.name(), &error)),
        }
    }
}
