//! Residency: foreign bytes where they must not be. Counted in isolation only.
//!
//! A violation is a distinct pair of record and place: a place in a region's storage that a sweep found, or an answer
//! that some other region than the home gave while isolation was in force.

use std::collections::BTreeSet;

use longhaul_core::regime::Mode;

use super::history::Case;
use crate::evidence::Foreign;
use crate::value::Observed;

/// Examples kept.
const EXAMPLES_MAX: usize = 20;

/// How many violations, and a line for each of the first 20.
pub fn residency(case: &Case<'_>) -> (u64, Vec<String>) {
    let mut found: BTreeSet<Foreign> = BTreeSet::new();
    if case.last_mode() == Mode::RegionalIsolation {
        found.extend(case.evidence.regions.values().flat_map(|region| region.swept.iter().cloned()));
    }
    found.extend(served_abroad(case));
    let line = |foreign: &Foreign| format!("{} found at {}", case.ledger.key_text(foreign.key), foreign.place);
    (found.len() as u64, found.iter().take(EXAMPLES_MAX).map(line).collect())
}

/// Operations that began and ended in isolation and that another region than the home served.
fn served_abroad<'c>(case: &'c Case<'_>) -> impl Iterator<Item = Foreign> + 'c {
    let modes = case.modes();
    let isolated = move |from_ns: u64, to_ns: u64| {
        modes.iter().enumerate().any(|(order, (start, mode))| {
            let end = modes.get(order + 1).map_or(u64::MAX, |(next, _)| *next);
            *mode == Mode::RegionalIsolation && *start <= from_ns && to_ns < end
        })
    };
    case.ledger.entries.iter().filter_map(move |entry| {
        let name = case.ledger.regions.get(usize::from(entry.region?))?;
        let carried = entry.kind.writes() || !matches!(entry.observed, Observed::Nothing | Observed::Absent);
        let abroad = entry.succeeded() && carried && name != case.ledger.home_name(entry.key);
        (abroad && isolated(entry.sent_ns, entry.ended_ns))
            .then(|| Foreign { key: entry.key, place: format!("{name}: answer to a user") })
    })
}

#[cfg(test)]
mod tests {
    use longhaul_http::wire::traffic::ModeSpan;

    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn a_record_counts_once_for_each_place_and_only_in_isolation() {
        let mut scene = Scene::new();
        let op = scene.put_at(1, 0, 5.0, 5.1); // a record of eu, served by us
        let place = "us: records.sqlite-wal".to_owned();
        let key = scene.ledger.entries[op].key;
        for _ in 0..2 {
            scene.region("us").swept.push(Foreign { key, place: place.clone() });
        }
        assert_eq!(scene.judge(residency).0, 0);
        // Isolation from 6 s on: what us served before that was right then, what it still keeps is not.
        let boot_ns = scene.at(6.0);
        scene.circumstances.modes.push(ModeSpan { boot_ns, mode: Mode::RegionalIsolation });
        let (count, examples) = scene.judge(residency);
        assert_eq!((count, examples.len()), (1, 1));
        assert!(examples[0].contains("eu/") && examples[0].contains("records.sqlite-wal"), "{examples:?}");
        scene.put_at(1, 0, 7.0, 7.1);
        assert_eq!(scene.judge(residency).0, 2);
    }
}
