//! Load shedding: how many attempts at a region may be under way, learned from how it copes.
//!
//! Additive increase, multiplicative decrease, with a slow start below half of where it last fell, as TCP does (source:
//! Jacobson, "Congestion Avoidance and Control", 1988). Requests that wait for a newer regime have no attempt under way
//! and so do not count: a switchover is no overload. Pure: the caller says what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// It never falls below this.
pub const LIMIT_MIN: f64 = 32.0;
/// It never rises above this.
pub const LIMIT_MAX: f64 = 4096.0;
/// Factor at a sign of overload.
pub const DECREASE: f64 = 0.8;
/// One overload gives many signs; within this time they count once.
pub const DECREASE_INTERVAL: Duration = Duration::from_millis(200);

/// An adaptive limit of concurrency.
#[derive(Debug)]
pub struct Limiter {
    limit: f64,
    slow_start_below: f64,
    in_flight: u32,
    last_decrease: Option<Instant>,
}

impl Limiter {
    /// A limit that starts here, within [`LIMIT_MIN`] and [`LIMIT_MAX`].
    pub fn new(start: u32) -> Self {
        let limit = f64::from(start).clamp(LIMIT_MIN, LIMIT_MAX);
        Self { limit, slow_start_below: limit, in_flight: 0, last_decrease: None }
    }

    /// Asks to start. Each attempt let through must end with [`Limiter::release`].
    pub fn admit(&mut self) -> bool {
        let free = f64::from(self.in_flight) < self.limit.floor();
        self.in_flight += u32::from(free);
        free
    }

    /// An attempt ended, in whatever way.
    pub fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// An attempt was answered in time; to be said before [`Limiter::release`].
    pub fn coped(&mut self) {
        // A limit that nobody reaches has not been tested, so it does not rise.
        if f64::from(self.in_flight) * 2.0 < self.limit {
            return;
        }
        let step = if self.limit < self.slow_start_below { 1.0 } else { 1.0 / self.limit };
        self.limit = (self.limit + step).min(LIMIT_MAX);
    }

    /// A region that is alive did not answer in time, or said that it has too much to do.
    pub fn overloaded(&mut self, now: Instant) {
        if self.last_decrease.is_some_and(|last| now.saturating_duration_since(last) < DECREASE_INTERVAL) {
            return;
        }
        self.last_decrease = Some(now);
        self.slow_start_below = (self.limit / 2.0).max(LIMIT_MIN);
        self.limit = (self.limit * DECREASE).max(LIMIT_MIN);
    }

    /// The limit now.
    pub fn limit(&self) -> u64 {
        self.limit as u64
    }

    /// Attempts under way.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 512;

    fn fill(limiter: &mut Limiter) -> u64 {
        let mut admitted = 0;
        while limiter.admit() {
            admitted += 1;
        }
        admitted
    }

    fn drain(limiter: &mut Limiter) {
        while limiter.in_flight() > 0 {
            limiter.release();
        }
    }

    #[test]
    fn no_more_than_the_limit_are_under_way_and_one_that_ends_makes_room() {
        let mut limiter = Limiter::new(START);
        assert_eq!(fill(&mut limiter), u64::from(START));
        assert!(!limiter.admit());
        limiter.release();
        assert!(limiter.admit());
    }

    #[test]
    fn signs_of_one_overload_count_once_and_it_never_falls_below_the_minimum() {
        let (mut limiter, mut now) = (Limiter::new(START), Instant::now());
        for _ in 0..50 {
            limiter.overloaded(now);
        }
        assert_eq!(limiter.limit(), (f64::from(START) * DECREASE) as u64);
        for _ in 0..50 {
            now += DECREASE_INTERVAL;
            limiter.overloaded(now);
        }
        assert_eq!(limiter.limit(), LIMIT_MIN as u64);
    }

    #[test]
    fn it_rises_fast_below_half_of_where_it_fell_and_slowly_above() {
        let (mut limiter, mut now) = (Limiter::new(START), Instant::now());
        for _ in 0..20 {
            limiter.overloaded(now);
            now += DECREASE_INTERVAL;
        }
        limiter.slow_start_below = 64.0;
        let before = fill(&mut limiter);
        for _ in 0..before {
            limiter.coped();
        }
        assert_eq!(limiter.limit(), 2 * before, "one round of answers doubles it");
        drain(&mut limiter);
        let at_threshold = fill(&mut limiter);
        for _ in 0..at_threshold {
            limiter.coped();
        }
        assert!(limiter.limit() <= at_threshold + 1, "one round of answers adds one");
    }

    #[test]
    fn a_limit_that_nobody_reaches_does_not_rise() {
        let mut limiter = Limiter::new(START);
        for _ in 0..10_000 {
            assert!(limiter.admit());
            limiter.coped();
            limiter.release();
        }
        assert_eq!(limiter.limit(), u64::from(START));
    }
}
