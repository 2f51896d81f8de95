//! When the primary may acknowledge: which of its operations satisfy the durability of the regime.

use std::collections::BTreeMap;

use crate::ids::{Epoch, RegionId, Timeline};
use crate::regime::{Durability, MemberState, Regime};
use crate::vector::VersionVector;

/// What the followers acknowledged as durable in one epoch.
///
/// Only acknowledgements of the regime's own epoch count: a follower that acknowledges in epoch `e` has not promised a
/// later one, and membership (with incarnations) is fixed within an epoch. That is what makes an acknowledgement of a
/// wiped follower's former life worthless. It never degrades: if the rule cannot be met, nothing is committed until the
/// regime changes.
#[derive(Debug, Clone)]
pub struct AckTracker {
    me: RegionId,
    epoch: Epoch,
    durable: BTreeMap<RegionId, VersionVector>,
}

impl AckTracker {
    /// An empty tracker at the region `me`.
    pub const fn new(me: RegionId) -> Self {
        Self { me, epoch: Epoch(0), durable: BTreeMap::new() }
    }

    /// Takes a follower's acknowledgement. Those of an older epoch are ignored; the first of a newer one forgets the
    /// rest. Within an epoch they are cumulative, so repetition and reordering do no harm. True if it told anything new.
    pub fn record(&mut self, region: RegionId, epoch: Epoch, durable: &VersionVector) -> bool {
        if region == self.me || epoch < self.epoch {
            return false;
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            self.durable.clear();
        }
        let known = self.durable.entry(region).or_default();
        let news = !known.dominates(durable);
        known.merge(durable);
        news
    }

    /// The last sequence number of `timeline` that satisfies the regime's durability, given the local durable `head`.
    /// It, and everything before it, may be made visible and acknowledged (while the lease holds).
    pub fn committed(&self, regime: &Regime, timeline: Timeline, head: u64) -> u64 {
        match regime.durability {
            Durability::Local => head,
            Durability::Semi(k) => {
                let mut acks: Vec<u64> = self.followers(regime).map(|f| self.acked(regime, f, timeline)).collect();
                acks.sort_unstable_by(|a, b| b.cmp(a));
                let kth = usize::from(k).checked_sub(1).and_then(|index| acks.get(index));
                kth.copied().unwrap_or(0).min(head)
            }
            Durability::Sync => {
                let needed = regime.in_sync.iter().filter(|region| **region != self.me);
                // A member of the set that may not acknowledge (evicted meanwhile) blocks: the regime must drop it.
                let acked =
                    needed.map(
                        |region| {
                            if Self::counts(regime, *region) { self.acked(regime, *region, timeline) } else { 0 }
                        },
                    );
                acked.min().unwrap_or(head).min(head)
            }
        }
    }

    /// How many followers hold `seq` of `timeline` durably in the regime's epoch: the durability that was achieved.
    pub fn holders(&self, regime: &Regime, timeline: Timeline, seq: u64) -> usize {
        self.followers(regime).filter(|follower| self.acked(regime, *follower, timeline) >= seq).count()
    }

    fn followers<'a>(&self, regime: &'a Regime) -> impl Iterator<Item = RegionId> + use<'a> {
        let me = self.me;
        regime.members.keys().copied().filter(move |region| *region != me && Self::counts(regime, *region))
    }

    /// A joining member is no candidate in a failover, so its copy protects nothing yet.
    fn counts(regime: &Regime, region: RegionId) -> bool {
        regime.members.get(&region).is_some_and(|member| member.state == MemberState::Active)
    }

    fn acked(&self, regime: &Regime, follower: RegionId, timeline: Timeline) -> u64 {
        if self.epoch != regime.epoch {
            return 0;
        }
        self.durable.get(&follower).map_or(0, |durable| durable.get(timeline))
    }
}

/// What a write that meets the regime's durability has achieved. With an empty in-sync set `sync` asks nobody: the write
/// is on the primary's disk alone, which is `local`.
pub fn achieved(regime: &Regime) -> Durability {
    match regime.durability {
        Durability::Sync if regime.in_sync.is_empty() => Durability::Local,
        durability => durability,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regime::Mode;

    const TIMELINE: Timeline = Timeline::new(1, 1);

    fn regime(durability: Durability) -> Regime {
        Regime::genesis((1..=3).map(RegionId), Mode::ActivePassive, Some(RegionId(1)), durability)
    }

    fn tracker(acks: &[(u16, u64, u64)]) -> AckTracker {
        let mut tracker = AckTracker::new(RegionId(1));
        for (region, epoch, seq) in acks {
            tracker.record(RegionId(*region), Epoch(*epoch), &VersionVector::from_iter([(TIMELINE, *seq)]));
        }
        tracker
    }

    fn committed(durability: Durability, acks: &[(u16, u64, u64)]) -> u64 {
        tracker(acks).committed(&regime(durability), TIMELINE, 10)
    }

    #[test]
    fn each_durability_waits_for_its_followers() {
        let acks = [(2, 1, 7), (3, 1, 4)];
        assert_eq!(committed(Durability::Local, &[]), 10);
        assert_eq!(committed(Durability::Semi(1), &acks), 7);
        assert_eq!(committed(Durability::Semi(2), &acks), 4);
        assert_eq!(committed(Durability::Semi(3), &acks), 0, "it never degrades");
        assert_eq!(committed(Durability::Sync, &acks), 4);
        assert_eq!(committed(Durability::Sync, &acks[..1]), 0);
        assert_eq!(committed(Durability::Semi(1), &[(2, 1, 99)]), 10, "never beyond the local head");
    }

    #[test]
    fn what_nobody_else_was_asked_for_is_not_synchronous() {
        let mut alone = regime(Durability::Sync);
        assert_eq!(achieved(&alone), Durability::Sync);
        alone.in_sync.clear();
        assert_eq!(AckTracker::new(RegionId(1)).committed(&alone, TIMELINE, 10), 10);
        assert_eq!(achieved(&alone), Durability::Local);
        assert_eq!(achieved(&regime(Durability::Semi(2))), Durability::Semi(2));
    }

    #[test]
    fn strangers_other_epochs_and_the_primary_itself_do_not_count() {
        assert_eq!(committed(Durability::Semi(1), &[(1, 1, 9), (4, 1, 9), (2, 0, 9)]), 0);
        assert_eq!(committed(Durability::Semi(1), &[(2, 2, 9)]), 0);
        let mut tracker = tracker(&[(2, 1, 9), (3, 2, 5), (2, 1, 9)]);
        let mut next = regime(Durability::Semi(1));
        next.epoch = Epoch(2);
        assert_eq!(tracker.committed(&next, TIMELINE, 10), 5);
        assert!(!tracker.record(RegionId(3), Epoch(2), &VersionVector::from_iter([(TIMELINE, 4)])));
        next.members.entry(RegionId(3)).and_modify(|member| member.state = MemberState::Joining);
        assert_eq!((tracker.committed(&next, TIMELINE, 10), tracker.holders(&next, TIMELINE, 5)), (0, 0));
    }
}
