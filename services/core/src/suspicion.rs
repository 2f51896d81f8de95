//! Suspicion: when is the primary gone for a majority, who replaces it first, and when may nobody.
//!
//! Every time is of the boot clock, in nanoseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, RegionId};
use crate::limits;
use crate::regime::{Mode, Regime};

/// What a region says in its heartbeats about whom it does not hear.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SuspicionReport {
    /// The regime that it has adopted.
    pub epoch: Epoch,
    /// The members that it has not heard for [`limits::SUSPECT_AFTER`]; the primary if that one says of itself that it
    /// hears no majority, or names itself here; itself if its log was set back: as the primary it will never write again
    /// as what it is, as a follower it is no member of the in-sync set before it has joined again.
    pub suspects: BTreeSet<RegionId>,
}

/// What a region knows of a candidate, for the order in which regions try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// How much of the primary's timeline it has.
    pub seq: u64,
    /// Its rank by latency to the users, 0 is best.
    pub latency_rank: u32,
}

/// What follows from what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A majority is not known to suspect the primary, or there is none.
    Healthy,
    /// A majority suspects it, but a failover was made too recently.
    Dwell {
        /// When the next automatic one is allowed.
        until_boot_ns: u64,
    },
    /// A majority suspects it; others are better placed to replace it. Ask again then.
    Later {
        /// When it is this region's turn.
        at_boot_ns: u64,
    },
    /// A majority suspects it, and it is this region's turn to propose.
    Propose,
}

/// The attempts of other regions to fail over from one epoch: who, and when each was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    epoch: Epoch,
    first_ns: BTreeMap<RegionId, u64>,
}

impl Attempts {
    /// A region has asked for this one's promise, to fail over from this epoch. Only its first time counts: a region that
    /// tries again and again in vain keeps nobody else from trying.
    pub fn note(&mut self, epoch: Epoch, by: RegionId, at_boot_ns: u64) {
        if epoch > self.epoch {
            *self = Self { epoch, first_ns: BTreeMap::new() };
        }
        if epoch == self.epoch {
            self.first_ns.entry(by).or_insert(at_boot_ns);
        }
    }

    /// Until when those that try are left alone, boot nanoseconds: [`limits::PROPOSER_PATIENCE`] from when the first of
    /// them was seen, twice as long from the second, up to eight times from the fourth on. Where regions are many or far
    /// apart an attempt takes longer than the first patience; without more of it one would end the other for ever.
    fn left_alone_until_ns(&self) -> Option<u64> {
        let mut seen_ns: Vec<u64> = self.first_ns.values().copied().collect();
        seen_ns.sort_unstable();
        let patience_ns = |nth: usize| nanos(limits::PROPOSER_PATIENCE) << nth.min(3);
        seen_ns.into_iter().enumerate().map(|(nth, at_ns)| at_ns.saturating_add(patience_ns(nth))).max()
    }
}

#[derive(Debug, Clone)]
struct Heard {
    report: SuspicionReport,
    at_ns: u64,
    /// Since when each of the suspects has been in every report.
    since_ns: BTreeMap<RegionId, u64>,
}

/// The failure detector of one region.
#[derive(Debug, Clone)]
pub struct Detector {
    me: RegionId,
    started_ns: u64,
    last_heard: BTreeMap<RegionId, u64>,
    reports: BTreeMap<RegionId, Heard>,
    /// Since when a majority suspects the primary of this epoch.
    majority_since: Option<(Epoch, u64)>,
    attempts: Attempts,
    failovers: Vec<u64>,
    set_back: bool,
    suspect_after_ns: u64,
    dwell_ns: u64,
}

impl Detector {
    /// A detector that has heard nobody yet; silence counts from now.
    pub fn new(me: RegionId, now_boot_ns: u64) -> Self {
        Self {
            me,
            started_ns: now_boot_ns,
            last_heard: BTreeMap::new(),
            reports: BTreeMap::new(),
            majority_since: None,
            attempts: Attempts::default(),
            failovers: Vec::new(),
            set_back: false,
            suspect_after_ns: nanos(limits::SUSPECT_AFTER),
            dwell_ns: nanos(limits::FAILOVER_DWELL),
        }
    }

    /// The same with other times than [`limits::SUSPECT_AFTER`] and [`limits::FAILOVER_DWELL`].
    #[must_use]
    pub fn with_times(mut self, suspect_after: Duration, dwell: Duration) -> Self {
        self.suspect_after_ns = nanos(suspect_after);
        self.dwell_ns = nanos(dwell);
        self
    }

