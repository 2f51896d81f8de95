//! Believing a corrected wall clock again.
//!
//! A forward jump of the wall clock stops a region's writes, because one bad minute must not raise everybody's hybrid
//! clock. A clock that was behind and is set right jumps forward, too. The other regions can tell the two apart: their
//! clocks come with every heartbeat, and where a majority of all regions agrees with the new time, it is believed.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::limits::CLOCK_OFFSET_MAX;
use tokio::time::{MissedTickBehavior, interval};

use crate::state::Region;
use crate::state::peers::PeerState;

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Wall clocks within this of each other agree, nanoseconds: half of what a version may be ahead.
const AGREE_NS: u64 = CLOCK_OFFSET_MAX.as_nanos() as u64 / 2;
/// A wall clock that moved less than this against the boot clock did not jump, nanoseconds.
const STILL_NS: u64 = 1_000_000;

/// Starts the watch.
pub(crate) fn start(region: &Arc<Region>) {
    let owner = Arc::clone(region);
    region.tracker.spawn(async move {
        tokio::select! {
            biased;
            () = owner.shutdown.cancelled() => {}
            () = watch(&owner) => {}
        }
    });
}

async fn watch(region: &Arc<Region>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whatever the writer's clock believes, it is told once the time has been moved and the others confirm it.
    let (mut last_ns, mut moved) = (base_ns(region), false);
    loop {
        looks.tick().await;
        let now_ns = base_ns(region);
        moved |= now_ns.abs_diff(last_ns) >= STILL_NS;
        last_ns = now_ns;
        if !moved || !confirmed(region, now_ns) {
            continue;
        }
        if region.writer.accept_clock_jump().await.is_err() {
            return;
        }
        moved = false;
    }
}

/// Wall clock minus boot clock: constant while the wall clock neither jumps nor drifts.
fn base_ns(region: &Region) -> i64 {
    let (wall_ns, boot_ns) = (region.clock.wall_ns(), region.clock.boot_ns());
    i64::try_from(wall_ns).unwrap_or(i64::MAX).saturating_sub_unsigned(boot_ns)
}

/// Whether a majority of all regions, this one among them and at least one other, agrees with the wall clock as it is.
fn confirmed(region: &Region, base_ns: i64) -> bool {
    let agreeing = region.peers.states().values().filter(|peer| agrees(peer, base_ns)).count();
    agreeing > 0 && agreeing + 1 > region.config.regions.len() / 2
}

fn agrees(peer: &PeerState, base_ns: i64) -> bool {
    let (Some(offset_ns), Some(sampled_base_ns)) = (peer.clock_offset_ns, peer.clock_base_ns) else { return false };
    // The sample is older than a jump since: what this clock has gained, the peer's has lost against it.
    let now_ns = offset_ns.saturating_sub(base_ns.saturating_sub(sampled_base_ns));
    peer.connected && now_ns.unsigned_abs() <= AGREE_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_sample_from_before_a_jump_counts_against_the_clock_as_it_is_now() {
        let sampled = |offset_ms: i64| PeerState {
            connected: true,
            clock_offset_ns: Some(offset_ms * MS),
            clock_base_ns: Some(0),
            ..PeerState::default()
        };
        assert!(agrees(&sampled(0), 0));
        assert!(!agrees(&sampled(0), 3_600_000 * MS), "an hour ahead since the sample");
        assert!(!agrees(&sampled(411), 0), "still behind");
        assert!(agrees(&sampled(411), 411 * MS), "set right since the sample");
        assert!(!agrees(&PeerState { connected: false, ..sampled(0) }, 0));
    }
}
