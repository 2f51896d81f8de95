//! One API instance of a region whose store several instances share.
//!
//! At each moment an instance is one of three:
//!
//! | it is | when | and answers |
//! |---|---|---|
//! | the holder | it won the store's lock | everything: it is the region (writer, replication, votes) |
//! | a reader | another one holds the store | reads, from committed rows of the very moment; forwards the rest to the holder |
//! | down | the database cannot be used | `store_unavailable`, with the reason; tries again by itself |
//!
//! A holder whose store fails, or that lost its lock, ends the region in this process, and begins again as a candidate:
//! what it does not know (did the last commit happen?) it reads from the store before it goes on. The rules of taking
//! over are in [`store::postgres`](crate::store::postgres).

mod down;
mod forward;
mod front;
mod lead;
mod standby;

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::limits::{STORE_HOLDER_SILENCE, STORE_LOCK_POLL};
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::serve::serve;
use tokio_util::sync::CancellationToken;

use self::front::Front;
use self::standby::Standby;
use crate::config::{RegionConfig, StoreConfig};
use crate::run::RunError;
use crate::store::postgres::{Attempt, Candidate, Hold, Server};
use crate::store::{Identity, StoreError};

/// Pause before a database that could not be used is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// A holder is ended after it was found silent twice, this far apart: after a stall of the database itself it must have
/// had the chance to say that it lives.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// The seams of an instance.
pub struct InstanceDeps {
    /// The network.
    pub net: SharedNet,
    /// Wall and boot time.
    pub clock: SharedClock,
}

/// Runs an instance until `shutdown`. A database that is down, full or slow does not end it.
///
/// # Errors
/// A configuration or a store that a person has to mend (another region's, a newer schema), and a socket that failed.
pub async fn run_instance(
    deps: InstanceDeps,
    config: RegionConfig,
    listener: Listener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.check()?;
    let StoreConfig::Postgres { url, schema } = &config.store else {
        let reason = "several instances can share a PostgreSQL store only".to_owned();
        let remedy = "give the region a store of kind postgres".to_owned();
        return Err(StoreError::Unusable { path: config.name().to_owned(), reason, remedy }.into());
    };
    let life = life(&config, deps.clock.wall_ns());
    let stop = shutdown.child_token();
    let drained = CancellationToken::new();
    let instance = Instance {
        server: Server::new(url, schema, &life)?,
        schema: schema.clone(),
        client: HttpClient::new(deps.net),
        clock: deps.clock,
        front: Front::new(down::router(config.name(), "the region's database has not been reached yet")),
        stop: stop.clone(),
        drained: drained.clone(),
        config,
    };
    let serving = async {
        let served = serve(listener, instance.front.router(), stop.clone()).await;
        // Requests that were open have ended: now the region may.
        stop.cancel();
        drained.cancel();
        served
    };
    let working = async {
        let worked = instance.work().await;
        stop.cancel();
        worked
    };
    let (served, worked) = futures::join!(serving, working);
    worked?;
    Ok(served?)
}

/// A name that no other instance has, and none had before. It is short: PostgreSQL cuts the names of its clients at 63
/// bytes.
fn life(config: &RegionConfig, wall_ns: u64) -> String {
    let address = longhaul_core::digest::request_hash(config.advertised().as_bytes());
    format!("{}-{:016x}", config.region, address ^ wall_ns)
}

/// What one instance needs all its life.
struct Instance {
    config: RegionConfig,
    server: Server,
    schema: String,
    client: HttpClient,
    clock: SharedClock,
    front: Front,
    /// Told when the instance is to stop.
    stop: CancellationToken,
    /// Told when nobody asks it any more.
    drained: CancellationToken,
}

impl Instance {
    /// Goes from state to state until told to stop, or until only a person can help.
    async fn work(&self) -> Result<(), RunError> {
        let mut said = String::new();
        loop {
            let round = async {
                let candidate = self.connect().await?;
                match self.stand_by(candidate).await? {
                    Some(hold) => self.lead(hold).await,
                    None => Ok(()),
                }
            };
            match round.await {
                Ok(()) if self.stop.is_cancelled() => return Ok(()),
                Ok(()) => said.clear(),
                Err(RunError::Store(error)) if may_pass(&error) => {
                    let reason = error.to_string();
                    // Once per reason: it is tried again several times a second.
                    if said != reason {
                        tracing::warn!(reason, "this instance serves nothing until its store can be used again");
                    }
                    self.unavailable(&reason);
                    said = reason;
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn connect(&self) -> Result<Candidate, StoreError> {
        let identity =
            Identity { topology_fingerprint: self.config.topology_fingerprint.clone(), region: self.config.region };
        Candidate::connect(&self.server, &self.schema, &identity).await
    }

    /// Reads and forwards until this instance wins the store; `None` if it is told to stop before.
    async fn stand_by(&self, mut candidate: Candidate) -> Result<Option<Hold>, StoreError> {
        let mut standby: Option<Arc<Standby>> = None;
        let mut silent_since: Option<u64> = None;
        loop {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let holder = match candidate.attempt(self.config.advertised()).await? {
                Attempt::Won(hold) => {
                    if let Some(standby) = &standby {
                        standby.learn(hold.holder(self.config.advertised()));
                    }
                    tracing::info!(term = hold.term(), "this instance holds the region's store");
                    return Ok(Some(hold));
                }
                Attempt::Lost(again, holder) => {
                    candidate = again;
                    holder
                }
            };
            if holder.silent_for < STORE_HOLDER_SILENCE {
                silent_since = None;
            } else {
                let now_ns = self.clock.boot_ns();
                let since_ns = *silent_since.get_or_insert(now_ns);
                if now_ns.saturating_sub(since_ns) >= SECOND_LOOK.as_nanos() as u64 {
                    tracing::warn!(term = holder.term, "the holder of the store is silent; its sessions are ended");
                    candidate.evict(&holder).await?;
                    silent_since = None;
                }
            }
            if let Some(standby) = &standby {
                standby.learn(holder);
            } else {
                let reader = Standby::new(&self.config, &self.server, &self.client, &self.clock, holder);
                self.front.show(standby::router(&reader));
                standby = Some(reader);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(STORE_LOCK_POLL) => {}
            }
        }
    }
}

/// Whether waiting may help.
fn may_pass(error: &StoreError) -> bool {
    !matches!(error, StoreError::Unusable { .. })
}