    /// A heartbeat of a peer arrived directly from it, with its report. What is reported out of order is kept by the
    /// time of its arrival. `age` is how long ago the report was made, as far as the receiver can tell (at least the
    /// one-way delay is unknown to it; 0 is right for a frame that was built when it was sent).
    pub fn heartbeat(&mut self, from: RegionId, report: SuspicionReport, age: Duration, now_boot_ns: u64) {
        let at_ns = now_boot_ns.saturating_sub(nanos(age));
        let last = self.last_heard.entry(from).or_insert(at_ns);
        *last = (*last).max(at_ns);
        if self.reports.get(&from).is_none_or(|heard| heard.at_ns <= at_ns) {
            let before = self.reports.remove(&from).map(|heard| heard.since_ns).unwrap_or_default();
            let since = |region: &RegionId| (*region, before.get(region).copied().unwrap_or(at_ns));
            let since_ns = report.suspects.iter().map(since).collect();
            self.reports.insert(from, Heard { report, at_ns, since_ns });
        }
    }

    /// Whether this region has found that its own log was set back (an empty or an older disk). A primary of which that
    /// is true has to be replaced, although everybody hears it: only then can it join again under a new incarnation.
    pub fn set_back(&mut self, set_back: bool) {
        self.set_back = set_back;
    }

    /// A regime was adopted that came from a failover: it starts the dwell.
    pub fn failed_over(&mut self, now_boot_ns: u64) {
        self.failovers.push(now_boot_ns);
        self.failovers.retain(|at| now_boot_ns.saturating_sub(*at) < HOUR_NS);
    }

    /// The attempts of other regions that this one has seen.
    pub fn attempted(&mut self, attempts: Attempts) {
        self.attempts = attempts;
    }

    /// What this region says in its own heartbeats.
    pub fn report(&self, regime: &Regime, now_boot_ns: u64) -> SuspicionReport {
        let mut suspects: BTreeSet<RegionId> =
            regime.participants().filter(|region| self.suspects(*region, now_boot_ns)).collect();
        suspects.extend(Some(self.me).filter(|_| self.set_back));
        suspects.extend(regime.primary.filter(|primary| self.counts_as_down(regime, *primary, now_boot_ns)));
        SuspicionReport { epoch: regime.epoch, suspects }
    }

    /// Whether a primary that is still heard is down for its users, by what it says of itself: that its log was set back,
    /// or for as long as silence takes that it hears no majority. Over links that are cut in one direction it can send,
    /// but gets no lease. What it says in its first heartbeats after a pause is older than the connection over which it
    /// says so.
    fn counts_as_down(&self, regime: &Regime, primary: RegionId, now_boot_ns: u64) -> bool {
        primary != self.me
            && self.reports.get(&primary).is_some_and(|heard| {
                let lasting = |since: u64| now_boot_ns.saturating_sub(since) >= self.suspect_after_ns;
                let unheard = |(region, since): &(&RegionId, &u64)| **region != primary && lasting(**since);
                let unheard = heard.since_ns.iter().filter(unheard).count();
                let set_back = heard.report.suspects.contains(&primary);
                self.is_fresh(heard, now_boot_ns)
                    && heard.report.epoch == regime.epoch
                    && (set_back || regime.members.len() - unheard < regime.majority())
            })
    }

    fn is_fresh(&self, heard: &Heard, now_boot_ns: u64) -> bool {
        now_boot_ns.saturating_sub(heard.at_ns) < self.suspect_after_ns
    }

    /// Whether this region has not heard a peer for too long.
    pub fn suspects(&self, region: RegionId, now_boot_ns: u64) -> bool {
        let last = self.last_heard.get(&region).copied().unwrap_or(self.started_ns);
        region != self.me && now_boot_ns.saturating_sub(last) >= self.suspect_after_ns
    }

    /// The voters (this region included) that do not hear the primary, by fresh reports of its very epoch.
    pub fn accusers(&self, regime: &Regime, now_boot_ns: u64) -> BTreeSet<RegionId> {
        let Some(primary) = regime.primary else {
            return BTreeSet::new();
        };
        let accuses = |region: RegionId| {
            if region == self.me {
                return self.suspects(primary, now_boot_ns) || self.counts_as_down(regime, primary, now_boot_ns);
            }
            self.reports.get(&region).is_some_and(|heard| {
                self.is_fresh(heard, now_boot_ns)
                    && heard.report.epoch == regime.epoch
                    && heard.report.suspects.contains(&primary)
            })
        };
        regime.members.keys().copied().filter(|region| *region != primary && accuses(*region)).collect()
    }

