//! Time in the simulation: one virtual clock for everybody, and a wall clock for each host that can be wrong.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_http::clock::Clock;

/// Wall-clock time at the start of every simulation, nanoseconds since the Unix epoch (2026-01-01T00:00:00Z): always
/// the same, or two runs of one seed would differ.
const WALL_START_NS: u64 = 1_767_225_600_000_000_000;
/// Boot clocks do not start at 0: a deadline may lie before the start of the simulation.
const BOOT_START_NS: u64 = 60_000_000_000;

/// Virtual time since the start of the simulation.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimTime(Arc<AtomicU64>);

impl SimTime {
    /// Nanoseconds since the start: of the host that asks, or of the last step where no host runs (a blocking thread,
    /// the runner).
    pub(crate) fn now_ns(&self) -> u64 {
        turmoil::sim_elapsed().map_or_else(
            || self.0.load(Ordering::Relaxed),
            |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        )
    }

    /// The runner tells how far the simulation is.
    pub(crate) fn advance_to(&self, elapsed_ns: u64) {
        self.0.store(elapsed_ns, Ordering::Relaxed);
    }

    /// A moment on every host's boot clock.
    pub(crate) const fn boot_ns(elapsed_ns: u64) -> u64 {
        BOOT_START_NS + elapsed_ns
    }
}

/// A host's clocks. They belong to the machine: they stay as wrong as they are when its process is killed.
#[derive(Debug)]
pub(crate) struct HostClock {
    time: SimTime,
    skew_ms: AtomicI64,
    fault: Mutex<WallFault>,
}

/// What is wrong with a wall clock beside the skew that the product itself injects.
#[derive(Debug, Clone, Copy, Default)]
struct WallFault {
    /// Steps so far, nanoseconds.
    step_ns: i64,
    /// Rate error, parts per million.
    drift_ppm: i64,
    /// Since when it has that rate.
    since_ns: u64,
}

impl WallFault {
    fn offset_ns(&self, now_ns: u64) -> i64 {
        let run_ns = i64::try_from(now_ns.saturating_sub(self.since_ns)).unwrap_or(i64::MAX);
        self.step_ns.saturating_add(run_ns.saturating_mul(self.drift_ppm) / 1_000_000)
    }
}

impl HostClock {
    /// A clock that is right.
    pub(crate) fn new(time: SimTime) -> Self {
        Self { time, skew_ms: AtomicI64::new(0), fault: Mutex::default() }
    }

    /// Steps the wall clock, milliseconds; negative is back.
    pub(crate) fn step(&self, by_ms: i64) {
        self.change(|fault| fault.step_ns += by_ms * 1_000_000);
    }

    /// Gives the wall clock a rate error, parts per million; what it gained or lost so far stays.
    pub(crate) fn drift(&self, ppm: i64) {
        self.change(|fault| fault.drift_ppm = ppm);
    }

    /// Sets the wall clock right again.
    pub(crate) fn correct(&self) {
        self.skew_ms.store(0, Ordering::Relaxed);
        self.change(|fault| *fault = WallFault { since_ns: fault.since_ns, ..WallFault::default() });
    }

    fn change(&self, change: impl FnOnce(&mut WallFault)) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = self.time.now_ns();
        *fault = WallFault { step_ns: fault.offset_ns(now_ns), since_ns: now_ns, ..*fault };
        change(&mut fault);
    }
}

impl Clock for HostClock {
    fn wall_ns(&self) -> u64 {
        let now_ns = self.time.now_ns();
        let offset_ns = self.fault.lock().unwrap_or_else(PoisonError::into_inner).offset_ns(now_ns);
        let skew_ns = self.skew_ms.load(Ordering::Relaxed) * 1_000_000;
        (WALL_START_NS + now_ns).saturating_add_signed(offset_ns + skew_ns)
    }

    fn boot_ns(&self) -> u64 {
        SimTime::boot_ns(self.time.now_ns())
    }

    fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn steps_drift_and_skew_add_up_and_leave_the_boot_clock_alone() {
        let time = SimTime::default();
        let clock = HostClock::new(time.clone());
        let offset_ms = |clock: &HostClock, time: &SimTime| {
            (clock.wall_ns() as i64 - (WALL_START_NS + time.now_ns()) as i64) / 1_000_000
        };
        clock.step(-200);
        clock.drift(100_000);
        time.advance_to(10 * SECOND_NS);
        assert_eq!(offset_ms(&clock, &time), -200 + 1000);
        clock.drift(0);
        clock.set_skew_ms(50);
        time.advance_to(20 * SECOND_NS);
        assert_eq!(offset_ms(&clock, &time), -200 + 1000 + 50);
        assert_eq!(clock.boot_ns(), BOOT_START_NS + 20 * SECOND_NS);
        clock.correct();
        assert_eq!(offset_ms(&clock, &time), 0);
    }
}
