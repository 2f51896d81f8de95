//! What all tasks of a region share. The writer task alone changes the log; what it publishes here is durable already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longhaul_core::digest::Digest;
use longhaul_core::gate;
use longhaul_core::ids::{Epoch, RegionId, Timeline};
use longhaul_core::operation::TraceContext;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::replication::apply::TopUp;
use longhaul_core::replication::{Position, Positions, durable_vector, visible_vector};
use longhaul_core::suspicion::{Attempts, SuspicionReport};
use longhaul_core::token::TokenKey;
use longhaul_core::vector::VersionVector;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::trace::TraceIds;
use longhaul_http::watch;
use longhaul_http::wire::regime::{ChangeStatus, Milestone};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::RegionConfig;
use crate::spans::Shipping;
use crate::store::Store;
use crate::writer::WriterHandle;

pub mod cache;
mod change_log;
pub mod counters;
pub mod directory;
pub mod log_tail;
pub mod peers;
pub mod tenure;
pub mod visibility;

use cache::RecordCache;
use change_log::ChangeLog;
use counters::{Counters, Timings};
use directory::Directory;
use log_tail::LogTail;
use peers::Peers;
pub use tenure::Tenure;
use visibility::Visibility;

/// The writer's digests per home, and the positions to which they belong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishedDigests {
    /// The positions.
    pub positions: Positions,
    /// Sums over the buckets of each home.
    pub homes: BTreeMap<RegionId, Digest>,
}

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// Whether this region may write although it was down: somebody must have said that nobody knows more of its log than
/// it does itself (a disk that was set back would otherwise number operations twice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnLog {
    /// Nobody has been asked yet: read-only.
    Unconfirmed,
    /// It is complete.
    Confirmed,
    /// A peer knows more of this timeline, or another history of it: the region needs a new incarnation.
    Foreign {
        /// The timeline.
        timeline: Timeline,
        /// How far the peer has it.
        peer_seq: u64,
    },
}

/// Why a region does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// The store is being read.
    Starting,
    /// Records that a removed tail had touched are being fetched again.
    Repairing,
    /// A snapshot is being merged.
    Snapshot,
    /// Sealed history is missing here: no writes; reads are as stale as any follower's.
    CatchingUp,
    /// The store is new, and too few of the other regions have said whether this region has lived before; or it has, and
    /// lost what it wrote: no writes, or it would number operations as it did in a life that it has forgotten.
    Introducing,
}

impl Blocker {
    /// One line for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Starting => "the store is being read",
            Self::Repairing => "records that a removed tail had touched are being fetched from the primary",
            Self::Snapshot => "a snapshot is being merged",
            Self::CatchingUp => "history before the present regime is still missing",
            Self::Introducing => {
                "the store is new or was set back, and the other regions have not yet said what this region wrote before; \
                 start them"
            }
        }
    }

    /// Whether reads stop as well as writes.
    pub const fn stops_reads(self) -> bool {
        !matches!(self, Self::CatchingUp | Self::Introducing)
    }
}

/// A region at work.
pub struct Region {
    /// The configuration.
    pub config: RegionConfig,
    /// Wall and boot time.
    pub clock: SharedClock,
    /// The store; only the writer changes it.
    pub store: SharedStore,
    /// Requests to peers, through the links.
    pub client: HttpClient,
    /// Every task of the region runs on it.
    pub tracker: TaskTracker,
    /// Told when the region is to stop.
    pub shutdown: CancellationToken,
    /// The writer task.
    pub writer: WriterHandle,
    /// Plain counters.
    pub counters: Counters,
    /// How long things take.
    pub timings: Timings,
    /// Writes on their way to peers whose traces are kept.
    pub shipping: Shipping,
    /// When sampled operations became visible here.
    pub visibility: Visibility,
    /// What is known of the peers.
    pub peers: Peers,
    /// Where each peer is dialled.
    pub directory: Directory,
    /// Records written lately.
    pub cache: RecordCache,
    /// Operations logged lately, for the streams.
    pub tail: LogTail,
    /// Authenticates session tokens.
    pub token_key: TokenKey,
    /// Draws trace and span ids.
    pub trace_ids: TraceIds,
    regime: watch::Sender<Arc<Regime>>,
    positions: watch::Sender<Arc<Positions>>,
    digests: Mutex<PublishedDigests>,
    own_log: watch::Sender<OwnLog>,
    unmerged: watch::Sender<BTreeSet<RegionId>>,
    blockers: watch::Sender<Vec<Blocker>>,
    promised: AtomicU64,
    pub(crate) snapshots_under_way: AtomicU64,
    suspicion: Mutex<SuspicionReport>,
    lease_until_ns: AtomicU64,
    /// The failovers that other regions have tried.
    attempts: Mutex<Attempts>,
    tenure: Arc<Tenure>,
    clock_blocked_ns: AtomicU64,
    top_up: Mutex<Option<TopUp>>,
    changes: ChangeLog,
    rng: Mutex<SmallRng>,
}