    /// What to do. `standings` holds what is known of the members' positions.
    ///
    /// A failover needs the suspicion of a majority of all voters, this one among them: in a partial partition, where a
    /// majority still hears the primary, operations travel through a third region and nobody fails over. Regions try
    /// one after the other, best placed first, [`limits::PROPOSER_STAGGER`] apart, and leave an attempt that they see
    /// [`limits::PROPOSER_PATIENCE`] to end, so that normally one tries. If it does not end, those that have not tried yet
    /// follow, again one after the other.
    pub fn verdict(&mut self, regime: &Regime, standings: &BTreeMap<RegionId, Standing>, now_boot_ns: u64) -> Verdict {
        let accusers = self.accusers(regime, now_boot_ns);
        let majority = accusers.contains(&self.me) && accusers.len() >= regime.majority();
        if regime.mode != Mode::ActivePassive || !regime.is_active(self.me) || !majority {
            self.majority_since = None;
            return Verdict::Healthy;
        }
        let since = match self.majority_since {
            Some((epoch, since)) if epoch == regime.epoch => since,
            _ => now_boot_ns,
        };
        self.majority_since = Some((regime.epoch, since));
        if let Some(until_boot_ns) = self.dwell_until(now_boot_ns) {
            return Verdict::Dwell { until_boot_ns };
        }
        let nobody = Attempts::default();
        let attempts = if self.attempts.epoch == regime.epoch { &self.attempts } else { &nobody };
        let better = self.better_placed(regime, standings, now_boot_ns);
        let turn_ns = in_turn(since, better.len());
        let untried = better.iter().filter(|region| !attempts.first_ns.contains_key(region)).count();
        let at_boot_ns = turn_ns.max(attempts.left_alone_until_ns().map_or(0, |until_ns| in_turn(until_ns, untried)));
        if now_boot_ns < at_boot_ns { Verdict::Later { at_boot_ns } } else { Verdict::Propose }
    }

    /// Until when no automatic failover is allowed, if so: [`limits::FAILOVER_DWELL`] after the last one, and at most
    /// [`limits::FAILOVERS_PER_HOUR`].
    pub fn dwell_until(&self, now_boot_ns: u64) -> Option<u64> {
        let after_last = self.failovers.last().map(|at| at.saturating_add(self.dwell_ns));
        let recent: Vec<u64> =
            self.failovers.iter().copied().filter(|at| now_boot_ns.saturating_sub(*at) < HOUR_NS).collect();
        let after_hour =
            recent.len().checked_sub(limits::FAILOVERS_PER_HOUR).map(|first| recent[first].saturating_add(HOUR_NS));
        after_last.max(after_hour).filter(|until| now_boot_ns < *until)
    }

    /// The members that this region hears and that are better placed than it.
    fn better_placed(
        &self,
        regime: &Regime,
        standings: &BTreeMap<RegionId, Standing>,
        now_boot_ns: u64,
    ) -> BTreeSet<RegionId> {
        let key = |region: RegionId| {
            let standing = standings.get(&region).copied().unwrap_or_default();
            (std::cmp::Reverse(standing.seq), standing.latency_rank, region)
        };
        let mine = key(self.me);
        let better = regime
            .followers()
            .filter(|region| *region != self.me && regime.is_active(*region))
            .filter(|region| !self.suspects(*region, now_boot_ns) && key(*region) < mine);
        better.collect()
    }
}

/// When it is the turn of a region that so many go before.
fn in_turn(from_ns: u64, before: usize) -> u64 {
    from_ns.saturating_add(nanos(limits::PROPOSER_STAGGER).saturating_mul(before as u64))
}

const HOUR_NS: u64 = 3600 * 1_000_000_000;

