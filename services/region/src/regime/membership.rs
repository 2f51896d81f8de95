//! Membership: a region whose log was set back joins under a new incarnation, one that has caught up becomes a full
//! member again, and the primary keeps the in-sync set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::ids::{Epoch, RegionId, Timeline};
use longhaul_core::limits::BATCH_OPERATIONS_MAX;
use longhaul_core::regime::{Durability, MemberState, Mode, Regime};
use longhaul_core::replication::Positions;
use longhaul_core::transition::{Author, activate_member, bring_home, reassert, rejoin_member, set_in_sync};
use longhaul_core::vector::VersionVector;
use tokio::time::MissedTickBehavior;

use super::RegimeRole;
use super::messages::{SEEN_PATH, SeenView};
use super::participant::SharedRole;
use crate::replicator::fetch_own_home;
use crate::state::peers::PeerReport;
use crate::state::{OwnLog, Region};
use crate::writer::GateScope;

/// How often membership is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a joining region may take to reach what the others had when it asked.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long writes are held at most while a member is let into the in-sync set.
const LET_IN: Duration = Duration::from_secs(1);

/// Operations by which a follower may be behind when letting it into the in-sync set begins.
const CLOSE_OPERATIONS: u64 = BATCH_OPERATIONS_MAX as u64;

/// Looks after this region's membership until shutdown.
pub(super) async fn run(role: SharedRole) {
    let region = Arc::clone(&role.region);
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut unkept = UnkeptPromise::default();
    loop {
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let regime = region.regime();
        let patience_ns = 2_000_000 * region.config.timings.vote_deadline_ms;
        let overdue = unkept.is_overdue(&regime, region.promised(), patience_ns, region.clock.boot_ns());
        if regime.transition.is_some() {
            continue;
        }
        let work = look(&role, &regime, overdue);
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            result = work => {
                if let Err(error) = result {
                    tracing::warn!(%error, "membership is not changed yet");
                }
            }
        }
    }
}

/// An epoch that this region's voter has promised and that nobody has completed.
#[derive(Debug, Default)]
struct UnkeptPromise {
    /// The regime that was in force, the promise, and since when.
    since: Option<(Epoch, Epoch, u64)>,
}

impl UnkeptPromise {
    /// Whether the promise has stood for longer than whoever asked for it needs. Every change of the regime promises
    /// before it is chosen; whoever reasserts the old regime in between takes the epoch away from it.
    fn is_overdue(&mut self, regime: &Regime, promised: Epoch, patience_ns: u64, now_ns: u64) -> bool {
        if promised <= regime.epoch {
            self.since = None;
            return false;
        }
        let since = match self.since {
            Some((epoch, before, since)) if (epoch, before) == (regime.epoch, promised) => since,
            _ => now_ns,
        };
        self.since = Some((regime.epoch, promised, since));
        now_ns.saturating_sub(since) >= patience_ns
    }
}

