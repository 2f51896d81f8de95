//! The hybrid logical clock of a region: the checks that make the `hybrid-clocks` crate safe as the arbiter of
//! last-writer-wins.
//!
//! The crate does the arithmetic (Kulkarni et al., "Logical Physical Clocks", 2014). What it does not do is done here:
//! a remote stamp is judged *before* it touches the clock (its own limiter looks at neither the clock epoch nor the
//! counter, and one bad stamp poisons the clock for good), stamps carry the region, the clock never stamps beyond a
//! bound that was made durable first, and a wall clock that jumps, in either direction, stops the region instead of
//! dragging everybody else along. The clock epoch is always 0, so it is not part of a [`Version`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hybrid_clocks::{Clock, ClockSource, Timestamp, WallNST};

use crate::ids::RegionId;
use crate::limits::{CLOCK_COUNT_MAX, CLOCK_OFFSET_MAX, CLOCK_UPPER_AHEAD};
use crate::version::Version;

/// A stamp this far ahead will not be reached by waiting: a person must seal its timeline before it.
pub const CLOCK_AHEAD_HOPELESS: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest forward step of the wall clock against the boot clock between two stamps.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_nanos(nanos(CLOCK_OFFSET_MAX) / 2);
/// The bound is raised once less than this is left of it.
const UPPER_LEFT_MIN: u64 = nanos(CLOCK_UPPER_AHEAD) / 3 * 2;

const fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

/// A stamp that the clock refused to draw or to admit. Nothing was stamped, observed or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// A remote version lies too far in the future of the local wall clock.
    #[error("version {version} is {} ms ahead of the local clock, which allows {} ms; it is admitted once the clock has caught up, or correct the clock of region {}", .by_ns / 1_000_000, CLOCK_OFFSET_MAX.as_millis(), .version.region)]
    Ahead {
        /// The refused version.
        version: Version,
        /// How far ahead, nanoseconds.
        by_ns: u64,
    },
    /// The logical counter is beyond any honest value (`CLOCK_COUNT_MAX`).
    #[error(
        "the logical counter {count} of the clock exceeds {CLOCK_COUNT_MAX}; wait until the wall clock of region {region} moves on, or seal its timeline before that version"
    )]
    Counter {
        /// The counter.
        count: u32,
        /// The region that drew it, or that would.
        region: RegionId,
    },
    /// The local wall clock is too far behind the versions that the region has drawn or applied.
    #[error("the wall clock is {} ms behind the last version, and {} ms are allowed; writes go on once it has caught up, or correct the clock", .by_ns / 1_000_000, CLOCK_OFFSET_MAX.as_millis())]
    Behind {
        /// How far behind, nanoseconds.
        by_ns: u64,
    },
    /// The local wall clock ran ahead of the boot clock in one step.
    #[error("the wall clock jumped forward by {} ms, and {} ms are allowed; correct the clock, or accept the new time", .by_ns / 1_000_000, CLOCK_JUMP_MAX.as_millis())]
    Jumped {
        /// By how much, nanoseconds.
        by_ns: u64,
    },
    /// The stamp would lie beyond the bound that is durable.
    #[error(
        "the clock may not stamp {needed_ns} ns, its durable bound is {upper_ns} ns; make a higher bound durable first"
    )]
    Bound {
        /// The physical part that the stamp would have.
        needed_ns: u64,
        /// The bound.
        upper_ns: u64,
    },
}

impl ClockError {
    /// Whether waiting cannot help, so that a person must seal the timeline before the refused version.
    pub const fn is_hopeless(&self) -> bool {
        match self {
            Self::Ahead { by_ns, .. } => *by_ns > nanos(CLOCK_AHEAD_HOPELESS),
            Self::Counter { .. } => true,
            Self::Behind { .. } | Self::Jumped { .. } | Self::Bound { .. } => false,
        }
    }
}

/// A physical clock that returns the time that it was told last.
#[derive(Debug, Clone)]
struct Told(Arc<AtomicU64>);

impl ClockSource for Told {
    type Time = WallNST;
    type Delta = Duration;

    fn now(&mut self) -> hybrid_clocks::Result<WallNST> {
        Ok(WallNST::of_u64(self.0.load(Ordering::Relaxed)))
    }
}

