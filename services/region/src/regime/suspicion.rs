//! Suspicion: who is silent, and when this region proposes a failover.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::ids::RegionId;
use longhaul_core::regime::{ChangeKind, Mode, Regime};
use longhaul_core::suspicion::{Detector, Standing, Verdict};
use tokio::time::MissedTickBehavior;

use super::RegimeRole;
use super::failover::{Command, fail_over};
use super::membership::is_set_back;
use crate::state::Region;

/// How often silence is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a failed failover rests before this region tries again.
const REST: Duration = Duration::from_secs(1);

/// Watches the primary.
pub(super) async fn run(role: Arc<RegimeRole>) {
    let region = Arc::clone(&role.region);
    let mut regimes = region.watch_regime();
    let timings = region.config.timings;
    let (silence, dwell) = (timings.suspect_after_ms, timings.failover_dwell_ms);
    let mut detector = Detector::new(region.id(), region.clock.boot_ns())
        .with_times(Duration::from_millis(silence), Duration::from_millis(dwell));
    let mut heard: BTreeMap<RegionId, u64> = BTreeMap::new();
    let mut suspected_since: Option<u64> = None;
    let mut lost = None;
    // The failover from which the dwell counts; each counts once.
    let mut noted = None;
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            changed = regimes.changed() => {
                if changed.is_err() {
                    return;
                }
                let change = regimes.borrow_and_update().change.clone();
                if change.kind == ChangeKind::Failover && noted != Some(change.id) {
                    noted = Some(change.id);
                    detector.failed_over(region.clock.boot_ns());
                }
            }
            _ = tick.tick() => {}
        }
        let regime = region.regime();
        let now = region.clock.boot_ns();
        listen(&region, &mut detector, &mut heard, now);
        detector.attempted(region.attempts());
        lost = role.voting.lost_now(lost);
        detector.set_back(is_set_back(&region, &regime, lost));
        let report = detector.report(&regime, now);
        let suspects = regime.primary.is_some_and(|primary| report.suspects.contains(&primary));
        region.set_suspicion(report);
        suspected_since = match suspected_since {
            _ if !suspects => None,
            None => Some(now),
            since => since,
        };
        if regime.mode != Mode::ActivePassive {
            continue;
        }
        let verdict = detector.verdict(&regime, &standings(&region, &regime), now);
        if verdict == Verdict::Propose {
            let command = Command {
                reason: "a majority of the regions does not hear the primary".to_owned(),
                suspected_boot_ns: suspected_since,
                prefer: None,
                allow_data_loss: false,
                id: region.random_uuid(),
            };
            let result = tokio::select! {
                biased;
                () = region.shutdown.cancelled() => return,
                result = fail_over(&role, command) => result,
            };
            match result {
                // Noted here: by the time that this task looks, another change may have followed.
                Ok(regime) if noted != Some(regime.change.id) => {
                    noted = Some(regime.change.id);
                    detector.failed_over(region.clock.boot_ns());
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the failover came to nothing");
                    tokio::select! {
                        biased;
                        () = region.shutdown.cancelled() => return,
                        () = tokio::time::sleep(REST) => {}
                    }
                }
            }
        }
    }
}

/// Feeds what came since the last look.
fn listen(region: &Region, detector: &mut Detector, heard: &mut BTreeMap<RegionId, u64>, now: u64) {
    for (peer, state) in region.peers.states() {
        let Some(report) = state.report else { continue };
        if heard.insert(peer, report.heard_boot_ns) == Some(report.heard_boot_ns) {
            continue;
        }
        let age = Duration::from_nanos(now.saturating_sub(report.heard_boot_ns));
        detector.heartbeat(peer, report.suspicion, age, now);
    }
}

/// How well the regions are placed to replace the primary.
fn standings(region: &Region, regime: &Regime) -> BTreeMap<RegionId, Standing> {
    let Some(timeline) = regime.primary.and_then(|primary| regime.timeline_of(primary)) else {
        return BTreeMap::new();
    };
    let mut standings = BTreeMap::new();
    standings.insert(region.id(), Standing { seq: region.position(timeline).seq, latency_rank: 0 });
    for (peer, state) in region.peers.states() {
        let seq = state.report.and_then(|report| report.positions.get(&timeline).map(|position| position.seq));
        standings.insert(peer, Standing { seq: seq.unwrap_or(0), latency_rank: 0 });
    }
    standings
}
