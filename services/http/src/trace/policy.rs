//! What a process records: one setting for the process, as there is one subscriber. The binary sets it; the default
//! keeps every trace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One part of 2^63 of all trace ids.
const WHOLE: u64 = 1 << 63;

static RECORDING: AtomicBool = AtomicBool::new(true);
static BELOW: AtomicU64 = AtomicU64::new(WHOLE);
static SLOW_NS: AtomicU64 = AtomicU64::new(u64::MAX);

/// What to record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Whether anything is recorded at all: nothing is, where nothing is exported.
    pub recording: bool,
    /// Share of requests whose trace is kept, 0 to 1.
    pub ratio: f64,
    /// Requests that took this long are kept, whatever the share.
    pub slow: Duration,
}

impl Policy {
    /// Nothing is recorded.
    pub const OFF: Self = Self { recording: false, ratio: 0.0, slow: Duration::MAX };
}

/// Sets the policy of the process.
pub fn set(policy: Policy) {
    RECORDING.store(policy.recording, Ordering::Relaxed);
    BELOW.store((policy.ratio.clamp(0.0, 1.0) * WHOLE as f64) as u64, Ordering::Relaxed);
    SLOW_NS.store(u64::try_from(policy.slow.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Whether this process records spans.
pub fn is_recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// Whether a trace that begins here is kept: a function of its id, so that whoever asks again decides the same.
pub fn chooses(trace_id: [u8; 16]) -> bool {
    let low = u64::from_be_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|byte| trace_id[byte]));
    low >> 1 < BELOW.load(Ordering::Relaxed)
}

/// Whether a request that took so long is kept in any case.
pub fn is_slow(took: Duration) -> bool {
    is_slow_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

/// The same, in nanoseconds.
pub fn is_slow_ns(took_ns: u64) -> bool {
    is_recording() && took_ns >= SLOW_NS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::super::TraceIds;
    use super::*;

    // One test: the policy is the process's.
    #[test]
    fn the_share_that_is_kept_is_the_one_asked_for() {
        let ids = TraceIds::new(5);
        let kept = |ratio: f64| {
            set(Policy { recording: true, ratio, slow: Duration::from_millis(500) });
            (0..4000).filter(|_| ids.request().flags == 1).count()
        };
        assert_eq!((kept(0.0), kept(1.0)), (0, 4000));
        let tenth = kept(0.1);
        assert!((300..500).contains(&tenth), "{tenth} of 4000");
        assert!(is_slow(Duration::from_millis(500)) && !is_slow(Duration::from_millis(499)));
        set(Policy::OFF);
        assert!(!is_slow(Duration::MAX) && !is_recording());
        assert!(!super::super::records(ids.root()));
        set(Policy { recording: true, ratio: 1.0, slow: Duration::MAX });
    }
}
