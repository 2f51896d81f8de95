//! Which region's operations to pull from which peer. Normally each peer's own from itself; where a direct link is
//! dead, through a third region that has them. Operations are idempotent by sequence number, so that overlap while
//! switching does no harm.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{RegionId, Timeline};
use crate::limits::RELAY_AFTER;
use crate::vector::VersionVector;

/// Watches progress per timeline and plans the origins to want. Told the boot time (nanoseconds), never reads it.
#[derive(Debug, Clone)]
pub struct RelayTracker {
    me: RegionId,
    /// What each peer last said that it has.
    heads: BTreeMap<RegionId, VersionVector>,
    /// When the direct link last moved a timeline, or showed that nothing of it is missing.
    direct: BTreeMap<Timeline, u64>,
    /// Detours in use.
    detours: BTreeMap<RegionId, Detour>,
}

#[derive(Debug, Clone, Copy)]
struct Detour {
    via: RegionId,
    moved_at: u64,
}

impl RelayTracker {
    /// A tracker at the region `me`.
    pub const fn new(me: RegionId) -> Self {
        Self { me, heads: BTreeMap::new(), direct: BTreeMap::new(), detours: BTreeMap::new() }
    }

    /// Operations of `timeline` that were missing here arrived from `peer`.
    pub fn progress(&mut self, peer: RegionId, timeline: Timeline, boot_ns: u64) {
        if peer == timeline.region {
            self.direct.insert(timeline, boot_ns);
            self.detours.remove(&timeline.region);
        } else if let Some(detour) = self.detours.get_mut(&timeline.region).filter(|detour| detour.via == peer) {
            detour.moved_at = boot_ns;
        }
    }

    /// A heartbeat of `peer`, with what it durably has; `have` is what is held here.
    pub fn heads(&mut self, peer: RegionId, theirs: &VersionVector, have: &VersionVector, boot_ns: u64) {
        for (timeline, head) in theirs.iter().filter(|(timeline, _)| timeline.region == peer) {
            if have.get(timeline) >= head {
                self.direct.insert(timeline, boot_ns);
            }
        }
        self.heads.insert(peer, theirs.clone());
    }

    /// The stream to `peer` is gone: nothing can be fetched through it.
    pub fn disconnected(&mut self, peer: RegionId) {
        self.heads.remove(&peer);
        self.detours.retain(|_, detour| detour.via != peer);
    }

    /// The origins to want from each connected peer. A peer's own operations are always wanted from itself; another
    /// origin's, once a timeline of it made no direct progress for `RELAY_AFTER` while a peer has more of it than is
    /// held here. The detour goes through the peer that has most of it (the smallest number among equals), stays until
    /// the direct link makes progress, and moves on if it stalls itself.
    pub fn plan(&mut self, have: &VersionVector, boot_ns: u64) -> BTreeMap<RegionId, BTreeSet<RegionId>> {
        let mut wants: BTreeMap<RegionId, BTreeSet<RegionId>> =
            self.heads.keys().map(|peer| (*peer, BTreeSet::from([*peer]))).collect();
        for origin in self.starved(have, boot_ns) {
            let stalled = self.detours.get(&origin).filter(|detour| passed(detour.moved_at, boot_ns)).map(|d| d.via);
            if self.detours.contains_key(&origin) && stalled.is_none() {
                continue;
            }
            if let Some(via) = self.best(origin, have, stalled) {
                self.detours.insert(origin, Detour { via, moved_at: boot_ns });
            }
        }
        for (origin, detour) in &self.detours {
            if let Some(origins) = wants.get_mut(&detour.via) {
                origins.insert(*origin);
            }
        }
        wants
    }

    /// Origins of which a peer other than themselves has more than is held here, without direct progress.
    fn starved(&mut self, have: &VersionVector, boot_ns: u64) -> BTreeSet<RegionId> {
        let mut starved = BTreeSet::new();
        for (peer, theirs) in &self.heads {
            for (timeline, head) in theirs.iter() {
                if timeline.region == *peer || have.get(timeline) >= head {
                    continue;
                }
                // First seen missing now: the direct link gets its time.
                let since = *self.direct.entry(timeline).or_insert(boot_ns);
                if passed(since, boot_ns) {
                    starved.insert(timeline.region);
                }
            }
        }
        starved
    }

