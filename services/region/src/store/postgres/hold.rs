//! Which instance of a region writes.
//!
//! **The lock elects, the term fences.** A session-level advisory lock says who may become the holder; it goes when its
//! session ends, however that ends. But a process that lost its session does not know it yet, and one that was paused
//! may still have a commit on its way. So each change of the holder raises `holder.term`, and every transaction that
//! writes begins by locking the row **of its own term** ([`fence`]): it either ends before the next holder has read
//! anything, or finds its term gone and changes nothing. Source: Kleppmann, "How to do distributed locking", 2016: the
//! resource itself checks the token.
//!
//! **Reading needs the clock.** An answer that must be current (of a lease holder, of a voter) is not a transaction that
//! the database could fence. The holder therefore renews `seen_at` and answers only while its last renewal is younger
//! than [`STORE_HOLD`] by its own clock, measured from before it asked; and the next holder lets [`STORE_HOLD`] pass
//! since the last renewal that the database saw before it answers anything itself. Only clock rates matter: one
//! twentieth is left for their difference.

use std::time::Duration;

use longhaul_core::limits::{STORE_DEADLINE, STORE_HOLD};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};

use super::error::{Failure, failed, lost};
use super::open;
use super::server::{Server, application_name};
use crate::store::{Identity, StoreError};

/// First half of the advisory lock's key: "long". The second half is the schema's object id.
const LOCK_CLASS: i32 = 0x6c6f_6e67;

/// What a holder may use of [`STORE_HOLD`] by its own clock.
pub const HOLD_USABLE: Duration = STORE_HOLD.saturating_sub(STORE_HOLD.checked_div(20).expect("twenty is not zero"));

/// Who holds the store, as the database says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The fencing token; 0 before the first holder.
    pub term: i64,
    /// The instance.
    pub instance: String,
    /// Where the other instances reach it.
    pub address: String,
    /// How long ago it proved that it lives, by the server's clock.
    pub silent_for: Duration,
    /// Whether it gave the store up by itself.
    pub released: bool,
}

/// An instance that does not hold the store: one connection, which tries to lock it.
pub struct Candidate {
    server: Server,
    connection: PgConnection,
}

/// What became of an attempt to lock the store.
pub enum Attempt {
    /// This instance holds it now.
    Won(Hold),
    /// Another one does; the candidate goes on.
    Lost(Candidate, Holder),
}

impl Candidate {
    /// Connects; creates the schema if there is none, and checks that it is this region's.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the store is another region's, topology's or version's;
    /// [`StoreError::Unavailable`] if the database cannot be used now.
    pub async fn connect(server: &Server, schema: &str, identity: &Identity) -> Result<Self, StoreError> {
        let mut connection = server.connect().await?;
        open::prepare(server, &mut connection, schema, identity).await?;
        Ok(Self { server: server.clone(), connection })
    }

    /// Who holds the store.
    pub async fn holder(&mut self) -> Result<Holder, StoreError> {
        timed(&self.server, holder(&mut self.connection, "")).await
    }

    /// Tries to lock the store, and to become its holder. Waits for transactions of the last holder that are on their
    /// way; those that do not end within half the deadline are ended.
    pub async fn attempt(mut self, address: &str) -> Result<Attempt, StoreError> {
        let server = self.server.clone();
        if !timed(&server, try_lock(&mut self.connection)).await? {
            let holder = self.holder().await?;
            return Ok(Attempt::Lost(self, holder));
        }
        let mut claimed = claim(&mut self.connection, server.instance(), address).await;
        if claimed.as_ref().is_err_and(is_lock_timeout) {
            // A transaction that a paused holder left open: without its end nobody can go on.
            let holder = self.holder().await?;
            tracing::warn!("a transaction of the last holder of the store is in the way and is ended");
            self.evict(&holder).await?;
            claimed = claim(&mut self.connection, server.instance(), address).await;
        }
        let before = claimed.map_err(|error| failed(server.name(), &error))?;
        let settled = before.released || before.instance == server.instance() || before.term == 0;
        let wait = if settled { Duration::ZERO } else { STORE_HOLD.saturating_sub(before.silent_for) };
        Ok(Attempt::Won(Hold { term: before.term + 1, wait, server, connection: self.connection }))
    }

    /// Ends every session of an instance that has been silent for too long, so that its lock goes and nothing that it
    /// left open is in the way. Needs no more rights than the instances have: they share a role.
    pub async fn evict(&mut self, holder: &Holder) -> Result<(), StoreError> {
        let query = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()",
        )
        .bind(application_name(&holder.instance));
        timed(&self.server, query.execute(&mut self.connection)).await?;
        Ok(())
    }
}

/// The right to write the store, for as long as its session lasts.
pub struct Hold {
    term: i64,
    wait: Duration,
    server: Server,
    connection: PgConnection,
}

