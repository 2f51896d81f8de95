//! The run second by second, and the moments worth a mark.

use std::collections::BTreeMap;

use longhaul_core::report::{Mark, SecondPoint};

use super::availability::in_time;
use super::history::Case;
use super::latency::Durations;

/// Per edge and second of the intended start; policy denials are left out. Seconds without an operation are there too.
pub fn timeline(case: &Case<'_>) -> BTreeMap<String, Vec<SecondPoint>> {
    let ledger = case.ledger;
    let seconds = ledger.end_ns.saturating_sub(ledger.start_ns).div_ceil(1_000_000_000) as usize;
    let blank = || (0..seconds).map(|second| SecondPoint { second: second as u32, ..SecondPoint::default() });
    let mut points: Vec<Vec<SecondPoint>> = ledger.edges.iter().map(|_| blank().collect()).collect();
    let mut latencies: BTreeMap<(u16, usize), Vec<u64>> = BTreeMap::new();
    for entry in ledger.measured().filter(|entry| !ledger.is_policy_denial(entry)) {
        let second = ((entry.intended_ns - ledger.start_ns) / 1_000_000_000) as usize;
        let Some(point) = points[usize::from(entry.edge)].get_mut(second) else { continue };
        let ok = in_time(case, entry);
        let (all, succeeded) = if entry.kind.writes() {
            (&mut point.writes, &mut point.writes_ok)
        } else {
            (&mut point.reads, &mut point.reads_ok)
        };
        *all += 1;
        *succeeded += u32::from(ok);
        if ok {
            let latency_ns = entry.ended_ns.saturating_sub(entry.intended_ns);
            latencies.entry((entry.edge, second)).or_default().push(latency_ns);
        }
    }
    let mut durations = Durations::new();
    for ((edge, second), latencies) in latencies {
        durations.clear();
        for latency_ns in latencies {
            durations.add(latency_ns);
        }
        let percentiles = durations.percentiles();
        let point = &mut points[usize::from(edge)][second];
        point.p50_ms = percentiles.p50;
        point.p99_ms = percentiles.p99;
    }
    ledger.edges.iter().map(|edge| edge.name.clone()).zip(points).collect()
}

/// Faults, their healing, the phases of changes and the modes, in order of time.
pub fn marks(case: &Case<'_>) -> Vec<Mark> {
    let mut marks: Vec<(u64, &'static str, String)> = Vec::new();
    for fault in &case.circumstances.faults {
        marks.push((fault.boot_ns, "fault", fault.what.clone()));
        if let Some(heal_ns) = fault.heal_boot_ns {
            marks.push((heal_ns, "heal", format!("healed: {}", fault.what)));
        }
    }
    let mut phases: BTreeMap<(&str, &str), (u64, String)> = BTreeMap::new();
    for change in &case.circumstances.changes {
        for milestone in &change.milestones {
            let text = format!("{} {} at {}", change.kind, milestone.name, milestone.region);
            let known =
                phases.entry((&change.id, &milestone.name)).or_insert_with(|| (milestone.boot_ns, text.clone()));
            if milestone.boot_ns < known.0 {
                *known = (milestone.boot_ns, text);
            }
        }
    }
    marks.extend(phases.into_values().map(|(boot_ns, text)| (boot_ns, "phase", text)));
    let modes = case.circumstances.modes.iter();
    marks.extend(modes.map(|span| (span.boot_ns, "regime", format!("{} in force", span.mode))));
    marks.sort();
    let mark = |(boot_ns, kind, text): (u64, &str, String)| Mark {
        at_s: case.ledger.seconds(boot_ns),
        kind: kind.to_owned(),
        text,
    };
    marks.into_iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn a_second_holds_what_was_meant_to_start_in_it() {
        let mut scene = Scene::new();
        scene.put(0, 2.5, 2.6);
        scene.failed_put(0, 2.9, 3.4);
        scene.read(0, 3.0, 3.02, None);
        scene.denied_read(3.5);
        let london = &scene.judge(timeline)["london"];
        assert_eq!(london.len(), 40);
        assert_eq!((london[2].writes, london[2].writes_ok, london[2].reads), (2, 1, 0));
        assert_eq!((london[3].reads, london[3].reads_ok, london[3].writes), (1, 1, 0));
        assert!((london[2].p50_ms - 100.0).abs() < 0.2 && (london[3].p99_ms - 20.0).abs() < 0.1);
    }

    #[test]
    fn marks_are_in_order_and_a_milestone_told_twice_is_one() {
        let mut scene = Scene::new();
        scene.change("f", 7, &[("suspected", 21.5)]);
        scene.change("f", 7, &[("suspected", 21.4)]);
        scene.fault("region-loss", 20.0, Some("eu"));
        let marks = scene.judge(marks);
        let kinds: Vec<&str> = marks.iter().map(|mark| mark.kind.as_str()).collect();
        assert_eq!(kinds, ["fault", "phase"]);
        assert!((marks[1].at_s - 21.4).abs() < 1e-6);
    }
}
