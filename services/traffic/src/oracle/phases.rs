//! An outage of writes split into phases.
//!
//! The ends are what clients saw; the moments between them are the servers' and gateways' own, on the same clock. They
//! are clamped to rise and to stay within the outage, so the phases always add up to it.
//!
//! Where there was no failover (active-active, isolation, a broken link), `detect` is the time until the edge's first
//! success after the fault (elsewhere, if the fault struck a region), and the rest is `first_success`.

use std::collections::BTreeMap;

use longhaul_core::report::Phases;
use longhaul_http::trace::trace_id_text;
use longhaul_http::wire::regime::{ChangeState, ChangeStatus};
use longhaul_http::wire::traffic::Outage;

use super::history::Case;
use super::rto::{Recovery, recoveries};
use crate::ledger::Entry;

/// The milestones that end each phase, in order; of several names the first that the change has.
const ENDS: [&[&str]; 4] = [
    &["suspected", "announced"],
    &["decided"],
    &["fenced", "drained"],
    &["activated", "promoted", "flipped", "caught_up"],
];

/// The phases per edge, of the fault whose recovery is reported; edges that did not recover have none.
pub fn phases(case: &Case<'_>) -> BTreeMap<String, Phases> {
    let recoveries = recoveries(case, true);
    recoveries
        .into_iter()
        .filter_map(|(edge, recovery)| {
            let up_ns = recovery.up_ns?;
            let moments = match change_of(case, recovery, up_ns) {
                Some(change) => moments(case, edge, &change),
                None => [first_answer(case, edge, recovery); 5],
            };
            Some((case.ledger.edges[usize::from(edge)].name.clone(), split(recovery.from_ns, moments, up_ns)))
        })
        .collect()
}

/// The same outages for traces: their ends, the change that ended each, and the requests at either end.
pub fn outages(case: &Case<'_>) -> BTreeMap<String, Outage> {
    let trace = |entry: &Entry| entry.trace.map(trace_id_text);
    let recoveries =
        recoveries(case, true).into_iter().filter(|(_, recovery)| recovery.up_ns != Some(recovery.from_ns));
    recoveries
        .map(|(edge, recovery)| {
            let until = recovery.up_ns.unwrap_or(case.ledger.end_ns);
            let within = |entry: &&Entry| {
                let its = entry.edge == edge && entry.kind.writes();
                its && entry.ended_ns > recovery.from_ns && entry.intended_ns < until
            };
            let writes: Vec<&Entry> = case.ledger.measured().filter(within).collect();
            let failed = writes.iter().filter(|entry| !entry.succeeded() && !case.ledger.is_policy_denial(entry));
            let first_failed = failed.min_by_key(|entry| entry.intended_ns);
            let mut succeeded = writes.iter().filter(|entry| entry.succeeded());
            let outage = Outage {
                fault_boot_ns: recovery.from_ns,
                up_boot_ns: recovery.up_ns,
                change: recovery.up_ns.and_then(|up_ns| change_of(case, recovery, up_ns)).map(|c| c.id.to_owned()),
                first_failed: first_failed.and_then(|entry| trace(entry)),
                first_success: succeeded
                    .find(|entry| Some(entry.ended_ns) == recovery.up_ns)
                    .and_then(|entry| trace(entry)),
            };
            (case.ledger.edges[usize::from(edge)].name.clone(), outage)
        })
        .collect()
}

/// A change as all regions together tell it: the earliest moment of each milestone.
struct Joined<'a> {
    id: &'a str,
    epoch_to: u64,
    milestones: BTreeMap<&'a str, u64>,
}

/// The change that ended the outage: of those that completed, the first that began within it.
fn change_of<'a>(case: &'a Case<'_>, recovery: Recovery, up_ns: u64) -> Option<Joined<'a>> {
    let mut by_id: BTreeMap<&str, Vec<&ChangeStatus>> = BTreeMap::new();
    for change in &case.circumstances.changes {
        by_id.entry(&change.id).or_default().push(change);
    }
    let joined = by_id.into_iter().filter(|(_, reports)| reports.iter().any(|r| r.state == ChangeState::Done));
    let joined = joined.map(|(id, reports)| {
        let mut milestones = BTreeMap::new();
        for milestone in reports.iter().flat_map(|report| &report.milestones) {
            let known = milestones.entry(milestone.name.as_str()).or_insert(milestone.boot_ns);
            *known = (*known).min(milestone.boot_ns);
        }
        Joined { id, epoch_to: reports.iter().map(|report| report.epoch_to).max().unwrap_or(0), milestones }
    });
    let began = |change: &Joined<'_>| change.milestones.values().min().copied().unwrap_or(0);
    let within = |change: &Joined<'_>| {
        let ended = change.milestones.values().max().copied().unwrap_or(0);
        ended > recovery.from_ns && began(change) <= up_ns
    };
    joined.filter(within).min_by_key(began)
}

fn moments(case: &Case<'_>, edge: u16, change: &Joined<'_>) -> [Option<u64>; 5] {
    let name = &case.ledger.edges[usize::from(edge)].name;
    let adopted = case.circumstances.gateway_adoptions.iter();
    let adopted = adopted.filter(|a| a.edge == *name && change.epoch_to > 0 && a.epoch >= change.epoch_to);
    let mut moments = [None; 5];
    for (moment, names) in moments.iter_mut().zip(ENDS) {
        *moment = names.iter().find_map(|name| change.milestones.get(name).copied());
    }
    moments[4] = adopted.map(|adoption| adoption.boot_ns).min();
    moments
}