impl Hold {
    /// The fencing token.
    pub fn term(&self) -> i64 {
        self.term
    }

    /// This holder, as the others will see it.
    pub fn holder(&self, address: &str) -> Holder {
        let instance = self.server.instance().to_owned();
        let silent_for = Duration::ZERO;
        Holder { term: self.term, instance, address: address.to_owned(), silent_for, released: false }
    }

    /// How long the last holder may still answer: this one answers nothing before.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Proves to the database that this instance lives, and learns that it still holds the store.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] if another instance does; [`StoreError::Unavailable`] if the session is gone.
    pub async fn renew(&mut self) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE holder SET seen_at = clock_timestamp() WHERE term = $1").bind(self.term);
        let renewed = timed(&self.server, query.execute(&mut self.connection)).await?;
        if renewed.rows_affected() == 1 { Ok(()) } else { Err(deposed(&self.server, self.term)) }
    }

    /// Gives the store up, so that the next holder need not wait.
    pub async fn release(mut self) {
        let query = sqlx::query("UPDATE holder SET released = true WHERE term = $1").bind(self.term);
        let released = timed(&self.server, query.execute(&mut self.connection)).await;
        if let Err(error) = released {
            tracing::debug!(%error, "the store could not be given up in order; the next holder waits");
        }
        // The session's end unlocks, too, but only some time after this side has closed it.
        if let Err(error) = timed(&self.server, unlock(&mut self.connection)).await {
            tracing::debug!(%error, "the store could not be unlocked; the session's end does it");
        }
        let _ = tokio::time::timeout(STORE_DEADLINE, self.connection.close()).await;
    }
}

/// First statement of every transaction that writes: locks the holder's row as long as the transaction lasts, if it is
/// still this term's. `FOR KEY SHARE` lets renewals pass and keeps the next holder waiting.
pub(super) async fn fence(connection: &mut PgConnection, term: i64) -> Result<(), Failure> {
    let held = sqlx::query("SELECT 1 FROM holder WHERE term = $1 FOR KEY SHARE").bind(term);
    if held.fetch_optional(connection).await?.is_some() { Ok(()) } else { Err(Failure::Deposed) }
}

/// The error of a writer whose term is over.
pub(super) fn deposed(server: &Server, term: i64) -> StoreError {
    StoreError::Deposed { path: server.name().to_owned(), term: term.cast_unsigned() }
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, current_schema()::regnamespace::oid::int)")
        .bind(LOCK_CLASS)
        .fetch_one(connection)
        .await
}

async fn unlock(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT pg_advisory_unlock($1, current_schema()::regnamespace::oid::int)")
        .bind(LOCK_CLASS)
        .fetch_one(connection)
        .await
}

fn is_lock_timeout(error: &Error) -> bool {
    error.as_database_error().and_then(|said| said.code().map(|code| code == "55P03")).unwrap_or(false)
}

/// Raises the term; tells who held the store before.
async fn claim(connection: &mut PgConnection, instance: &str, address: &str) -> Result<Holder, Error> {
    tokio::time::timeout(STORE_DEADLINE, claiming(connection, instance, address)).await.unwrap_or_else(|_| {
        Err(Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time")))
    })
}

async fn claiming(connection: &mut PgConnection, instance: &str, address: &str) -> Result<Holder, Error> {
    let mut transaction = connection.begin().await?;
    let patience = (STORE_DEADLINE / 4).as_millis();
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(patience.to_string())
        .execute(&mut *transaction)
        .await?;
    let before = holder(&mut transaction, " FOR UPDATE").await?;
    sqlx::query(
        "UPDATE holder SET term = term + 1, instance = $1, address = $2, seen_at = clock_timestamp(), released = false",
    )
    .bind(instance)
    .bind(address)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(before)
}

/// Reads the holder's row.
pub(super) async fn holder(connection: &mut PgConnection, locking: &'static str) -> Result<Holder, Error> {
    let text = format!(
        "SELECT term, instance, address, released, \
         extract(epoch FROM greatest(clock_timestamp() - seen_at, interval '0'))::float8 FROM holder{locking}"
    );
    let (term, instance, address, released, silent_s): (i64, String, String, bool, f64) =
        sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_one(connection).await?;
    let silent_for = Duration::try_from_secs_f64(silent_s).unwrap_or(Duration::MAX);
    Ok(Holder { term, instance, address, silent_for, released })
}

/// Runs a statement under the deadline of every statement.
async fn timed<T>(server: &Server, statement: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_DEADLINE, statement).await {
        Ok(outcome) => outcome.map_err(|error| failed(server.name(), &error)),
        Err(_) => Err(lost(server.name(), format!("it did not answer within {} s", STORE_DEADLINE.as_secs()))),
    }
}
