//! Recovery time, as clients saw it.

use std::collections::BTreeMap;

use longhaul_core::report::ReadWrite;
use longhaul_http::wire::traffic::FaultMark;

use super::history::Case;
use crate::ledger::Entry;

/// Service is up once this share of the operations of the window succeeds.
const UP_SHARE: f64 = 0.99;
/// How far ahead service has to stay up.
const WINDOW_NS: u64 = 5_000_000_000;
/// A window that the next fault or the end of the run cuts shorter than this says nothing.
const WINDOW_MIN_NS: u64 = 1_000_000_000;
/// Actions that heal; no recovery is measured from them.
const HEALING: [&str; 5] = ["region-return", "restart", "resume", "heal-links", "decide"];

/// A recovery: from which fault, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Index into the faults of the circumstances.
    pub fault: usize,
    /// When the fault began, nanoseconds since boot.
    pub from_ns: u64,
    /// When service was up again; equal to `from_ns` if nothing failed; `None` if it did not recover.
    pub up_ns: Option<u64>,
}

impl Recovery {
    fn millis(&self) -> Option<f64> {
        self.up_ns.map(|up_ns| (up_ns - self.from_ns) as f64 / 1e6)
    }
}

/// The worst recovery of each edge's writes (or reads); empty if nothing was done that needs one.
pub fn recoveries(case: &Case<'_>, writes: bool) -> BTreeMap<u16, Recovery> {
    let mut faults: Vec<(usize, &FaultMark)> = case.circumstances.faults.iter().enumerate().collect();
    faults.retain(|(_, fault)| !HEALING.contains(&fault.kind.as_str()));
    faults.sort_by_key(|(_, fault)| fault.boot_ns);
    let mut worst = BTreeMap::new();
    for edge in 0..case.ledger.edges.len() as u16 {
        let mut operations: Vec<&Entry> = case
            .ledger
            .measured()
            .filter(|entry| entry.edge == edge && entry.kind.writes() == writes)
            .filter(|entry| !case.ledger.is_policy_denial(entry))
            .collect();
        operations.sort_by_key(|entry| entry.intended_ns);
        let each = faults.iter().enumerate().map(|(order, (fault, mark))| {
            let next = faults.get(order + 1).map(|(_, next)| next.boot_ns);
            let until = next.unwrap_or(case.ledger.end_ns);
            // What the next fault catches under way is of that one.
            let own: Vec<&Entry> =
                operations.iter().copied().filter(|entry| next.is_none_or(|next| entry.ended_ns <= next)).collect();
            Recovery { fault: *fault, from_ns: mark.boot_ns, up_ns: up_again(&own, mark.boot_ns, until) }
        });
        // Not recovered is worse than any time; of equal ones the first fault counts.
        let rank = |recovery: &Recovery| recovery.millis().unwrap_or(f64::INFINITY);
        let found = each.reduce(|a, b| if rank(&b) > rank(&a) { b } else { a });
        worst.extend(found.map(|recovery| (edge, recovery)));
    }
    worst
}

/// When service was up again after a fault at `from`, judged up to `until` (the next fault or the end): the end of the
/// first success after which at least 99 % of the operations that were meant to start in the next 5 s succeeded.
/// `operations` are in order of their intended start.
fn up_again(operations: &[&Entry], from: u64, until: u64) -> Option<u64> {
    let concerned = |entry: &&&Entry| entry.ended_ns > from && entry.intended_ns < until;
    if operations.iter().filter(concerned).all(|entry| entry.succeeded()) {
        return Some(from);
    }
    // Successes so far, so that any window is counted in two look-ups.
    let mut sums = Vec::with_capacity(operations.len() + 1);
    sums.push(0_u32);
    for entry in operations {
        sums.push(sums[sums.len() - 1] + u32::from(entry.succeeded()));
    }
    let stays_up = |at: u64| {
        let end = (at + WINDOW_NS).min(until);
        if end < at + WINDOW_MIN_NS {
            return false;
        }
        let first = operations.partition_point(|entry| entry.intended_ns < at);
        let last = operations.partition_point(|entry| entry.intended_ns < end);
        let ok = f64::from(sums[last] - sums[first]);
        last > first && ok >= UP_SHARE * (last - first) as f64
    };
    let mut successes: Vec<u64> =
        operations.iter().filter(concerned).filter(|entry| entry.succeeded()).map(|entry| entry.ended_ns).collect();
    successes.sort_unstable();
    successes.into_iter().find(|at| stays_up(*at))
}

/// Recovery times per edge, milliseconds.
pub fn rto_ms(case: &Case<'_>) -> BTreeMap<String, ReadWrite> {
    let (reads, writes) = (recoveries(case, false), recoveries(case, true));
    by_edge(case, |edge| {
        let (read, write) = (reads.get(&edge)?, writes.get(&edge)?);
        Some(ReadWrite { read: read.millis(), write: write.millis() })
    })
}

