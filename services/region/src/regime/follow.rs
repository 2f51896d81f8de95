//! What every newly adopted regime demands of this region: the voter remembers it, gates open again, foreign records
//! are purged once isolation is stable. And the deadline: a transition that nobody ends is rolled back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{ChangeKind, Mode, Regime, Stage};
use longhaul_core::register::Intent;
use longhaul_core::transition::{purgeable_homes, rollback};

use uuid::Uuid;

use super::RegimeRole;
use super::conflicts::hand_over;
use super::messages::{SEEN_PATH, SeenView};
use super::participant::SharedRole;
use crate::writer::GateScope;

/// The durable name of the generation for which this region has purged.
pub(super) const PURGED_KEY: &str = "voter_purged_generation";

/// How much later than the coordinator, and than each other, regions roll a forgotten transition back.
const ROLLBACK_STAGGER: Duration = Duration::from_millis(1500);
/// How long a region that cannot read the register waits before it tries again.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the regime until shutdown.
pub(super) async fn run(role: SharedRole) {
    let region = Arc::clone(&role.region);
    let mut regimes = region.watch_regime();
    let begin = async {
        recall(&role).await;
        confirm(&role).await;
    };
    tokio::select! {
        biased;
        () = region.shutdown.cancelled() => return,
        () = begin => {}
    }
    let mut rollback_at: Option<(Uuid, tokio::time::Instant)> = None;
    let (mut obeyed, mut owes_purge) = (None, false);
    loop {
        let regime = regimes.borrow_and_update().clone();
        if obeyed != Some(regime.epoch) {
            owes_purge = tokio::select! {
                biased;
                () = region.shutdown.cancelled() => return,
                owes_purge = obey(&role, &regime) => owes_purge,
            };
            obeyed = Some(regime.epoch);
        }
        // Once per transition, not per stage: the deadline is that of the whole.
        let under_way = regime.transition.as_ref().map(|transition| transition.id);
        if rollback_at.map(|(id, _)| id) != under_way {
            rollback_at = deadline(&role, &regime).zip(under_way).map(|(at, id)| (id, at));
        }
        let overdue = async {
            match rollback_at {
                Some((_, at)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            changed = regimes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = purge(&role, &regime), if owes_purge => owes_purge = false,
            () = overdue => {
                let again = tokio::time::Instant::now() + ROLLBACK_STAGGER;
                rollback_at = under_way.map(|id| (id, again));
                roll_back(&role, &regime).await;
            }
        }
    }
}

/// A region without a memory of its votes asks the others until it has one.
async fn recall(role: &RegimeRole) {
    loop {
        match role.voting.recall(&role.genesis, &role.peers).await {
            Ok(true) => return,
            Ok(false) => tokio::time::sleep(RETRY / 5).await,
            Err(error) => {
                tracing::warn!(%error, "the voter cannot start");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Reads the register once after a start: the regime on disk may be an old one. Gives up after a while; heartbeats
/// bring the regime too.
async fn confirm(role: &SharedRole) {
    for _ in 0..3 {
        match role.change(Intent::Read).await {
            Ok(_) => return,
            Err(error) => tracing::info!(%error, "the regime cannot be confirmed yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Does what a newly adopted regime demands, but for the purge: answers whether that is due.
async fn obey(role: &RegimeRole, regime: &Regime) -> bool {
    let region = &role.region;
    if let Err(error) = role.voting.adopted(regime).await {
        tracing::warn!(%error, "the voter cannot note the regime");
    }
    let stage = regime.transition.as_ref().map(|transition| transition.stage);
    if !matches!(stage, Some(Stage::Draining | Stage::HomeOnly)) && region.writer.gate(GateScope::Open).await.is_err() {
        return false;
    }
    if regime.change.kind == ChangeKind::TransitionDone && regime.mode != Mode::ActivePassive {
        role.changes.witness(regime.change.id, "mode_switch", "activated", regime.change.trace);
    }
    purge_is_due(role, regime)
}

/// Whether what other homes own is to be erased: isolation is in force. Not while a home is frozen: the last copy of its
/// records may be here.
fn purge_is_due(role: &RegimeRole, regime: &Regime) -> bool {
    regime.mode == Mode::RegionalIsolation
        && regime.transition.is_none()
        && role.progress().purged_generation < regime.dataset_generation
        && regime.frozen_homes.iter().all(|home| *home == role.region.id())
        && !purgeable_homes(regime, role.region.id()).is_empty()
}

/// Whether every home has all of its timeline that is here. It made it, so it has it, unless it has lost its disk since:
/// then what is here may be the last copy.
async fn are_whole(homes: &BTreeSet<RegionId>, role: &RegimeRole, regime: &Regime) -> bool {
    let answers = role.peers.ask_all::<SeenView>(SEEN_PATH).await;
    homes.iter().all(|home| {
        let Some(timeline) = regime.timeline_of(*home) else { return true };
        let here = role.region.position(timeline).seq;
        let told = answers.iter().find(|(peer, _)| peer == home).and_then(|(_, answer)| answer.as_ref().ok());
        here == 0 || told.is_some_and(|seen| seen.applied.get(timeline) >= here)
    })
}

/// Erases what other homes own, once they have what was found here about conflicts of their records, and say at that
/// moment that they have all that they ever wrote. A switch into isolation has proved before that every home has its
/// records; one that has lost its disk since has not, and then these may be the last copies.
async fn purge(role: &RegimeRole, regime: &Regime) {
    let generation = regime.dataset_generation;
    let homes = purgeable_homes(regime, role.region.id());
    loop {
        // Before, so that what takes long is done once; after, since it may take long.
        if are_whole(&homes, role, regime).await {
            match hand_over(role, &homes).await {
                Ok(()) if are_whole(&homes, role, regime).await => break,
                Ok(()) => {}
                Err(error) => tracing::info!(%error, "foreign records are not purged yet"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    if let Err(error) = role.region.writer.purge().await {
        tracing::warn!(%error, "foreign records are not purged");
        return;
    }
    let bytes = Bytes::from(postcard::to_stdvec(&generation).unwrap_or_default());
    if role.region.writer.persist(vec![(PURGED_KEY.to_owned(), bytes)]).await.is_ok() {
        role.set_progress(|progress| progress.purged_generation = generation);
        if regime.change.kind == ChangeKind::TransitionDone {
            role.changes.witness(regime.change.id, "mode_switch", "purged", regime.change.trace);
        }
    }
}

/// When this region rolls the transition under way back, if nobody has ended it by then: the coordinator does so at the
/// deadline itself, the others one after the other later.
fn deadline(role: &RegimeRole, regime: &Regime) -> Option<tokio::time::Instant> {
    let transition = regime.transition.as_ref()?;
    let rank = regime.members.keys().position(|region| *region == role.region.id()).unwrap_or(0);
    let stagger = ROLLBACK_STAGGER * (u32::try_from(rank).unwrap_or(0) + 1);
    Some(tokio::time::Instant::now() + Duration::from_millis(transition.deadline_ms) + stagger)
}

async fn roll_back(role: &SharedRole, regime: &Regime) {
    let reason = "nobody ended the transition before its deadline; rolled back".to_owned();
    let Some(next) = rollback(regime, role.region.id(), reason) else { return };
    if let Err(error) = role.replace(next, regime.epoch, None).await {
        tracing::warn!(%error, "the transition is not rolled back yet");
    }
}
