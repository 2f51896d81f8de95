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
                let acked = needed.map(|region| {
                    if Self::counts(regime, *region) { self.acked(regime, *region, timeline) } else { 0 }
                });
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