/// How finely they are resolved: the mean gap between operations of the kind, milliseconds.
pub fn resolution_ms(case: &Case<'_>) -> BTreeMap<String, ReadWrite> {
    if case.circumstances.faults.is_empty() {
        return BTreeMap::new();
    }
    let span_ms = (case.ledger.end_ns - case.ledger.start_ns) as f64 / 1e6;
    by_edge(case, |edge| {
        let gap = |writes: bool| {
            let of_kind = case.ledger.measured().filter(|entry| entry.edge == edge && entry.kind.writes() == writes);
            Some(of_kind.count()).filter(|count| *count > 0).map(|count| span_ms / count as f64)
        };
        Some(ReadWrite { read: gap(false), write: gap(true) })
    })
}

fn by_edge<T>(case: &Case<'_>, of: impl Fn(u16) -> Option<T>) -> BTreeMap<String, T> {
    let edges = case.ledger.edges.iter().zip(0..);
    edges.filter_map(|(edge, index)| Some((edge.name.clone(), of(index)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    /// Ten writes a second for 40 s at one edge; those meant to start in [20, 23) fail after 1 s.
    fn outage(scene: &mut Scene) {
        for tenth in 0..400 {
            let at_s = f64::from(tenth) / 10.0;
            if (20.0..23.0).contains(&at_s) {
                scene.failed_put(0, at_s, at_s + 1.0);
            } else {
                scene.put(0, at_s, at_s + 0.02);
            }
        }
    }

    fn write_ms(scene: &Scene) -> Option<f64> {
        scene.judge(rto_ms)["london"].write
    }

    #[test]
    fn recovery_is_the_first_success_after_which_service_stays_up() {
        let mut scene = Scene::new();
        outage(&mut scene);
        // Nothing was done, so there is nothing to recover from.
        assert!(scene.judge(rto_ms).is_empty());
        scene.fault("region-loss", 20.0, Some("eu"));
        // The first write that succeeds is meant to start at 23.0 s and ends at 23.02 s: 3020 ms.
        assert!((write_ms(&scene).unwrap() - 3020.0).abs() < 1e-3, "{:?}", write_ms(&scene));
        assert_eq!(scene.judge(rto_ms)["london"].read, Some(0.0));
        assert_eq!(scene.judge(resolution_ms)["london"].write, Some(100.0));
    }

    #[test]
    fn one_lucky_success_during_the_outage_is_no_recovery() {
        let mut scene = Scene::new();
        outage(&mut scene);
        scene.put(0, 21.05, 21.1);
        scene.fault("region-loss", 20.0, Some("eu"));
        assert!((write_ms(&scene).unwrap() - 3020.0).abs() < 1e-3);
    }

    #[test]
    fn nothing_failed_is_zero_and_never_up_again_is_absent() {
        let mut scene = Scene::new();
        for tenth in 0..400 {
            let at_s = f64::from(tenth) / 10.0;
            if at_s < 30.0 {
                scene.put(0, at_s, at_s + 0.02)
            } else {
                scene.failed_put(0, at_s, at_s + 1.0)
            };
        }
        scene.fault("switchover", 10.0, None);
        scene.fault("region-return", 25.0, None);
        // A fault at 10 s judged up to the end: failures from 30 s on are of it, and were preceded by full service.
        assert!((write_ms(&scene).unwrap() - 20.0).abs() < 1e-3, "{:?}", write_ms(&scene));
        scene.fault("region-loss", 30.0, Some("eu"));
        assert_eq!(write_ms(&scene), None);
    }

    #[test]
    fn what_the_next_fault_catches_under_way_is_no_outage_of_the_one_before() {
        let mut scene = Scene::new();
        // Meant to start just before the region is lost.
        for hundredth in 0..20 {
            scene.failed_put(0, 19.8 + f64::from(hundredth) / 100.0, 21.5);
        }
        outage(&mut scene);
        scene.fault("kill", 15.0, None);
        assert_eq!(write_ms(&scene).map(f64::round), Some(8020.0), "of the only fault it is");
        scene.fault("region-loss", 20.0, Some("eu"));
        assert_eq!(write_ms(&scene).map(f64::round), Some(3020.0));
    }

    #[test]
    fn operations_that_the_regime_forbids_are_no_outage() {
        let mut scene = Scene::new();
        for tenth in 0..400 {
            let at_s = f64::from(tenth) / 10.0;
            scene.put(0, at_s, at_s + 0.02);
            scene.denied_read(at_s);
        }
        scene.fault("region-loss", 20.0, None);
        assert_eq!(scene.judge(rto_ms)["london"], ReadWrite { read: Some(0.0), write: Some(0.0) });
    }
}