/// The clock of one region. All times are told: `wall_ns` (nanoseconds since the Unix epoch, with skew) and `boot_ns`
/// (nanoseconds since boot, suspend included, never stepped).
///
/// Laws, kept by the tests: drawn versions strictly rise; a version drawn after an admitted one is greater than it; no
/// version is drawn at or below the floor or above the bound; a refused call changes nothing.
#[derive(Debug)]
pub struct RegionClock {
    region: RegionId,
    told: Arc<AtomicU64>,
    clock: Clock<Told>,
    /// The greatest stamp drawn or observed: what `clock` holds and does not show.
    last: Timestamp<WallNST>,
    upper_ns: u64,
    /// Wall and boot time of the last accepted stamp: where the wall clock is measured from.
    anchor: Option<(u64, u64)>,
}

impl RegionClock {
    /// A clock that never stamps at or below the physical time `floor_ns` nor above `upper_ns`.
    ///
    /// `floor_ns` is the greatest of: the durable bound of the last run, the regime's `hlc_floor_ns`, and the physical
    /// part of every version in the store. Without it a region whose clock was set back acknowledges writes that lose
    /// against its own data.
    pub fn new(region: RegionId, floor_ns: u64, upper_ns: u64) -> Self {
        let told = Arc::new(AtomicU64::new(0));
        let clock = Clock::new(Told(Arc::clone(&told))).expect("a told clock source never fails");
        let last = Timestamp { epoch: 0, time: WallNST::of_u64(0), count: 0 };
        let mut this = Self { region, told, clock, last, upper_ns, anchor: None };
        this.observe_floor(floor_ns);
        this
    }

    /// Draws the next version.
    pub fn tick(&mut self, wall_ns: u64, boot_ns: u64) -> Result<Version, ClockError> {
        self.check_jump(wall_ns, boot_ns)?;
        let last_ns = self.last.time.as_u64();
        let by_ns = last_ns.saturating_sub(wall_ns);
        if by_ns > nanos(CLOCK_OFFSET_MAX) {
            return Err(ClockError::Behind { by_ns });
        }
        if wall_ns <= last_ns && self.last.count >= CLOCK_COUNT_MAX {
            return Err(ClockError::Counter { count: self.last.count, region: self.region });
        }
        let needed_ns = wall_ns.max(last_ns);
        if needed_ns > self.upper_ns {
            return Err(ClockError::Bound { needed_ns, upper_ns: self.upper_ns });
        }
        self.told.store(wall_ns, Ordering::Relaxed);
        self.last = self.clock.now().expect("a told clock source never fails");
        self.anchor = Some((wall_ns, boot_ns));
        Ok(Version { time_ns: self.last.time.as_u64(), count: self.last.count, region: self.region })
    }

    /// Judges a remote version without touching the clock.
    pub fn check(&self, version: &Version, wall_ns: u64) -> Result<(), ClockError> {
        if version.count > CLOCK_COUNT_MAX {
            return Err(ClockError::Counter { count: version.count, region: version.region });
        }
        let by_ns = version.time_ns.saturating_sub(wall_ns);
        if by_ns > nanos(CLOCK_OFFSET_MAX) {
            return Err(ClockError::Ahead { version: *version, by_ns });
        }
        Ok(())
    }

    /// Judges a remote version and, if it is sound, makes every later stamp greater. To be called with the greatest
    /// version of a batch that was stored, of a snapshot, and of a session token before the write that it leads to.
    pub fn admit(&mut self, version: &Version, wall_ns: u64) -> Result<(), ClockError> {
        self.check(version, wall_ns)?;
        self.observe(Timestamp { epoch: 0, time: WallNST::of_u64(version.time_ns), count: version.count });
        Ok(())
    }

    /// Makes every later stamp lie above the physical time `floor_ns`: a regime's floor, decided by a majority and
    /// therefore not subject to the offset check.
    pub fn observe_floor(&mut self, floor_ns: u64) {
        if floor_ns > 0 {
            self.observe(Timestamp { epoch: 0, time: WallNST::of_u64(floor_ns.saturating_add(1)), count: 0 });
        }
    }

