//! What a region does by itself: no-ops on an idle log, collection behind the frontier, the store's housekeeping, and
//! a slow recount of its own digests.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::clock::CLOCK_JUMP_MAX;
use longhaul_core::regime::{MemberState, Mode};
use tokio::time::{MissedTickBehavior, interval};

use crate::state::Region;
use crate::state::peers::PeerReport;

/// One home's digests are counted again this often.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the tasks.
pub fn start(region: &Arc<Region>) {
    let tasks: [Task; 4] = [
        Task { every_ms: region.config.timings.noop_ms, work: Work::Noop },
        Task { every_ms: region.config.timings.collect_ms, work: Work::Collect },
        Task { every_ms: region.config.timings.maintain_ms, work: Work::Maintain },
        Task { every_ms: RECOUNT_INTERVAL.as_millis() as u64, work: Work::Recount },
    ];
    for task in tasks {
        let owner = Arc::clone(region);
        region.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = owner.shutdown.cancelled() => {}
                () = repeat(&owner, task) => {}
            }
        });
    }
}

#[derive(Debug, Clone, Copy)]
struct Task {
    every_ms: u64,
    work: Work,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Noop,
    Collect,
    Maintain,
    Recount,
}

async fn repeat(region: &Arc<Region>, task: Task) {
    let mut ticks = interval(Duration::from_millis(task.every_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_seq = 0;
    let mut homes = region.config.regions.keys().copied().cycle();
    loop {
        ticks.tick().await;
        match task.work {
            Work::Noop => {
                last_seq = noop_if_idle(region, last_seq).await;
                confirm_clock(region).await;
            }
            Work::Collect => {
                if region.writer.collect().await.is_err() {
                    return;
                }
            }
            Work::Maintain => {
                if let Err(error) = region.store.maintain().await {
                    tracing::warn!(%error, "the store's housekeeping failed");
                }
            }
            Work::Recount => {
                let Some(home) = homes.next() else { return };
                match region.writer.check_digests(home).await {
                    Ok(true) => {}
                    Ok(false) => {
                        region.counters.divergence_alarms.add(1);
                        tracing::error!(
                            home = region.config.name_of(home),
                            "digests differ from the rows that they sum up"
                        );
                    }
                    Err(_) => return,
                }
            }
        }
    }
}

/// A no-op moves the stability frontier and gives a sample of the lag, while nobody writes.
async fn noop_if_idle(region: &Arc<Region>, last_seq: u64) -> u64 {
    let regime = region.regime();
    let me = region.id();
    let own = region.own_timeline();
    let seq = region.position(own).seq;
    let writes = match regime.mode {
        Mode::ActivePassive => regime.is_primary(me) && region.lease_valid(),
        Mode::ActiveActive | Mode::RegionalIsolation => true,
    };
    let active = regime.members.get(&me).is_some_and(|member| member.state == MemberState::Active);
    let sealed = regime.cuts.0.contains_key(&own);
    if seq != last_seq || !writes || !active || sealed || !region.is_ready_to_write() {
        return seq;
    }
    // Refused if the regime changed meanwhile: then somebody else keeps the frontier moving.
    region.writer.noop().await.map_or(seq, |dot| dot.seq)
}

/// Believes a wall clock that jumped forward once the others say, by what they sent since, that it is right now: it was
/// corrected. One that jumped away from theirs stays out of bounds.
async fn confirm_clock(region: &Arc<Region>) {
    let Some(since) = region.clock_blocked_since() else { return };
    let settled = since.saturating_add(2 * region.config.timings.heartbeat().as_nanos() as u64);
    let states = region.peers.states();
    let said_since = |report: &PeerReport| report.heard_boot_ns > settled;
    let fresh = states.values().filter(|state| state.report.as_ref().is_some_and(said_since));
    let mut offsets: Vec<u64> = fresh.filter_map(|state| Some(state.clock_offset_ns?.unsigned_abs())).collect();
    offsets.sort_unstable();
    // The middle one, the greater of two: a single peer that is wrong as well does not decide.
    let confirmed =
        offsets.get(offsets.len() / 2).is_some_and(|offset| u128::from(*offset) <= CLOCK_JUMP_MAX.as_nanos());
    if confirmed && region.writer.accept_clock_jump().await.is_ok() {
        tracing::info!("the wall clock was corrected, as the other regions confirm");
    }
}
