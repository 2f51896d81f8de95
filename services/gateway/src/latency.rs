//! Measured latency: a moving average for routing and timeouts, a window of recent samples for the percentile by which
//! reads are hedged.

use std::time::Duration;

/// Weight of a new sample in the moving average.
const WEIGHT: f64 = 0.2;
/// Samples kept for the percentile.
const SAMPLES_MAX: usize = 128;
/// Fewest samples from which a percentile is told.
pub(crate) const SAMPLES_MIN: usize = 20;
/// Samples after which the percentile is computed anew.
const SAMPLES_PER_UPDATE: usize = 8;

/// Exponentially weighted moving average of a round trip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ewma {
    us: f64,
    measured: bool,
}

impl Ewma {
    /// Starts with a declared value, which the first sample replaces.
    pub(crate) const fn declared(round_trip: Duration) -> Self {
        Self { us: round_trip.as_micros() as f64, measured: false }
    }

    /// Takes a sample.
    pub(crate) fn observe(&mut self, sample: Duration) {
        let sample = sample.as_secs_f64() * 1e6;
        self.us = if self.measured { self.us + WEIGHT * (sample - self.us) } else { sample };
        self.measured = true;
    }

    /// The average.
    pub(crate) fn get(self) -> Duration {
        Duration::from_micros(self.us as u64)
    }
}

/// The last samples, and their 95th percentile.
#[derive(Debug, Default)]
pub(crate) struct Window {
    samples: Vec<u32>,
    next: usize,
    p95_us: Option<u32>,
}

impl Window {
    /// Takes a sample.
    pub(crate) fn observe(&mut self, sample: Duration) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX);
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        } else {
            self.samples[self.next] = sample;
        }
        self.next = (self.next + 1) % SAMPLES_MAX;
        if self.samples.len() >= SAMPLES_MIN && (self.p95_us.is_none() || self.next.is_multiple_of(SAMPLES_PER_UPDATE))
        {
            let mut sorted = self.samples.clone();
            let rank = sorted.len() * 95 / 100;
            self.p95_us = Some(*sorted.select_nth_unstable(rank).1);
        }
    }

    /// The 95th percentile, once there are enough samples.
    pub(crate) fn p95(&self) -> Option<Duration> {
        self.p95_us.map(|us| Duration::from_micros(u64::from(us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_replaces_the_declared_value_and_later_ones_move_it() {
        let mut average = Ewma::declared(Duration::from_millis(80));
        assert_eq!(average.get(), Duration::from_millis(80));
        average.observe(Duration::from_millis(10));
        assert_eq!(average.get(), Duration::from_millis(10));
        average.observe(Duration::from_millis(20));
        assert_eq!(average.get(), Duration::from_millis(12));
    }

    #[test]
    fn the_percentile_is_that_of_the_last_samples() {
        let mut window = Window::default();
        for _ in 0..SAMPLES_MIN - 1 {
            window.observe(Duration::from_millis(5));
        }
        assert_eq!(window.p95(), None);
        for ms in 1..=SAMPLES_MAX as u64 {
            window.observe(Duration::from_millis(ms));
        }
        let p95 = window.p95().unwrap().as_millis();
        assert!((115..=128).contains(&p95), "{p95}");
    }
}
