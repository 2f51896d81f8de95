//! Rules broken on purpose: each must be noticed within the seeds that continuous integration runs.

use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_core::mutants::{Rule, break_rule};
use longhaul_core::topology::Topology;
use longhaul_simulation::run_chaos;

/// Seeds until a broken rule must have been noticed.
const SEEDS: u64 = 500;

/// The first seed that notices, searched on every core, and how.
fn noticed(rule: Rule) -> Option<(u64, String)> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let (next, found) = (AtomicU64::new(0), std::sync::Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let topology = Topology::shipped("three-continents").unwrap().unwrap();
                // A rule is broken in one thread, and a simulation is one thread.
                let _broken = break_rule(rule);
                while found.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let run = run_chaos(&topology, seed).unwrap();
                    if let Some(violation) = run.violations.first() {
                        found.lock().unwrap().get_or_insert((seed, violation.clone()));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn every_broken_rule_is_noticed() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL {
        match noticed(rule) {
            Some((seed, violation)) => eprintln!("{rule:?} is noticed by seed {seed}: {violation}"),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed within {SEEDS} seeds: {unnoticed:?}");
}
