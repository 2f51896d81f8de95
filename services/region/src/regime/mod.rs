//! The region's part in every change of the regime: votes, lease, suspicion, failover, transitions.
//!
//! # What this module gets from the rest of the region
//!
//! | need | where |
//! |---|---|
//! | the adopted regime, and news of it | [`Region::regime`], [`Region::watch_regime`] |
//! | adopt a chosen regime (truncates and quarantines beyond cuts, durable before visible) | `region.writer.adopt(regime)` |
//! | make voter state durable; load it at boot | `region.writer.persist(vec![(VOTER_KEY, bytes)])`, [`Seed::meta`] |
//! | publish a durable promise (fences batches and acknowledgements at once) | [`Region::set_promised`] |
//! | set or take away the lease | [`Region::set_lease_until`] |
//! | whether this region may acknowledge | [`Region::still_acknowledges`] |
//! | hold back writes, wait for those under way; open again | `region.writer.gate(scope)` |
//! | append a barrier | `region.writer.barrier(trace)` |
//! | wait until a vector is durable or visible here | [`Region::await_durable`], [`Region::await_visible`] |
//! | own positions, and news of them | [`Region::positions`], [`Region::watch_positions`] |
//! | last heartbeat of every peer: positions, epoch, promise, suspicion, age; and news of it | [`Region::peers`]: `states()`, `report()`, `watch()` |
//! | put a suspicion into the heartbeats | [`Region::set_suspicion`] |
//! | complete an old primary's timeline before a failover | [`Region::set_top_up`] |
//! | send to a peer's voter | `region.client` with the address in `region.directory` |
//! | this region needs a new incarnation (set-back disk) | [`Region::watch_own_log`]: `OwnLog::Foreign` |
//! | erase foreign records | `region.writer.purge()` |
//! | record how a change stands | [`Region::record_change`], [`Region::changes`] |
//! | ids and jitter from the seed | [`Region::random_uuid`], [`Region::random_below`] |
//! | tasks and shutdown | `region.tracker`, `region.shutdown` |
//!
//! # What is here
//!
//! | file | job |
//! |---|---|
//! | `voting` | this region's vote, durable before it answers |
//! | `attempt` | one attempt to read or change the register |
//! | `lease` | the primary's lease |
//! | `suspicion` | who is silent, and when this region proposes a failover |
//! | `failover` | fence, positions, choice, top-up, cut |
//! | `transitions` | drives planned transitions; `participant` does a region's part in them |
//! | `follow` | what every newly adopted regime demands of this region; rolls back transitions past their deadline |
//! | `conflicts` | what was found about records of other homes goes there before a purge |
//! | `membership` | joins again, and keeps the in-sync set |
//! | `changes` | how each change stands, for people and drills |
//! | `handlers`, `messages`, `peers` | the endpoints, their types, and the calls to the other regions |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::Regime;
use longhaul_core::transition::Barrier;
use longhaul_http::problem::Problem;
use utoipa_axum::router::OpenApiRouter;

use crate::state::Region;
use crate::writer::WriterGone;

mod attempt;
mod changes;
mod conflicts;
mod failover;
mod follow;
mod handlers;
mod lease;
mod membership;
mod messages;
mod participant;
mod peers;
mod suspicion;
mod transitions;
mod voting;

use changes::Changes;
use lease::LeaseHolder;
use peers::Peers;
use voting::Voting;

/// What the store held for this module when the region started.
#[derive(Debug, Clone, Default)]
pub struct Seed {
    /// Durable values by name.
    pub meta: BTreeMap<String, Bytes>,
}

/// A region's part in the regime.
pub struct RegimeRole {
    region: Arc<Region>,
    genesis: Regime,
    voting: Voting,
    peers: Peers,
    lease: LeaseHolder,
    changes: Changes,
    progress: Mutex<Progress>,
    /// One failover or transition of this region's own at a time.
    driving: Arc<tokio::sync::Mutex<()>>,
}

/// How far this region has come in transitions.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    barrier: Option<Barrier>,
    merged_generation: u32,
    purged_generation: u32,
}

impl RegimeRole {
    fn new(region: &Arc<Region>, seed: &Seed) -> Self {
        let purged_generation = seed.meta.get(follow::PURGED_KEY).and_then(|bytes| postcard::from_bytes(bytes).ok());
        Self {
            region: Arc::clone(region),
            genesis: region.config.genesis_regime(),
            voting: Voting::new(Arc::clone(region), &seed.meta),
            peers: Peers::new(Arc::clone(region)),
            lease: LeaseHolder::default(),
            changes: Changes::new(Arc::clone(region)),
            progress: Mutex::new(Progress { purged_generation: purged_generation.unwrap_or(0), ..Progress::default() }),
            driving: Arc::default(),
        }
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_progress(&self, set: impl FnOnce(&mut Progress)) {
        set(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adopts a regime that is known to be chosen.
    async fn adopt(&self, regime: &Regime) -> Result<(), WriterGone> {
        if regime.epoch > self.region.regime().epoch {
            self.region.writer.adopt(regime.clone()).await?;
        }
        Ok(())
    }

    /// Adopts a chosen regime and tells every other region at once, without waiting for them: those that cannot be
    /// reached learn it from a heartbeat later.
    async fn adopt_and_tell(self: &Arc<Self>, regime: &Regime) -> Result<(), WriterGone> {
        let news = regime.epoch > self.region.regime().epoch;
        self.adopt(regime).await?;
        if news {
            for peer in self.peers.others() {
                let (role, regime) = (Arc::clone(self), regime.clone());
                self.region.tracker.spawn(async move {
                    let deadline = role.peers.deadline();
                    let method = http::Method::PUT;
                    let told: Result<(), _> =
                        role.peers.send(method, peer, messages::ADOPT_PATH, &regime, deadline).await;
                    if let Err(error) = told {
                        tracing::debug!(peer = role.region.config.name_of(peer), %error, "cannot tell the regime");
                    }
                });
            }
        }
        Ok(())
    }
}

/// Starts this module's tasks on the region's tracker. Called once, after recovery and before the region serves.
pub fn start(region: &Arc<Region>, seed: &Seed) -> Arc<RegimeRole> {
    let role = Arc::new(RegimeRole::new(region, seed));
    let tracker = &region.tracker;
    tracker.spawn(follow::run(Arc::clone(&role)));
    tracker.spawn(lease::run(Arc::clone(&role)));
    tracker.spawn(suspicion::run(Arc::clone(&role)));
    tracker.spawn(membership::run(Arc::clone(&role)));
    role
}

/// This module's endpoints.
pub fn routes(role: &Arc<RegimeRole>) -> OpenApiRouter<Arc<Region>> {
    let router: Router<Arc<Region>> = handlers::router().with_state(Arc::clone(role));
    let guarded = router.layer(from_fn_with_state(Arc::clone(&role.region), answers_for_the_region));
    OpenApiRouter::from(guarded)
}

/// Middleware: a process that may not answer for its region gives no votes, leases or positions: another one may have
/// given others.
async fn answers_for_the_region(State(region): State<Arc<Region>>, request: Request, next: Next) -> Response {
    if region.holds_store() {
        return next.run(request).await;
    }
    Problem::new(ErrorCode::NotReady, "another instance of this region may hold its store; ask again shortly")
        .into_response()
}
