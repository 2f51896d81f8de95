//! The circuit breaker of an API instance: after failures in a row, or too large a share of failures, requests are refused
//! without being sent, until a trial succeeds.
//!
//! Source: Nygard, "Release It!", 2007. Pure: the caller says what time it is.

use std::time::Duration;

use longhaul_http::wire::gateway::BreakerState;
use tokio::time::Instant;

/// Failures in a row that open it.
pub const FAILURES_IN_A_ROW: u32 = 5;
/// The share of failures is judged over windows of this length.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Fewest requests in a window by which a share is judged.
pub const WINDOW_REQUESTS_MIN: u32 = 20;
/// Share of failures in a window that opens it.
pub const FAILURE_SHARE: f64 = 0.5;
/// How long it stays open before the first trial; doubles with every trial that fails.
pub const OPEN_MIN: Duration = Duration::from_millis(500);
/// Longest time between trials.
pub const OPEN_MAX: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration, trial: bool },
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    in_a_row: u32,
    window_start: Option<Instant>,
    requests: u32,
    failures: u32,
    openings: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, in_a_row: 0, window_start: None, requests: 0, failures: 0, openings: 0 }
    }
}

impl Breaker {
    /// Whether a request would be let through now. Changes nothing.
    pub fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, .. } => now >= until,
            State::HalfOpen { trial, .. } => !trial,
        }
    }

    /// Asks to send a request. Each one let through must be reported by exactly one of [`Breaker::succeeded`],
    /// [`Breaker::failed`] and [`Breaker::abandoned`].
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, pause } if now >= until => {
                self.state = State::HalfOpen { pause, trial: true };
                true
            }
            State::HalfOpen { pause, trial: false } => {
                self.state = State::HalfOpen { pause, trial: true };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// The region answered: it lives, whatever it said.
    pub fn succeeded(&mut self, now: Instant) {
        if !matches!(self.state, State::Closed) {
            *self = Self { openings: self.openings, ..Self::default() };
        }
        self.in_a_row = 0;
        self.count(now, false);
    }

    /// No answer, or a broken one.
    pub fn failed(&mut self, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.count(now, true);
        match self.state {
            State::HalfOpen { pause, .. } => self.open(now, (pause * 2).min(OPEN_MAX)),
            // Stragglers from before it opened say nothing new.
            State::Open { .. } => {}
            State::Closed => {
                let share = f64::from(self.failures) / f64::from(self.requests.max(1));
                let too_many = self.requests >= WINDOW_REQUESTS_MIN && share >= FAILURE_SHARE;
                if self.in_a_row >= FAILURES_IN_A_ROW || too_many {
                    self.open(now, OPEN_MIN);
                }
            }
        }
    }

    /// The caller gave up before there was an outcome.
    pub fn abandoned(&mut self) {
        if let State::HalfOpen { pause, .. } = self.state {
            self.state = State::HalfOpen { pause, trial: false };
        }
    }

    /// Where it stands.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until, .. } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened.
    pub const fn openings(&self) -> u64 {
        self.openings
    }

    fn open(&mut self, now: Instant, pause: Duration) {
        self.state = State::Open { until: now + pause, pause };
        self.openings += 1;
    }

    fn count(&mut self, now: Instant, failed: bool) {
        if self.window_start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window_start = Some(now);
            (self.requests, self.failures) = (0, 0);
        }
        self.requests += 1;
        self.failures += u32::from(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES_IN_A_ROW {
            assert!(breaker.admit(now));
            breaker.failed(now);
        }
        (breaker, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (breaker, now) = opened();
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!breaker.would_admit(now));

        let mut mixed = Breaker::default();
        for _ in 0..WINDOW_REQUESTS_MIN {
            mixed.failed(now);
            mixed.succeeded(now);
            mixed.succeeded(now);
        }
        assert_eq!(mixed.state(now), BreakerState::Closed);
    }

    #[test]
    fn a_large_share_of_failures_opens_it_and_an_old_window_is_forgotten() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..WINDOW_REQUESTS_MIN / 2 - 1 {
            breaker.succeeded(now);
            breaker.failed(now);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed, "too few requests to judge");
        let mut later = Breaker::default();
        std::mem::swap(&mut later, &mut breaker);
        later.succeeded(now + WINDOW);
        later.failed(now + WINDOW);
        assert_eq!(later.state(now + WINDOW), BreakerState::Closed, "the old window does not count");

        for _ in 0..WINDOW_REQUESTS_MIN / 2 {
            breaker.succeeded(now);
            breaker.failed(now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn half_open_lets_one_trial_through_and_its_success_closes_it() {
        let (mut breaker, opened) = opened();
        let now = opened + OPEN_MIN;
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        assert!(breaker.admit(now));
        assert!(!breaker.admit(now), "one trial at a time");
        breaker.succeeded(now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert!(breaker.admit(now) && breaker.admit(now));
    }

    #[test]
    fn a_failed_trial_opens_it_for_twice_as_long_up_to_the_limit() {
        let (mut breaker, mut now) = opened();
        let mut pause = OPEN_MIN;
        for _ in 0..6 {
            assert!(!breaker.would_admit(now + pause - Duration::from_millis(1)));
            now += pause;
            assert!(breaker.admit(now));
            breaker.failed(now);
            pause = (pause * 2).min(OPEN_MAX);
        }
        assert_eq!(pause, OPEN_MAX);
        assert_eq!(breaker.openings(), 7);
    }

    #[test]
    fn an_abandoned_trial_makes_room_for_the_next() {
        let (mut breaker, opened) = opened();
        let now = opened + OPEN_MIN;
        assert!(breaker.admit(now));
        breaker.abandoned();
        assert!(breaker.admit(now));
    }
}
