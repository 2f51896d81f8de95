//! Rules broken on purpose: each must be noticed within the seeds that continuous integration runs.
//! `LONGHAUL_RULE=Name` breaks that one alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use longhaul_core::mutants::{Rule, break_rule};
use longhaul_core::topology::Topology;
use longhaul_simulation::{USUAL_TOPOLOGY, run_chaos};

/// Seeds until a broken rule must have been noticed.
const SEEDS: u64 = 500;

/// What shows that the rule is broken, by how a violation begins; and the seed to begin with, which noticed when it was
/// last looked for. Where that one no longer does, the search goes on. That something else went wrong is not enough.
const NOTICED: [(Rule, &[&str], u64); 10] = [
    (Rule::FenceAtAcknowledgement, &["I1:"], 12),
    // A voter that has forgotten that it ever voted never votes again: the others remember.
    (Rule::DurablePromise, &["I1:", "I2:", "I9:", "I14:", "not within"], 57),
    (Rule::Cut, &["I6:"], 6),
    (Rule::Majority, &["I1:", "I2:", "I14:"], 7),
    (Rule::Frontier, &["I10:"], 2),
    (Rule::SnapshotMerge, &["I5:"], 143),
    (Rule::RestoredClock, &["I3:", "I4:"], 0),
    (Rule::Credit, &["not within"], 1),
    (Rule::VectorToken, &["reads were older"], 2),
    (Rule::IdempotencyWithWrite, &["I11:"], 138),
];

/// The first seed that notices, and how.
fn noticed(topology: &Topology, rule: Rule) -> Option<(u64, String)> {
    // A rule is broken in one thread, and a simulation is one thread.
    let _broken = break_rule(rule);
    let (_, kinds, likely) = NOTICED.into_iter().find(|(other, ..)| *other == rule)?;
    [likely].into_iter().chain(0..SEEDS).find_map(|seed| {
        let run = run_chaos(topology, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let shows = |violation: &String| kinds.iter().any(|kind| violation.starts_with(kind));
        Some((seed, run.violations.into_iter().find(shows)?))
    })
}

#[test]
fn every_broken_rule_is_noticed() {
    let topology = Topology::shipped(USUAL_TOPOLOGY).unwrap().unwrap();
    let only = std::env::var("LONGHAUL_RULE").ok();
    let wanted = |rule: &Rule| only.as_ref().is_none_or(|only| *only == format!("{rule:?}"));
    let rules: Vec<Rule> = Rule::ALL.into_iter().filter(wanted).collect();
    assert!(!rules.is_empty(), "LONGHAUL_RULE names none of {:?}", Rule::ALL);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicUsize::new(0);
    let unnoticed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match noticed(&topology, *rule) {
                        Some((seed, violation)) => eprintln!("{rule:?} is noticed by seed {seed}: {violation}"),
                        None => unnoticed.lock().unwrap().push(*rule),
                    }
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "not noticed within {SEEDS} seeds: {unnoticed:?}");
}