    /// The peer that is furthest ahead on the origin's timelines; another than `not` if there is one.
    fn best(&self, origin: RegionId, have: &VersionVector, not: Option<RegionId>) -> Option<RegionId> {
        let ahead = |theirs: &VersionVector| -> u64 {
            let missing = theirs.iter().filter(|(timeline, _)| timeline.region == origin);
            missing.map(|(timeline, head)| head.saturating_sub(have.get(timeline))).fold(0, u64::saturating_add)
        };
        let candidates = self.heads.iter().filter(|(peer, _)| **peer != origin && **peer != self.me);
        candidates
            .map(|(peer, theirs)| (ahead(theirs), *peer))
            .filter(|(ahead, _)| *ahead > 0)
            .max_by_key(|(ahead, peer)| (Some(*peer) != not, *ahead, std::cmp::Reverse(*peer)))
            .map(|(_, peer)| peer)
    }
}

fn passed(since_ns: u64, boot_ns: u64) -> bool {
    u128::from(boot_ns.saturating_sub(since_ns)) >= RELAY_AFTER.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DEAD: Timeline = Timeline::new(3, 1);

    fn vector(pairs: &[(u16, u64)]) -> VersionVector {
        pairs.iter().map(|(region, seq)| (Timeline::new(*region, 1), *seq)).collect()
    }

    fn wants(plan: &BTreeMap<RegionId, BTreeSet<RegionId>>, peer: u16) -> Vec<u16> {
        plan.get(&RegionId(peer)).map(|origins| origins.iter().map(|origin| origin.0).collect()).unwrap_or_default()
    }

    #[test]
    fn a_dead_link_is_replaced_after_its_time_and_taken_back_when_it_lives() {
        let mut tracker = RelayTracker::new(RegionId(1));
        let have = vector(&[(3, 5)]);
        tracker.heads(RegionId(2), &vector(&[(2, 0), (3, 9)]), &have, 0);
        assert_eq!(wants(&tracker.plan(&have, 0), 2), [2]);
        assert_eq!(wants(&tracker.plan(&have, SECOND), 2), [2]);
        assert_eq!(wants(&tracker.plan(&have, 2 * SECOND), 2), [2, 3]);
        let caught_up = vector(&[(3, 9)]);
        tracker.progress(RegionId(2), DEAD, 2 * SECOND);
        assert_eq!(wants(&tracker.plan(&caught_up, 20 * SECOND), 2), [2, 3], "it stays while the link is dead");
        tracker.progress(RegionId(3), DEAD, 21 * SECOND);
        assert_eq!(wants(&tracker.plan(&caught_up, 21 * SECOND), 2), [2]);
    }

    #[test]
    fn a_link_that_moves_or_misses_nothing_is_not_replaced() {
        let mut tracker = RelayTracker::new(RegionId(1));
        for second in 0..10 {
            let have = vector(&[(3, second)]);
            tracker.heads(RegionId(3), &vector(&[(3, second)]), &have, second * SECOND);
            tracker.heads(RegionId(2), &vector(&[(3, second + 1)]), &have, second * SECOND);
            assert_eq!(wants(&tracker.plan(&have, second * SECOND), 2), [2]);
        }
    }

    #[test]
    fn the_detour_goes_through_the_peer_that_has_most_and_moves_on_when_it_stalls() {
        let mut tracker = RelayTracker::new(RegionId(1));
        let have = vector(&[(3, 5)]);
        tracker.heads(RegionId(2), &vector(&[(3, 9)]), &have, 0);
        tracker.heads(RegionId(4), &vector(&[(3, 8)]), &have, 0);
        tracker.plan(&have, 0);
        let plan = tracker.plan(&have, 2 * SECOND);
        assert_eq!((wants(&plan, 2), wants(&plan, 4)), (vec![2, 3], vec![4]));
        let plan = tracker.plan(&have, 4 * SECOND);
        assert_eq!((wants(&plan, 2), wants(&plan, 4)), (vec![2], vec![3, 4]));
        tracker.disconnected(RegionId(4));
        assert_eq!(wants(&tracker.plan(&have, 4 * SECOND), 2), [2, 3]);
    }
}
