//! The boot rule: before its first write after a boot, a region asks whether anybody knows more of its log than it
//! does. A disk that was set back would otherwise give the same sequence numbers to other operations.

use longhaul_core::ids::Timeline;
use longhaul_core::operation::Chain;
use longhaul_core::replication::frame::{Heartbeat, passes_reports_on};

use crate::state::{OwnLog, Region};
use crate::store::StoreError;

/// Judges a peer's heartbeat: confirms this region's log, or finds that it is foreign.
pub(super) async fn check(region: &Region, heartbeat: &Heartbeat) -> Result<(), StoreError> {
    if region.own_log() != OwnLog::Unconfirmed || heartbeat.dataset_generation != region.regime().dataset_generation {
        return Ok(());
    }
    if !passes_reports_on(region.config.regions.len(), heartbeat.region, heartbeat.number) {
        // It says what the peer has of this log, and not what the peer has heard of it.
        return Ok(());
    }
    let own = region.own_timeline();
    let reported = heartbeat.reports.get(&region.id()).map_or(0, |report| report.vector.get(own));
    let theirs = heartbeat.positions.get(&own);
    let peer_seq = theirs.map_or(0, |position| position.seq).max(reported);
    let mine = region.position(own);
    let foreign = peer_seq > mine.seq
        || match theirs {
            Some(position) if position.seq > 0 => {
                chain_at(region, own, position.seq).await?.is_some_and(|chain| chain != position.chain)
            }
            _ => false,
        };
    if foreign {
        tracing::error!(timeline = %own, peer_seq, own_seq = mine.seq, "this region's disk was set back; it needs a new incarnation");
        region.set_own_log(OwnLog::Foreign { timeline: own, peer_seq });
    } else if region.own_timeline() == own {
        region.set_own_log(OwnLog::Confirmed);
    }
    Ok(())
}

/// The chain of the own log at a place; `None` if the log no longer reaches back that far.
async fn chain_at(region: &Region, timeline: Timeline, seq: u64) -> Result<Option<Chain>, StoreError> {
    let head = region.position(timeline);
    if head.seq == seq {
        return Ok(Some(head.chain));
    }
    let page = region.store.log(timeline, seq - 1, 1, 1).await?;
    Ok(page.first().filter(|operation| operation.dot.seq == seq).map(|operation| operation.chain))
}
