//! Random histories of active-active replication over the shipped rules: clock, merge, chain, apply, frontier,
//! snapshot, relay. Nothing is decided twice: the replicas here only keep data and ask the rules.
//!
//! `LONGHAUL_HISTORIES` sets how many histories the first test runs (10 000 unless told). A failure names its seed;
//! `LONGHAUL_SEED` runs that one alone.

#![allow(missing_docs, reason = "a test")]

mod mutant;
mod oracle;
mod replica;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mutant::Mutant;
use world::{Stats, run};

/// Histories in which each mutant must be caught.
const MUTANT_HISTORIES: u64 = 4_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds from 1 on all cores. The sum of what happened, or the smallest seed known to fail.
fn run_all(histories: u64, mutant: Mutant) -> Result<Stats, (u64, String)> {
    let (next, stop) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let worker = || {
        let mut total = Stats::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > histories || seed > stop.load(Ordering::Relaxed) {
                return Ok(total);
            }
            match run(seed, mutant) {
                Ok(stats) => total += stats,
                Err(error) => {
                    stop.fetch_min(seed, Ordering::Relaxed);
                    return Err((seed, error));
                }
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a history panicked")).collect()
    });
    let mut total = Stats::default();
    let mut first: Option<(u64, String)> = None;
    for result in results {
        match result {
            Ok(stats) => total += stats,
            Err(failure) => first = Some(first.map_or(failure.clone(), |first| first.min(failure))),
        }
    }
    first.map_or(Ok(total), Err)
}

#[test]
fn every_invariant_holds_in_every_random_history() {
    if let Some(seed) = setting("LONGHAUL_SEED") {
        run(seed, Mutant::None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        return;
    }
    let histories = setting("LONGHAUL_HISTORIES").unwrap_or(10_000);
    let stats = run_all(histories, Mutant::None).unwrap_or_else(|(seed, error)| panic!("seed {seed}: {error}"));
    println!("{histories} histories: {stats:?}");
    // A run in which these never happened would prove nothing.
    for (what, count) in [
        ("writes", stats.writes),
        ("refused writes", stats.refused_writes),
        ("batches", stats.batches),
        ("relayed batches", stats.relayed),
        ("refused batches", stats.refused_batches),
        ("snapshots", stats.snapshots),
        ("collected tombstones", stats.collected),
        ("lost disks", stats.disks_lost),
        ("evictions", stats.evictions),
        ("restarts", stats.restarts),
    ] {
        assert!(count * 10 >= histories, "only {count} {what} in {histories} histories");
    }
}

#[test]
fn every_rule_broken_on_purpose_is_caught() {
    for mutant in Mutant::ALL {
        match run_all(MUTANT_HISTORIES, mutant) {
            Ok(stats) => {
                panic!("{mutant:?} went unnoticed in {MUTANT_HISTORIES} histories: {stats:?}")
            }
            Err((seed, error)) => println!("{mutant:?}: caught in history {seed}: {error}"),
        }
    }
}

/// The rules that the shipped code itself can have broken.
#[cfg(feature = "mutants")]
#[test]
fn shipped_rules_broken_on_purpose_are_noticed() {
    use longhaul_core::mutants::{Rule, break_rule};
    for rule in [Rule::Frontier, Rule::SnapshotMerge] {
        let _broken = break_rule(rule);
        let noticed = (1..=MUTANT_HISTORIES).find_map(|seed| run(seed, Mutant::None).err().map(|error| (seed, error)));
        let (seed, error) = noticed.unwrap_or_else(|| panic!("{rule:?} went unnoticed"));
        println!("{rule:?}: noticed in history {seed}: {error}");
    }
}

#[test]
fn a_seed_is_a_history() {
    let stats = |seed| format!("{:?}", run(seed, Mutant::None));
    assert_eq!(stats(7), stats(7));
    assert_ne!(stats(7), stats(8));
}