/// The edge's first success that was meant to start after the fault, from another region than the one struck.
fn first_answer(case: &Case<'_>, edge: u16, recovery: Recovery) -> Option<u64> {
    let struck = case.circumstances.faults[recovery.fault].region.as_deref();
    let elsewhere = |region: Option<u16>| {
        let name = region.and_then(|region| case.ledger.regions.get(usize::from(region)));
        struck.is_none() || name.map(String::as_str) != struck
    };
    let entries = case.ledger.measured().filter(|entry| entry.edge == edge && entry.kind.writes());
    let entries = entries.filter(|entry| entry.intended_ns >= recovery.from_ns && entry.succeeded());
    entries.filter(|entry| elsewhere(entry.region)).map(|entry| entry.ended_ns).min()
}

/// The phases between `from`, the moments (a missing one ends its phase at once) and `up`.
fn split(from: u64, moments: [Option<u64>; 5], up: u64) -> Phases {
    let mut last = from;
    let [detect, decide, fence, promote, publish] = moments.map(|moment| {
        let end = moment.unwrap_or(last).clamp(last, up);
        let length_ms = (end - last) as f64 / 1e6;
        last = end;
        length_ms
    });
    let first_success = (up - last) as f64 / 1e6;
    // The sum itself, so that the parts add up to the last bit.
    let total = detect + decide + fence + promote + publish + first_success;
    Phases { detect, decide, fence, promote, publish, first_success, total }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn phases_are_the_gaps_between_the_moments() {
        let moments = [1500, 1600, 3500, 3700, 3900].map(|ms| Some(1000 * MS + ms * MS));
        let phases = split(1000 * MS, moments, 5000 * MS);
        let parts = [phases.detect, phases.decide, phases.fence, phases.promote, phases.publish, phases.first_success];
        let wanted = [1500.0, 100.0, 1900.0, 200.0, 200.0, 100.0];
        assert!(parts.iter().zip(wanted).all(|(part, wanted)| (part - wanted).abs() < 1e-9), "{parts:?}");
        assert!((phases.total - 4000.0).abs() < 1e-9);
    }

    #[test]
    fn moments_out_of_order_missing_or_outside_never_break_the_sum() {
        let moments = [Some(900 * MS), Some(7000 * MS), None, Some(1200 * MS), Some(2000 * MS)];
        let phases = split(1000 * MS, moments, 5000 * MS);
        assert_eq!((phases.detect, phases.decide, phases.fence), (0.0, 4000.0, 0.0));
        assert_eq!((phases.promote, phases.publish, phases.first_success), (0.0, 0.0, 0.0));
        let sum = phases.detect + phases.decide + phases.fence + phases.promote + phases.publish + phases.first_success;
        assert!(sum.to_bits() == phases.total.to_bits());
    }

    #[test]
    fn a_failover_is_joined_from_several_regions_and_ends_at_the_edge() {
        let mut scene = Scene::new();
        for tenth in 0..400 {
            let at_s = f64::from(tenth) / 10.0;
            if (20.0..24.0).contains(&at_s) {
                scene.failed_put(0, at_s, at_s + 0.5);
            } else {
                scene.put(0, at_s, at_s + 0.05);
            }
        }
        scene.fault("region-loss", 20.0, Some("eu"));
        scene.change("f", 7, &[("suspected", 21.5), ("fenced", 23.5), ("activated", 23.7)]);
        scene.change("f", 7, &[("suspected", 21.4), ("decided", 21.6)]);
        scene.adoption("london", 7, 23.8);
        let phases = scene.judge(phases)["london"];
        // Up at 24.05 s.
        let parts = [phases.detect, phases.decide, phases.fence, phases.promote, phases.publish, phases.first_success];
        for (part, wanted) in parts.into_iter().zip([1400.0, 200.0, 1900.0, 200.0, 100.0, 250.0]) {
            assert!((part - wanted).abs() < 1e-3, "{parts:?}");
        }
        assert!((phases.total - 4050.0).abs() < 1e-3);
    }

    #[test]
    fn without_a_failover_detection_ends_with_the_first_success_elsewhere() {
        let mut scene = Scene::new();
        for tenth in 0..400 {
            let at_s = f64::from(tenth) / 10.0;
            match at_s {
                t if (20.0..22.0).contains(&t) => scene.failed_put(0, t, t + 0.5),
                t if (20.0..23.0).contains(&t) && tenth % 2 == 0 => scene.failed_put(0, t, t + 0.5),
                t => scene.put_at(1, 0, t, t + 0.05),
            };
        }
        scene.fault("region-loss", 20.0, Some("eu"));
        let phases = scene.judge(phases)["london"];
        // First success: meant for 22.1 s, ended at 22.15 s. The last failure is meant for 22.8 s; up at 22.95 s.
        assert!((phases.detect - 2150.0).abs() < 1e-3 && (phases.first_success - 800.0).abs() < 1e-3, "{phases:?}");
    }
}