async fn look(role: &SharedRole, regime: &Regime, promise_overdue: bool) -> Result<(), super::attempt::ChangeError> {
    let me = role.region.id();
    if let OwnLog::Foreign { timeline, .. } = role.region.own_log() {
        role.voting.lose(timeline).await?;
    }
    let lost = role.voting.lost().await;
    let next = match role.region.own_log() {
        _ if is_set_back(&role.region, regime, lost) => rejoin(role, regime).await,
        _ if regime.members.get(&me).is_some_and(|member| member.state == MemberState::Joining) => {
            activate(role, regime).await
        }
        _ if regime.is_primary(me) && regime.durability == Durability::Sync => in_sync(role, regime),
        // A promise fences streams in every mode. If whoever asked for it is gone, and there is no primary that would
        // notice, the promised epoch has to be completed by somebody.
        _ if regime.primary.is_none() && promise_overdue => {
            let author = author(role, "completes an epoch that was promised to an attempt that came to nothing");
            Some(reassert(regime, role.region.promised(), &author))
        }
        _ => None,
    };
    match next {
        Some(next) if !next.in_sync.is_subset(&regime.in_sync) => widen_in_sync(role, regime, next).await,
        Some(next) => role.replace(next, regime.epoch, None).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Whether this region's log was set back in the life that the regime gives it: a peer knows more of it than the region
/// does, or it is the life in which the voter `lost` its memory together with the store.
pub(super) fn is_set_back(region: &Region, regime: &Regime, lost: Option<Timeline>) -> bool {
    let own = regime.timeline_of(region.id());
    let foreign = match region.own_log() {
        OwnLog::Foreign { timeline, .. } => Some(timeline),
        OwnLog::Confirmed | OwnLog::Unconfirmed => None,
    };
    own.is_some() && (own == lost || own == foreign)
}

fn author(role: &RegimeRole, reason: &str) -> Author {
    Author { id: role.region.random_uuid(), by: role.region.id(), reason: reason.to_owned(), trace: None }
}

/// What the other regions have; none while one of the active ones does not answer and `all` is asked for.
async fn known(role: &RegimeRole, regime: &Regime, all: bool) -> Option<VersionVector> {
    let mut known = VersionVector::default();
    for (peer, answer) in role.peers.ask_all::<SeenView>(SEEN_PATH).await {
        match answer {
            Ok(seen) => known.merge(&seen.applied),
            Err(_) if all && regime.is_active(peer) => return None,
            Err(_) => {}
        }
    }
    Some(known)
}

async fn rejoin(role: &RegimeRole, regime: &Regime) -> Option<Regime> {
    let known = known(role, regime, true).await?;
    rejoin_member(
        regime,
        role.region.id(),
        &known,
        &author(role, "its log was set back; it joins under a new incarnation"),
    )
}

async fn activate(role: &RegimeRole, regime: &Regime) -> Option<Regime> {
    if regime.mode == Mode::RegionalIsolation {
        return return_home(role, regime).await;
    }
    let wanted = known(role, regime, true).await?;
    // What lies beyond a cut is no history and nobody will send it.
    let wanted = wanted
        .iter()
        .map(|(timeline, seq)| (timeline, regime.cuts.0.get(&timeline).map_or(seq, |cut| seq.min(*cut))))
        .collect();
    // A later regime may have cut off what was asked for: it would never come.
    let mut regimes = role.region.watch_regime();
    let caught_up = tokio::select! {
        biased;
        _ = regimes.wait_for(|newest| newest.epoch > regime.epoch) => false,
        caught_up = role.region.await_visible(&wanted, CATCH_UP) => caught_up,
    };
    if !caught_up || !role.region.is_ready() {
        return None;
    }
    let me = role.region.id();
    if !regime.frozen_homes.contains(&me) {
        return activate_member(regime, me, &author(role, "it has caught up"));
    }
    // What it wrote in isolation is here alone. Until the others have it they would answer that there is no such record.
    let own = role.region.own_timeline();
    let head = role.region.position(own).seq;
    if !everybody_has(role, regime, own, head).await {
        return None;
    }
    bring_home(regime, me, head, &author(role, "the others have what it kept of its home"))
}

/// Whether every other active member shows a timeline up to `head`.
async fn everybody_has(role: &RegimeRole, regime: &Regime, timeline: Timeline, head: u64) -> bool {
    let answers = role.peers.ask_all::<SeenView>(SEEN_PATH).await;
    let has = |answer: &Result<SeenView, _>| answer.as_ref().is_ok_and(|seen| seen.applied.get(timeline) >= head);
    answers.iter().all(|(peer, answer)| !regime.is_active(*peer) || has(answer))
}

/// Lets members into the in-sync set. Writes are held for the two round trips that it takes: what the primary
/// acknowledged by the smaller set while the larger one was being chosen would be unknown to the new member, and a later
/// failover trusts any single member of the set.
async fn widen_in_sync(role: &SharedRole, regime: &Regime, next: Regime) -> Result<(), super::attempt::ChangeError> {
    let region = &role.region;
    let held = tokio::time::timeout(CATCH_UP, region.writer.gate(GateScope::All)).await;
    let result = match held {
        Ok(gate) => {
            gate?;
            let head = region.position(region.own_timeline()).seq;
            if await_members(region, &next, head).await {
                role.replace(next, regime.epoch, None).await.map(|_| ())
            } else {
                Ok(())
            }
        }
        Err(_) => Ok(()),
    };
    region.writer.gate(GateScope::Open).await?;
    result
}

/// Waits until every member of the set has this region's timeline up to `head`; false if that takes too long.
async fn await_members(region: &Region, next: &Regime, head: u64) -> bool {
    let timeline = region.own_timeline();
    let mut news = region.peers.watch();
    let wait = async {
        loop {
            news.borrow_and_update();
            let has = |peer: &RegionId| {
                let report = region.peers.report(*peer);
                report.is_some_and(|report| report.positions.get(&timeline).is_some_and(|at| at.seq >= head))
            };
            if next.in_sync.iter().all(has) {
                return true;
            }
            if news.changed().await.is_err() {
                return false;
            }
        }
    };
    tokio::time::timeout(LET_IN, wait).await.unwrap_or(false)
}

/// In isolation a region needs nothing but the records of its own home, and nothing is streamed. It merges what every
/// active member kept of them; only then may the others purge.
async fn return_home(role: &RegimeRole, regime: &Regime) -> Option<Regime> {
    let region = &role.region;
    if !region.is_ready() {
        // The records that a removed tail had touched go first: they would be taken for what the others kept.
        return None;
    }
    if regime.frozen_homes.contains(&region.id()) {
        for peer in regime.members.keys().copied().filter(|peer| *peer != region.id() && regime.is_active(*peer)) {
            if let Err(end) = fetch_own_home(region, peer).await {
                tracing::info!(peer = region.config.name_of(peer), reason = %end, "the own home is not complete yet");
                return None;
            }
        }
    }
    activate_member(regime, region.id(), &author(role, "it has what the others kept of its home"))
}

/// Leaves out members that are silent, so that the others can be acknowledged with, and those that say that their log was
/// set back, so that they can join again; lets those in that have everything.
fn in_sync(role: &RegimeRole, regime: &Regime) -> Option<Regime> {
    let region = &role.region;
    let head = region.position(region.own_timeline()).seq;
    let now = region.clock.boot_ns();
    let patience = region.config.timings.in_sync_timeout_ms.saturating_mul(1_000_000);
    let states = region.peers.states();
    let heard = |peer: &RegionId| {
        let report = states.get(peer).and_then(|state| state.report.as_ref());
        let is_whole = |report: &&PeerReport| !report.suspicion.suspects.contains(peer);
        report.filter(|report| now.saturating_sub(report.heard_boot_ns) < patience).filter(is_whole)
    };
    // Under steady writes nobody has the very last one at the moment of looking. Whoever is this close gets the rest while
    // writes are held for it ([`widen_in_sync`]), and is let in only once it has.
    let is_close = |positions: &Positions| {
        positions.get(&region.own_timeline()).is_some_and(|position| position.seq + CLOSE_OPERATIONS >= head)
    };
    let mut wanted: BTreeSet<RegionId> = regime.in_sync.iter().copied().filter(|peer| heard(peer).is_some()).collect();
    for peer in regime.followers().filter(|peer| regime.is_active(*peer)) {
        if heard(&peer).is_some_and(|report| is_close(&report.positions) && report.epoch == regime.epoch) {
            wanted.insert(peer);
        }
    }
    set_in_sync(regime, wanted, &author(role, "the in-sync set follows who answers"))
}