/// What a region is built from, besides its configuration.
pub struct Parts {
    /// Wall and boot time.
    pub clock: SharedClock,
    /// The store.
    pub store: SharedStore,
    /// Requests to peers.
    pub client: HttpClient,
    /// Told when the region is to stop.
    pub shutdown: CancellationToken,
    /// The writer task.
    pub writer: WriterHandle,
    /// The adopted regime.
    pub regime: Regime,
    /// What the store holds.
    pub positions: Positions,
    /// For how long this process may answer for the region.
    pub tenure: Arc<Tenure>,
}

impl Region {
    /// A region whose writer is not running yet.
    pub fn new(config: RegionConfig, parts: Parts) -> Self {
        // Every region draws its own ids although all are given one seed, and others in every life: an operation id that
        // comes again would be taken for a retry. The clock is a seam, so that a simulation still repeats itself.
        let seed = config.seed ^ (u64::from(config.region.0) << 48) ^ parts.clock.wall_ns().rotate_left(13);
        let token_key = TokenKey::new(config.session_secret.as_bytes());
        Self {
            clock: parts.clock,
            store: parts.store,
            client: parts.client,
            tracker: TaskTracker::new(),
            shutdown: parts.shutdown,
            writer: parts.writer,
            counters: Counters::default(),
            timings: Timings::default(),
            shipping: Shipping::default(),
            visibility: Visibility::new(config.visibility_sample),
            peers: Peers::new(config.others()),
            directory: Directory::new(&config.peers),
            cache: RecordCache::default(),
            tail: LogTail::default(),
            token_key,
            trace_ids: TraceIds::new(seed),
            promised: AtomicU64::new(parts.regime.epoch.0),
            regime: watch::Sender::new(Arc::new(parts.regime)),
            positions: watch::Sender::new(Arc::new(parts.positions)),
            digests: Mutex::new(PublishedDigests::default()),
            own_log: watch::Sender::new(OwnLog::Unconfirmed),
            unmerged: watch::Sender::new(BTreeSet::new()),
            blockers: watch::Sender::new(vec![Blocker::Starting]),
            snapshots_under_way: AtomicU64::new(0),
            suspicion: Mutex::new(SuspicionReport::default()),
            lease_until_ns: AtomicU64::new(0),
            attempts: Mutex::default(),
            tenure: parts.tenure,
            clock_blocked_ns: AtomicU64::new(0),
            top_up: Mutex::new(None),
            changes: ChangeLog::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(seed.rotate_left(17))),
            config,
        }
    }

    /// This region's number.
    pub fn id(&self) -> RegionId {
        self.config.region
    }

    /// The adopted regime; durable.
    pub fn regime(&self) -> Arc<Regime> {
        Arc::clone(&self.regime.borrow())
    }

    /// Wakes on every newly adopted regime.
    pub fn watch_regime(&self) -> watch::Receiver<Arc<Regime>> {
        self.regime.subscribe()
    }

    /// The timeline under which this region writes now.
    pub fn own_timeline(&self) -> Timeline {
        own_timeline(&self.regime(), self.id())
    }

    /// What is durable here, per timeline.
    pub fn positions(&self) -> Arc<Positions> {
        Arc::clone(&self.positions.borrow())
    }

    /// Wakes on every commit.
    pub fn watch_positions(&self) -> watch::Receiver<Arc<Positions>> {
        self.positions.subscribe()
    }

    /// One timeline's position.
    pub fn position(&self, timeline: Timeline) -> Position {
        self.positions.borrow().get(&timeline).copied().unwrap_or(Position::START)
    }

    /// Waits until everything in `vector` is durable here; false if `deadline` passes first.
    pub async fn await_durable(&self, vector: &VersionVector, deadline: Duration) -> bool {
        self.await_positions(deadline, |positions| durable_vector(positions).dominates(vector)).await
    }

    /// Waits until everything in `vector` is visible to readers here; false if `deadline` passes first.
    pub async fn await_visible(&self, vector: &VersionVector, deadline: Duration) -> bool {
        self.await_positions(deadline, |positions| visible_vector(positions).dominates(vector)).await
    }

    async fn await_positions(&self, deadline: Duration, mut holds: impl FnMut(&Positions) -> bool) -> bool {
        let mut positions = self.watch_positions();
        let wait = positions.wait_for(|positions| holds(positions));
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }

    /// The digests as of the last commit.
    pub fn digests(&self) -> PublishedDigests {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish_digests(&self, positions: &Positions, homes: &BTreeMap<RegionId, Digest>) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.positions.clone_from(positions);
        digests.homes.clone_from(homes);
    }

    /// The greatest epoch that this region's voter has durably promised, or adopted.
    pub fn promised(&self) -> Epoch {
        Epoch(self.promised.load(Ordering::Acquire))
    }

    /// Tells that a promise is durable. It never sinks. From here on operations of older epochs are refused and writes
    /// accepted under them are not acknowledged any more.
    pub fn set_promised(&self, epoch: Epoch) {
        self.promised.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Sets until when the lease holds, boot nanoseconds; 0 takes it away.
    pub fn set_lease_until(&self, boot_ns: u64) {
        self.lease_until_ns.store(boot_ns, Ordering::Release);
    }

    /// Until when the lease holds, boot nanoseconds.
    pub fn lease_until(&self) -> u64 {
        self.lease_until_ns.load(Ordering::Acquire)
    }

    /// Whether the lease holds at this moment.
    pub fn lease_valid(&self) -> bool {
        let now_ns = self.clock.boot_ns();
        now_ns < self.lease_until() && self.tenure.holds(now_ns)
    }

    /// From when this process may answer for the region, boot nanoseconds.
    pub fn tenure_from(&self) -> u64 {
        self.tenure.from_ns()
    }

    /// Whether this process may answer for the region at this moment.
    pub fn holds_store(&self) -> bool {
        self.tenure.holds(self.clock.boot_ns())
    }

    /// Since when the wall clock has been out of bounds, boot nanoseconds, if it is.
    pub fn clock_blocked_since(&self) -> Option<u64> {
        Some(self.clock_blocked_ns.load(Ordering::Acquire)).filter(|since| *since > 0)
    }

    pub(crate) fn set_clock_blocked_since(&self, boot_ns: Option<u64>) {
        self.clock_blocked_ns.store(boot_ns.unwrap_or(0), Ordering::Release);
    }

    /// Whether what was accepted under `at_accept` may be acknowledged at this moment.
    pub fn still_acknowledges(&self, at_accept: &Regime) -> bool {
        let now = self.regime();
        // A promise fences before the new regime arrives: somebody else may be chosen primary at any moment.
        let fenced = now.mode == Mode::ActivePassive && self.promised() > now.epoch;
        gate::still_acknowledges(at_accept, &now, self.id(), self.lease_valid() && !fenced)
    }

    /// Whom this region does not hear; heartbeats carry it.
    pub fn suspicion(&self) -> SuspicionReport {
        self.suspicion.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets whom this region does not hear.
    pub fn set_suspicion(&self, report: SuspicionReport) {
        *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// A region asks for this one's promise, to fail over from this epoch.
    pub fn note_attempt(&self, epoch: Epoch, by: RegionId, boot_ns: u64) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).note(epoch, by, boot_ns);
    }

    /// The failovers that other regions have tried.
    pub fn attempts(&self) -> Attempts {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The exception to the epoch fence while this region completes an old primary's timeline.
    pub fn top_up(&self) -> Option<TopUp> {
        *self.top_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or ends the exception. It ends by itself when a newer regime is adopted.
    pub fn set_top_up(&self, top_up: Option<TopUp>) {
        *self.top_up.lock().unwrap_or_else(PoisonError::into_inner) = top_up;
    }

    /// Whether this region's own log is known to be complete.
    pub fn own_log(&self) -> OwnLog {
        *self.own_log.borrow()
    }

    /// Wakes when that becomes known.
    pub fn watch_own_log(&self) -> watch::Receiver<OwnLog> {
        self.own_log.subscribe()
    }

    pub(crate) fn set_own_log(&self, own_log: OwnLog) {
        self.own_log.send_if_modified(|known| std::mem::replace(known, own_log) != own_log);
    }

    /// Homes whose records this region has purged and not merged again: until then its vectors say nothing about their
    /// rows. Durable.
    pub fn unmerged_homes(&self) -> BTreeSet<RegionId> {
        self.unmerged.borrow().clone()
    }

    /// Waits until the records of these homes are merged again; false if `deadline` passes first.
    pub async fn await_merged(&self, homes: &BTreeSet<RegionId>, deadline: Duration) -> bool {
        let mut unmerged = self.unmerged.subscribe();
        let wait = unmerged.wait_for(|unmerged| unmerged.is_disjoint(homes));
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }

    pub(crate) fn publish_unmerged(&self, homes: BTreeSet<RegionId>) {
        self.unmerged.send_replace(homes);
    }

    /// What keeps this region from serving; empty if nothing does.
    pub fn blockers(&self) -> Vec<Blocker> {
        self.blockers.borrow().clone()
    }

    /// Wakes when that changes.
    pub fn watch_blockers(&self) -> watch::Receiver<Vec<Blocker>> {
        self.blockers.subscribe()
    }

    /// Whether the region serves reads.
    pub fn is_ready(&self) -> bool {
        self.holds_store() && !self.blockers.borrow().iter().any(|blocker| blocker.stops_reads())
    }

    /// Whether the region takes writes, as far as its own state goes.
    pub fn is_ready_to_write(&self) -> bool {
        self.holds_store() && self.blockers.borrow().is_empty() && self.own_log() == OwnLog::Confirmed
    }

    pub(crate) fn block(&self, blocker: Blocker, on: bool) {
        self.blockers.send_if_modified(|blockers| {
            let had = blockers.contains(&blocker);
            if on && !had {
                blockers.push(blocker);
            } else if !on {
                blockers.retain(|known| *known != blocker);
            }
            had != on
        });
    }

    pub(crate) fn publish_positions(&self, positions: Positions) {
        self.positions.send_replace(Arc::new(positions));
    }

    pub(crate) fn publish_regime(&self, regime: Arc<Regime>) {
        self.set_promised(regime.epoch);
        self.regime.send_replace(regime);
    }

    /// A random number below `bound`, from the seed.
    pub fn random_below(&self, bound: u64) -> u64 {
        use rand::Rng;
        if bound == 0 {
            return 0;
        }
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..bound)
    }

    /// A new UUID (version 4 layout), from the seed.
    pub fn random_uuid(&self) -> uuid::Uuid {
        use rand::RngCore;
        let mut bytes = [0; 16];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Notes how a change stands: replaces the entry of the same id, or adds one. Moments that others noted stay.
    pub fn record_change(&self, change: ChangeStatus) {
        self.changes.record(change);
    }

    /// Adds a moment to a change that another task drives; whether this region knows the change.
    pub fn witness_change(&self, id: &str, milestone: Milestone) -> bool {
        self.changes.witness(id, milestone)
    }

    /// Every change that this region drove or took part in, newest last.
    pub fn changes(&self) -> Vec<ChangeStatus> {
        self.changes.all()
    }

    /// Whether telemetry must keep quiet about records: nothing of them may leave their home.
    pub fn is_isolated(&self) -> bool {
        self.regime.borrow().mode == Mode::RegionalIsolation
    }

    /// The trace context of a step inside `parent`, or a new trace.
    pub fn trace_step(&self, parent: Option<TraceContext>) -> TraceContext {
        parent.map_or_else(|| self.trace_ids.root(), |parent| self.trace_ids.child(parent))
    }
}

/// The timeline under which `me` writes in this regime. A region that is no member writes nothing; it is shown with
/// incarnation 0.
pub fn own_timeline(regime: &Regime, me: RegionId) -> Timeline {
    regime.timeline_of(me).unwrap_or(Timeline { region: me, incarnation: longhaul_core::ids::Incarnation(0) })
}