    /// The bound to make durable (and then to hand to [`RegionClock::set_upper`]), if the present one is nearly used
    /// up. `None` too while the wall clock is not believed: a durable bound outlives the jump and would become the
    /// floor of the next run.
    pub fn upper_needed(&self, wall_ns: u64, boot_ns: u64) -> Option<u64> {
        if self.check_jump(wall_ns, boot_ns).is_err() {
            return None;
        }
        let now_ns = wall_ns.max(self.last.time.as_u64());
        let left = self.upper_ns.saturating_sub(now_ns);
        (left < UPPER_LEFT_MIN).then(|| now_ns.saturating_add(nanos(CLOCK_UPPER_AHEAD)))
    }

    /// Takes a bound that is durable. It never sinks.
    pub fn set_upper(&mut self, upper_ns: u64) {
        self.upper_ns = self.upper_ns.max(upper_ns);
    }

    /// Believes the wall clock after a jump: a person's decision, or that of the other regions' clocks.
    pub fn accept_jump(&mut self, wall_ns: u64, boot_ns: u64) {
        self.anchor = Some((wall_ns, boot_ns));
    }

    /// The physical part of the greatest stamp drawn or observed.
    pub fn last_ns(&self) -> u64 {
        self.last.time.as_u64()
    }

    /// The region that stamps.
    pub const fn region(&self) -> RegionId {
        self.region
    }

    fn check_jump(&self, wall_ns: u64, boot_ns: u64) -> Result<(), ClockError> {
        let Some((anchor_wall, anchor_boot)) = self.anchor else {
            return Ok(());
        };
        let expected = anchor_wall.saturating_add(boot_ns.saturating_sub(anchor_boot));
        let by_ns = wall_ns.saturating_sub(expected);
        if by_ns > nanos(CLOCK_JUMP_MAX) { Err(ClockError::Jumped { by_ns }) } else { Ok(()) }
    }

