//! What one edge's users do right now, for people who watch.

use std::sync::{Mutex, PoisonError};

use longhaul_http::wire::traffic::EdgeProgress;

use crate::ledger::Outcome;

/// Latencies kept per second: enough for a median.
const SAMPLES_MAX: usize = 4096;

/// Counters of one edge.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    totals: EdgeProgress,
    current: Second,
    last: Second,
}

#[derive(Debug, Default, Clone)]
struct Second {
    number: u64,
    ended: u64,
    ok: u64,
    latencies_ns: Vec<u64>,
}

impl Live {
    /// An operation began.
    pub(crate) fn began(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).totals.sent += 1;
    }

    /// An operation ended at `now_ns`, `latency_ns` after its intended start.
    pub(crate) fn ended(&self, now_ns: u64, outcome: Outcome, latency_ns: u64) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        let number = now_ns / 1_000_000_000;
        if number > state.current.number {
            let next = Second { number, ..Second::default() };
            state.last = std::mem::replace(&mut state.current, next);
        }
        // Of an operation that ended a second ago and is told only now, the totals still count.
        let second = if number == state.current.number { &mut state.current } else { &mut state.last };
        second.ended += 1;
        match outcome {
            Outcome::Ok => {
                state.totals.ok += 1;
                second.ok += 1;
                if second.latencies_ns.len() < SAMPLES_MAX {
                    second.latencies_ns.push(latency_ns);
                }
            }
            Outcome::Failed => state.totals.failed += 1,
            Outcome::Unknown => state.totals.unknown += 1,
        }
    }

    /// The totals, and the last full second before `now_ns`.
    pub(crate) fn progress(&self, now_ns: u64) -> EdgeProgress {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (now_ns / 1_000_000_000).saturating_sub(1);
        let second = [&state.current, &state.last].into_iter().find(|second| second.number == wanted);
        let (mut p50_ms, mut ok_share) = (0.0, 1.0);
        if let Some(second) = second.filter(|second| second.ended > 0) {
            ok_share = second.ok as f64 / second.ended as f64;
            let mut latencies_ns = second.latencies_ns.clone();
            latencies_ns.sort_unstable();
            p50_ms = latencies_ns.get(latencies_ns.len() / 2).map_or(0.0, |ns| *ns as f64 / 1e6);
        }
        EdgeProgress { p50_ms, ok_share, ..state.totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_last_full_second_is_shown_and_an_idle_one_is_not_an_outage() {
        let live = Live::default();
        for latency_ms in [10, 20, 30] {
            live.began();
            live.ended(5 * SECOND, Outcome::Ok, latency_ms * 1_000_000);
        }
        live.began();
        live.ended(5 * SECOND + 1, Outcome::Failed, 1);
        let shown = live.progress(6 * SECOND + 5);
        assert_eq!((shown.sent, shown.ok, shown.failed), (4, 3, 1));
        assert!((shown.p50_ms - 20.0).abs() < 1e-9 && (shown.ok_share - 0.75).abs() < 1e-9);
        let idle = live.progress(9 * SECOND);
        assert!((idle.ok_share - 1.0).abs() < 1e-9 && idle.p50_ms.abs() < 1e-9);
    }
}
