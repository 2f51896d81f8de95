//! The primary's side of its lease.
//!
//! A lease is a majority of voters' grants, the own voter's among them. Each grant counts from **before** its request
//! was sent and ends [`limits::LEASE_MARGIN`] early, so the primary always believes in it for less time than the voter.
//! Times are of the boot clock, which does not stop while the machine sleeps.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Epoch, RegionId};
use crate::limits;
use crate::regime::{Regime, majority_of};
use crate::voter::{LeaseRequest, Release};

/// What the primary of an epoch knows of its lease.
#[derive(Debug, Clone)]
pub struct Lease {
    me: RegionId,
    voters: BTreeSet<RegionId>,
    epoch: Epoch,
    /// When the newest granted request was sent to each voter.
    granted: BTreeMap<RegionId, u64>,
    released: bool,
    created_ns: u64,
}

impl Lease {
    /// No lease yet, for the primary `me` of this regime. Answers to requests from before now do not count.
    pub fn new(me: RegionId, regime: &Regime, now_boot_ns: u64) -> Self {
        Self {
            me,
            voters: regime.members.keys().copied().collect(),
            epoch: regime.epoch,
            granted: BTreeMap::new(),
            released: false,
            created_ns: now_boot_ns,
        }
    }

    /// The epoch for which it asks.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Moves to a later epoch that names the same primary. What was granted goes on: voters keep everybody else out
    /// until it has run out. A lease that was given back starts anew.
    pub fn advance(&mut self, epoch: Epoch, now_boot_ns: u64) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        if self.released {
            self.granted.clear();
            self.released = false;
            self.created_ns = now_boot_ns;
        }
    }

    /// What to send to every voter now (the own one included); `None` once it was given back.
    pub fn request(&self, now_boot_ns: u64) -> Option<LeaseRequest> {
        (!self.released).then_some(LeaseRequest { epoch: self.epoch, holder: self.me, sent_boot_ns: now_boot_ns })
    }

    /// Tells that a voter granted the request of that epoch that was sent at that time.
    pub fn granted(&mut self, voter: RegionId, epoch: Epoch, sent_boot_ns: u64) {
        if self.released || epoch > self.epoch || sent_boot_ns < self.created_ns || !self.voters.contains(&voter) {
            return;
        }
        let newest = self.granted.entry(voter).or_insert(sent_boot_ns);
        *newest = (*newest).max(sent_boot_ns);
    }

    /// Until when it holds, boot nanoseconds; 0 if it does not.
    pub fn until_boot_ns(&self) -> u64 {
        let Some(own) = self.granted.get(&self.me).filter(|_| !self.released) else {
            return 0;
        };
        let mut sent: Vec<u64> = self.granted.values().copied().collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        let Some(oldest_needed) = sent.get(majority_of(self.voters.len()) - 1) else {
            return 0;
        };
        let lasts = limits::LEASE.saturating_sub(limits::LEASE_MARGIN).as_nanos() as u64;
        oldest_needed.min(own).saturating_add(lasts)
    }

    /// Whether the primary may acknowledge now. To be asked at the acknowledgement, not only at acceptance.
    pub fn valid(&self, now_boot_ns: u64) -> bool {
        now_boot_ns < self.until_boot_ns()
    }

    /// Gives the lease of this epoch back, for good: from here on it is invalid until [`Lease::advance`]. Apply the
    /// release to the own voter first, durably, then send it: the own voter's refusal is what keeps a restart from
    /// taking the lease of this epoch again while old releases may still travel.
    pub fn release(&mut self) -> Release {
        self.released = true;
        Release { epoch: self.epoch, holder: self.me }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regime::{Durability, Mode};

    const MS: u64 = 1_000_000;

    fn lease() -> Lease {
        let regions = [1, 2, 3].map(RegionId);
        let regime = Regime::genesis(regions, Mode::ActivePassive, Some(RegionId(1)), Durability::Local);
        Lease::new(RegionId(1), &regime, 0)
    }

    #[test]
    fn it_counts_from_before_the_request_and_ends_a_margin_early() {
        let mut lease = lease();
        lease.granted(RegionId(1), Epoch(1), 10 * MS);
        assert!(!lease.valid(11 * MS), "one of three is no majority");
        lease.granted(RegionId(2), Epoch(1), 5 * MS);
        assert_eq!(lease.until_boot_ns(), (5 + 2000 - 100) * MS);
        assert!(lease.valid(1904 * MS) && !lease.valid(1905 * MS));
    }

    #[test]
    fn without_the_own_voter_there_is_none() {
        let mut lease = lease();
        lease.granted(RegionId(2), Epoch(1), 5 * MS);
        lease.granted(RegionId(3), Epoch(1), 5 * MS);
        assert!(!lease.valid(6 * MS));
        lease.granted(RegionId(9), Epoch(1), 5 * MS);
        lease.granted(RegionId(1), Epoch(1), MS);
        assert_eq!(lease.until_boot_ns(), 1901 * MS, "the own grant is needed, not only counted");
    }

    #[test]
    fn late_duplicates_do_not_shorten_it() {
        let mut lease = lease();
        for sent in [10, 5] {
            lease.granted(RegionId(1), Epoch(1), sent * MS);
            lease.granted(RegionId(3), Epoch(1), sent * MS);
        }
        assert_eq!(lease.until_boot_ns(), 1910 * MS);
    }

    #[test]
    fn once_given_back_it_starts_anew_in_the_next_epoch_only() {
        let mut lease = lease();
        lease.granted(RegionId(1), Epoch(1), MS);
        lease.granted(RegionId(2), Epoch(1), MS);
        assert_eq!(lease.release(), Release { epoch: Epoch(1), holder: RegionId(1) });
        lease.granted(RegionId(2), Epoch(1), 2 * MS);
        assert!(!lease.valid(3 * MS) && lease.request(3 * MS).is_none());
        lease.advance(Epoch(2), 4 * MS);
        lease.granted(RegionId(1), Epoch(1), 3 * MS);
        lease.granted(RegionId(2), Epoch(1), 3 * MS);
        assert!(!lease.valid(5 * MS), "grants from before the release are void");
        assert!(lease.request(5 * MS).is_some());
    }

    #[test]
    fn a_new_epoch_of_the_same_primary_keeps_what_was_granted() {
        let mut lease = lease();
        lease.granted(RegionId(1), Epoch(1), MS);
        lease.granted(RegionId(2), Epoch(1), MS);
        lease.advance(Epoch(4), 2 * MS);
        assert!(lease.valid(3 * MS));
    }
}