    fn observe(&mut self, stamp: Timestamp<WallNST>) {
        // The crate counts up on every observation, older ones included; a long catch-up would use the counter up.
        if stamp <= self.last {
            return;
        }
        self.clock.observe(&stamp);
        // At equal times the crate moves on to the count after the greater one.
        let count = if stamp.time == self.last.time { stamp.count + 1 } else { stamp.count };
        self.last = Timestamp { count, ..stamp };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 1_800_000_000_000_000_000;
    const MS: u64 = 1_000_000;

    fn clock(region: u16) -> RegionClock {
        RegionClock::new(RegionId(region), 0, u64::MAX)
    }

    fn stamp(time_ns: u64, count: u32) -> Version {
        Version { time_ns, count, region: RegionId(9) }
    }

    #[test]
    fn a_hostile_version_is_refused_and_leaves_the_clock_alone() {
        let mut clock = clock(1);
        let before = clock.tick(NOON, 0).unwrap();
        let hostile = [stamp(u64::MAX, 0), stamp(NOON, u32::MAX), stamp(NOON + 501 * MS, 0), stamp(1, u32::MAX)];
        for version in hostile {
            assert!(clock.admit(&version, NOON).is_err(), "{version:?}");
        }
        let after = clock.tick(NOON, 0).unwrap();
        assert_eq!(after, Version { count: before.count + 1, ..before });
    }

    #[test]
    fn only_what_waiting_cannot_cure_is_hopeless() {
        let clock = clock(1);
        assert!(!clock.check(&stamp(NOON + 600 * MS, 0), NOON).unwrap_err().is_hopeless());
        assert!(clock.check(&stamp(NOON + 25 * 3_600_000 * MS, 0), NOON).unwrap_err().is_hopeless());
        assert!(clock.check(&stamp(NOON, u32::MAX), NOON).unwrap_err().is_hopeless());
    }

    #[test]
    fn a_version_just_within_the_offset_is_admitted_and_passed() {
        let mut clock = clock(1);
        let ahead = stamp(NOON + 500 * MS, 3);
        clock.admit(&ahead, NOON).unwrap();
        assert!(clock.tick(NOON, 0).unwrap() > ahead);
    }

    #[test]
    fn the_greatest_admissible_counter_never_makes_one_that_peers_refuse() {
        let mut clock = clock(1);
        clock.admit(&stamp(NOON, CLOCK_COUNT_MAX), NOON).unwrap();
        assert!(matches!(clock.tick(NOON, 0), Err(ClockError::Counter { .. })));
        assert_eq!(clock.tick(NOON + 1, 1).unwrap().count, 0);
    }

    #[test]
    fn catching_up_on_old_versions_does_not_use_up_the_counter() {
        let mut clock = clock(1);
        clock.tick(NOON, 0).unwrap();
        for old in 0..1000 {
            clock.admit(&stamp(NOON - old, 0), NOON).unwrap();
        }
        assert_eq!(clock.tick(NOON, 0).unwrap().count, 1);
    }

    #[test]
    fn a_wall_clock_set_back_too_far_stops_the_clock_until_it_has_caught_up() {
        let mut clock = clock(1);
        let before = clock.tick(NOON, 0).unwrap();
        assert!(clock.tick(NOON - 400 * MS, MS).unwrap() > before);
        assert!(matches!(clock.tick(NOON - 600 * MS, 2 * MS), Err(ClockError::Behind { .. })));
        assert!(clock.tick(NOON - 500 * MS, 102 * MS).unwrap() > before);
    }

    #[test]
    fn a_jump_forward_is_refused_and_raises_no_bound_until_it_is_accepted() {
        let mut clock = RegionClock::new(RegionId(1), 0, NOON + 3000 * MS);
        clock.tick(NOON, 0).unwrap();
        let day = 86_400_000 * MS;
        assert!(matches!(clock.tick(NOON + day, MS), Err(ClockError::Jumped { .. })));
        assert_eq!(clock.upper_needed(NOON + day, MS), None);
        assert!(clock.tick(NOON + 2 * MS, 2 * MS).is_ok());
        clock.accept_jump(NOON + day, 3 * MS);
        clock.set_upper(clock.upper_needed(NOON + day, 3 * MS).unwrap());
        assert!(clock.tick(NOON + day, 3 * MS).unwrap().time_ns == NOON + day);
    }

    #[test]
    fn nothing_is_stamped_beyond_the_bound_and_the_bound_is_asked_for_in_time() {
        let mut clock = RegionClock::new(RegionId(1), 0, 0);
        assert!(matches!(clock.tick(NOON, 0), Err(ClockError::Bound { .. })));
        let upper = clock.upper_needed(NOON, 0).unwrap();
        assert_eq!(upper, NOON + 3000 * MS);
        clock.set_upper(upper);
        assert_eq!(clock.upper_needed(NOON + 900 * MS, 900 * MS), None);
        assert!(clock.upper_needed(NOON + 1100 * MS, 1100 * MS).is_some());
        assert!(clock.tick(upper, 3000 * MS).is_ok());
        assert!(clock.tick(upper + 1, 3000 * MS + 1).is_err());
    }

    #[test]
    fn a_restarted_clock_stamps_above_its_floor() {
        let mut clock = RegionClock::new(RegionId(1), NOON, u64::MAX);
        assert!(clock.tick(NOON - 10 * MS, 0).unwrap() > stamp(NOON, u32::MAX));
    }

    proptest! {
        #[test]
        fn versions_rise_and_follow_what_was_admitted_under_any_skew(
            steps in prop::collection::vec((0_usize..3, 0_usize..3, 0_u64..50, -600_i64..600), 1..200),
        ) {
            let mut clocks: Vec<_> = (1..=3).map(clock).collect();
            let mut last = [None::<Version>; 3];
            let mut seen = std::collections::BTreeSet::new();
            let mut now = NOON;
            for (at, from, passed, skew_ms) in steps {
                now += passed * MS;
                let wall = now.saturating_add_signed(skew_ms * MS as i64);
                let admitted = last[from].filter(|version| clocks[at].admit(version, wall).is_ok());
                let Ok(version) = clocks[at].tick(wall, now - NOON) else { continue };
                prop_assert!(admitted.is_none_or(|admitted| version > admitted));
                prop_assert!(last[at].is_none_or(|last| version > last && version.to_bytes() > last.to_bytes()));
                prop_assert!(seen.insert(version.to_bytes()));
                prop_assert!(version.count <= CLOCK_COUNT_MAX);
                last[at] = Some(version);
            }
        }
    }
}