const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regime::Durability;

    const MS: u64 = 1_000_000;

    fn regime() -> Regime {
        Regime::genesis([1, 2, 3].map(RegionId), Mode::ActivePassive, Some(RegionId(1)), Durability::Local)
    }

    fn says(suspects: &[u16]) -> SuspicionReport {
        SuspicionReport { epoch: Epoch(1), suspects: suspects.iter().copied().map(RegionId).collect() }
    }

    /// Region `me` hears the other follower, which says this of the primary, for a while.
    fn follower(me: u16, other: u16, suspects: &[u16], until_ms: u64) -> Detector {
        let mut detector = Detector::new(RegionId(me), 0);
        detector.heartbeat(RegionId(1), says(&[]), Duration::ZERO, 0);
        for at in (0..=until_ms).step_by(250) {
            detector.heartbeat(RegionId(other), says(suspects), Duration::ZERO, at * MS);
        }
        detector
    }

    #[test]
    fn a_majority_that_hears_nothing_fails_over_and_the_best_placed_goes_first() {
        let standings =
            [(RegionId(2), Standing { seq: 9, latency_rank: 0 }), (RegionId(3), Standing { seq: 9, latency_rank: 1 })];
        let standings = standings.into_iter().collect();
        let mut first = follower(2, 3, &[1], 1500);
        assert_eq!(first.verdict(&regime(), &standings, 1499 * MS), Verdict::Healthy);
        assert_eq!(first.verdict(&regime(), &standings, 1500 * MS), Verdict::Propose);
        let mut second = follower(3, 2, &[1], 1500);
        assert_eq!(second.verdict(&regime(), &standings, 1500 * MS), Verdict::Later { at_boot_ns: 1900 * MS });
        assert_eq!(second.verdict(&regime(), &standings, 1900 * MS), Verdict::Propose);
    }

    #[test]
    fn an_attempt_of_another_region_is_left_alone_for_a_while_and_no_longer() {
        let mut second = follower(3, 2, &[1], 1500);
        let mut attempts = Attempts::default();
        attempts.note(Epoch(1), RegionId(2), 1600 * MS);
        attempts.note(Epoch(1), RegionId(2), 2900 * MS);
        second.attempted(attempts);
        let standings = [(RegionId(2), Standing { seq: 9, latency_rank: 0 })].into_iter().collect();
        for at in (1500..3100).step_by(100) {
            second.heartbeat(RegionId(2), says(&[1]), Duration::ZERO, at * MS);
            assert_eq!(second.verdict(&regime(), &standings, at * MS), Verdict::Later { at_boot_ns: 3100 * MS });
        }
        assert_eq!(second.verdict(&regime(), &standings, 3100 * MS), Verdict::Propose);
    }

    #[test]
    fn among_many_regions_those_that_have_not_tried_follow_one_by_one_and_each_is_left_alone_for_longer() {
        let regime = Regime::genesis((1..=6).map(RegionId), Mode::ActivePassive, Some(RegionId(1)), Durability::Local);
        let verdict_of = |me: u16, attempts: &Attempts, at_ms: u64| {
            let mut detector = Detector::new(RegionId(me), 0);
            detector.heartbeat(RegionId(1), says(&[]), Duration::ZERO, 0);
            detector.attempted(attempts.clone());
            let mut verdict_at = |at_ms: u64| {
                for other in (2..=6).filter(|other| *other != me) {
                    detector.heartbeat(RegionId(other), says(&[1]), Duration::ZERO, at_ms * MS);
                }
                detector.verdict(&regime, &BTreeMap::new(), at_ms * MS)
            };
            verdict_at(1500);
            verdict_at(at_ms)
        };
        let mut attempts = Attempts::default();
        attempts.note(Epoch(1), RegionId(2), 2000 * MS);
        // Region 2 has had its turn; its patience is over, and 3 goes before 4, and 4 before 5.
        assert_eq!(verdict_of(3, &attempts, 3499), Verdict::Later { at_boot_ns: 3500 * MS });
        assert_eq!(verdict_of(3, &attempts, 3500), Verdict::Propose);
        assert_eq!(verdict_of(4, &attempts, 3500), Verdict::Later { at_boot_ns: 3900 * MS });
        assert_eq!(verdict_of(5, &attempts, 3500), Verdict::Later { at_boot_ns: 4300 * MS });
        // Each further one is left alone twice as long, at most eight times.
        for (by, at_ms, until_ms) in [(3, 3500, 6500), (4, 7000, 13_000), (5, 13_000, 25_000), (6, 25_000, 37_000)] {
            attempts.note(Epoch(1), RegionId(by), at_ms * MS);
            assert_eq!(verdict_of(2, &attempts, at_ms), Verdict::Later { at_boot_ns: until_ms * MS });
        }
        // Another epoch begins anew, and what is told late of an earlier one counts no more.
        attempts.note(Epoch(2), RegionId(3), 26_000 * MS);
        attempts.note(Epoch(1), RegionId(4), 27_000 * MS);
        assert_eq!(attempts, Attempts { epoch: Epoch(2), first_ns: [(RegionId(3), 26_000 * MS)].into() });
    }

    #[test]
    fn in_a_partial_partition_nobody_fails_over() {
        let mut cut_off = follower(2, 3, &[], 5000);
        assert_eq!(cut_off.verdict(&regime(), &BTreeMap::new(), 5000 * MS), Verdict::Healthy);
        let mut hears = follower(3, 2, &[1], 5000);
        hears.heartbeat(RegionId(1), says(&[2]), Duration::ZERO, 4900 * MS);
        assert_eq!(hears.verdict(&regime(), &BTreeMap::new(), 5000 * MS), Verdict::Healthy);
    }

    #[test]
    fn old_reports_and_reports_of_another_epoch_do_not_count() {
        let mut stale = follower(2, 3, &[1], 1500);
        assert_eq!(stale.verdict(&regime(), &BTreeMap::new(), 3000 * MS), Verdict::Healthy);
        let mut later = regime();
        later.epoch = Epoch(2);
        let mut detector = follower(2, 3, &[1], 1500);
        assert_eq!(detector.verdict(&later, &BTreeMap::new(), 1500 * MS), Verdict::Healthy);
    }

    #[test]
    fn a_primary_that_hears_no_majority_counts_as_down_although_it_is_heard() {
        let mut detector = follower(2, 3, &[1], 3000);
        for at in (1500..3000).step_by(250) {
            detector.heartbeat(RegionId(1), says(&[2, 3]), Duration::ZERO, at * MS);
            let early = detector.verdict(&regime(), &BTreeMap::new(), at * MS);
            assert_eq!(early, Verdict::Healthy, "what it says may be older than its connection");
        }
        assert!(detector.report(&regime(), 3000 * MS).suspects.contains(&RegionId(1)));
        assert_eq!(detector.verdict(&regime(), &BTreeMap::new(), 3000 * MS), Verdict::Propose);
        detector.heartbeat(RegionId(1), says(&[3]), Duration::ZERO, 3010 * MS);
        detector.heartbeat(RegionId(1), says(&[2, 3]), Duration::ZERO, 3020 * MS);
        assert_eq!(detector.verdict(&regime(), &BTreeMap::new(), 3030 * MS), Verdict::Healthy, "it counts anew");
    }

    #[test]
    fn a_primary_whose_log_was_set_back_is_replaced_although_it_hears_everybody() {
        let mut primary = Detector::new(RegionId(1), 0);
        assert_eq!(primary.report(&regime(), MS), says(&[]));
        primary.set_back(true);
        let said = primary.report(&regime(), MS);
        assert_eq!(said, says(&[1]));
        let mut follower = follower(2, 3, &[1], 1000);
        assert_eq!(follower.verdict(&regime(), &BTreeMap::new(), 1000 * MS), Verdict::Healthy);
        follower.heartbeat(RegionId(1), said, Duration::ZERO, 1000 * MS);
        assert!(follower.report(&regime(), 1000 * MS).suspects.contains(&RegionId(1)), "it passes that on");
        assert_eq!(follower.verdict(&regime(), &BTreeMap::new(), 1000 * MS), Verdict::Propose);
        let mut later = regime();
        later.primary = Some(RegionId(3));
        assert_eq!(primary.report(&later, MS), says(&[1]), "the primary leaves such a follower out of the in-sync set");
        let mut other = Detector::new(RegionId(2), 0);
        other.heartbeat(RegionId(1), says(&[1]), Duration::ZERO, 0);
        assert_eq!(other.report(&later, MS), says(&[]), "it joins again by itself; nobody replaces anybody for that");
    }

    #[test]
    fn a_recent_failover_and_the_third_in_an_hour_make_it_dwell() {
        let mut detector = follower(2, 3, &[1], 1500);
        detector.failed_over(1000 * MS);
        assert_eq!(
            detector.verdict(&regime(), &BTreeMap::new(), 1500 * MS),
            Verdict::Dwell { until_boot_ns: 61_000 * MS }
        );
        assert_eq!(detector.dwell_until(61_000 * MS), None);
        detector.failed_over(70_000 * MS);
        detector.failed_over(140_000 * MS);
        assert_eq!(detector.dwell_until(300_000 * MS), Some(1000 * MS + HOUR_NS));
        assert_eq!(detector.dwell_until(1000 * MS + HOUR_NS), None);
    }
}
