//! The time seam: wall clock (with injected skew) and boot clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Where time comes from. Sleeping is `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, nanoseconds since the Unix epoch, with the injected skew. For versions only.
    fn wall_ns(&self) -> u64;
    /// Time since boot, suspend included (`CLOCK_BOOTTIME`), nanoseconds. For leases, deadlines and the ledger: one
    /// clock for all processes of a host, never skewed.
    fn boot_ns(&self) -> u64;
    /// Sets the injected skew of the wall clock, milliseconds; negative is behind.
    fn set_skew_ms(&self, skew_ms: i64);
    /// The injected skew, milliseconds.
    fn skew_ms(&self) -> i64;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Default)]
pub struct SystemClock {
    skew_ms: AtomicI64,
    /// Added to the time since boot.
    origin_ns: u64,
}

impl SystemClock {
    /// Clocks for processes on several hosts: the boot clock counts from the Unix epoch, as the wall clock says at this
    /// moment, and goes on without steps. Hosts then agree as well as whatever disciplines their wall clocks makes them,
    /// and so do figures that compare moments on two of them.
    pub fn anchored_to_wall() -> Self {
        let origin_ns = read(ClockId::Realtime).saturating_sub(read(ClockId::Boottime));
        Self { origin_ns, ..Self::default() }
    }
}

fn read(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

impl Clock for SystemClock {
    fn wall_ns(&self) -> u64 {
        read(ClockId::Realtime).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed) * 1_000_000)
    }

    fn boot_ns(&self) -> u64 {
        read(ClockId::Boottime) + self.origin_ns
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

    #[test]
    fn an_anchored_boot_clock_tells_the_wall_clocks_time_whatever_the_skew() {
        let clock = SystemClock::anchored_to_wall();
        let apart_ns = |clock: &SystemClock| clock.wall_ns().abs_diff(clock.boot_ns());
        // Two readings, one after the other.
        assert!(apart_ns(&clock) < 1_000_000_000, "{}", apart_ns(&clock));
        clock.set_skew_ms(60_000);
        assert!(apart_ns(&clock) > 59_000_000_000);
        assert!(SystemClock::default().boot_ns() < clock.boot_ns());
    }
}
