//! What is known of the other regions: heartbeats, positions, promises, suspicions, clocks, and how their links stand.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use longhaul_core::ids::{Epoch, Incarnation, RegionId};
use longhaul_core::replication::frame::{Echo, Heartbeat};
use longhaul_core::replication::relay::RelayTracker;
use longhaul_core::replication::{MemberReport, Positions};
use longhaul_core::suspicion::SuspicionReport;
use longhaul_http::watch;

/// The last heartbeat of a peer, and when it came.
#[derive(Debug, Clone)]
pub struct PeerReport {
    /// When it came, boot nanoseconds.
    pub heard_boot_ns: u64,
    /// The peer's life.
    pub incarnation: Incarnation,
    /// The regime that it has adopted.
    pub epoch: Epoch,
    /// The epoch that it has promised.
    pub promised: Epoch,
    /// Everything that it durably has.
    pub positions: Positions,
    /// Whom it does not hear.
    pub suspicion: SuspicionReport,
}

/// How one peer stands.
#[derive(Debug, Clone, Default)]
pub struct PeerState {
    /// Its last heartbeat, over either stream.
    pub report: Option<PeerReport>,
    /// Whether the stream from it to here is open.
    pub connected: bool,
    /// Why the link stopped, if it did; one line.
    pub stopped: Option<String>,
    /// Estimated offset of its wall clock against this one, nanoseconds.
    pub clock_offset_ns: Option<i64>,
    /// Round trip, nanoseconds.
    pub round_trip_ns: Option<u64>,
    /// When this region first saw that it lacks operations of the peer's own timeline, boot nanoseconds; absent while
    /// nothing is missing.
    pub behind_since_ns: Option<u64>,
    /// Acceptance time of the last of its own operations that was applied here, wall nanoseconds at the origin.
    pub last_accepted_ns: u64,
}

/// All peers.
#[derive(Debug)]
pub struct Peers {
    inner: Mutex<Inner>,
    /// Counts heartbeats and state changes, for whoever waits for news.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    states: BTreeMap<RegionId, PeerState>,
    /// What the members durably have, as they said or others passed on.
    reports: BTreeMap<RegionId, MemberReport>,
    relay: Option<RelayTracker>,
}

impl Peers {
    /// Peers of which nothing is known.
    pub fn new(peers: impl Iterator<Item = RegionId>) -> Self {
        let states = peers.map(|peer| (peer, PeerState::default())).collect();
        Self { inner: Mutex::new(Inner { states, reports: BTreeMap::new(), relay: None }), news: watch::Sender::new(0) }
    }

    /// Wakes on every heartbeat and every change of a link.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Every peer as it stands.
    pub fn states(&self) -> BTreeMap<RegionId, PeerState> {
        self.lock().states.clone()
    }

    /// One peer's last heartbeat.
    pub fn report(&self, peer: RegionId) -> Option<PeerReport> {
        self.lock().states.get(&peer).and_then(|state| state.report.clone())
    }

    /// What the members durably have, as they said or others passed on.
    pub fn member_reports(&self) -> BTreeMap<RegionId, MemberReport> {
        self.lock().reports.clone()
    }

    /// Changes one peer's state.
    pub(crate) fn update(&self, peer: RegionId, change: impl FnOnce(&mut PeerState)) {
        if let Some(state) = self.lock().states.get_mut(&peer) {
            change(state);
        }
        self.news.send_modify(|news| *news += 1);
    }

    /// Runs with the relay plan of region `me`.
    pub(crate) fn with_relay<T>(&self, me: RegionId, run: impl FnOnce(&mut RelayTracker) -> T) -> T {
        let mut inner = self.lock();
        run(inner.relay.get_or_insert_with(|| RelayTracker::new(me)))
    }

    /// Takes a heartbeat that came at `boot_ns`.
    pub(crate) fn heard(&self, heartbeat: &Heartbeat, boot_ns: u64) {
        let report = PeerReport {
            heard_boot_ns: boot_ns,
            incarnation: heartbeat.incarnation,
            epoch: heartbeat.epoch,
            promised: heartbeat.promised,
            positions: heartbeat.positions.clone(),
            suspicion: heartbeat.suspicion.clone(),
        };
        let own = MemberReport::new(heartbeat.incarnation, heartbeat.dataset_generation, &heartbeat.positions);
        let mut inner = self.lock();
        let Some(state) = inner.states.get_mut(&heartbeat.region) else { return };
        state.report = Some(report);
        inner.merge_report(heartbeat.region, &own);
        for (region, passed_on) in &heartbeat.reports {
            inner.merge_report(*region, passed_on);
        }
        drop(inner);
        self.news.send_modify(|news| *news += 1);
    }

    /// Forgets what the members have (their vectors mean nothing after a purge).
    pub(crate) fn forget_reports(&self) {
        self.lock().reports.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn merge_report(&mut self, region: RegionId, report: &MemberReport) {
        match self.reports.get_mut(&region) {
            Some(known) => known.merge(report),
            None => {
                self.reports.insert(region, report.clone());
            }
        }
    }
}

/// Round trip and clock offset from an echo (Cristian, "Probabilistic clock synchronization", 1989): nanoseconds of
/// round trip, and by how much the peer's wall clock is ahead.
pub(crate) fn clock_sample(
    echo: Echo,
    sent_boot_ns: u64,
    now_boot_ns: u64,
    peer_wall_ns: u64,
    wall_ns: u64,
) -> (u64, i64) {
    let round_trip = now_boot_ns.saturating_sub(sent_boot_ns).saturating_sub(echo.held_ns);
    let peer_now = peer_wall_ns.saturating_add(round_trip / 2);
    (round_trip, peer_now.wrapping_sub(wall_ns) as i64)
}
