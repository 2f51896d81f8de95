//! Random histories of active-passive replication over the shipped rules: regions with voters, leases and logs, failovers
//! by any region, planned switchovers, partitions in one or both directions, crashes that lose everything volatile.
//! Every rule is broken on purpose as well, to show that the invariants bite.
//!
//! `LONGHAUL_HISTORIES` sets the number of histories (10 000 if unset).

mod actions;
mod history;
mod votes;
mod world;

use longhaul_core::regime::Durability;
use world::{Mutant, Settings, Summary, run};

const DURABILITIES: [Durability; 4] = [Durability::Local, Durability::Semi(1), Durability::Semi(2), Durability::Sync];

fn histories() -> u64 {
    std::env::var("LONGHAUL_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// Three regions in three histories of four, five in the fourth.
fn settings(seed: u64, mutant: Option<Mutant>) -> Settings {
    let durability = DURABILITIES[(seed % 4) as usize];
    let regions = if (seed / 4) % 4 == 3 { 5 } else { 3 };
    Settings { seed, regions, durability, mutant }
}

#[test]
fn no_history_breaks_an_invariant() {
    let total = histories();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4) as u64;
    let results: Vec<(Summary, Vec<String>)> = std::thread::scope(|scope| {
        let work = |first| {
            let (mut summary, mut broken) = (Summary::default(), Vec::new());
            for seed in (first..total).step_by(threads as usize) {
                match run(settings(seed, None)) {
                    Ok(history) => summary.add(&history),
                    Err(violation) => broken.push(format!("history {seed}: {violation}")),
                }
            }
            (summary, broken)
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || work(first))).collect();
        workers.into_iter().map(|worker| worker.join().expect("the harness does not panic")).collect()
    });
    let broken: Vec<&String> = results.iter().flat_map(|(_, broken)| broken).collect();
    assert!(
        broken.is_empty(),
        "{} of {total} histories are bad, among them {:#?}",
        broken.len(),
        &broken[..broken.len().min(8)]
    );
    let mut all = Summary::default();
    for (summary, _) in &results {
        all.add(summary);
    }
    println!("{total} histories: {all:?}");
    assert!(all.failovers > total / 20, "the histories do not exercise failover: {all:?}");
    assert!(all.switchovers > total / 40, "the histories do not exercise switchover: {all:?}");
    assert!(all.acknowledged > total, "the histories acknowledge too little: {all:?}");
}

/// The first of so many histories that shows the broken rule.
fn caught(mutant: Mutant) {
    const TRIES: u64 = 6000;
    for seed in 0..TRIES {
        if let Err(violation) = run(settings(seed, Some(mutant))) {
            println!("{mutant:?} was caught by history {seed}: {violation}");
            return;
        }
    }
    panic!("{mutant:?} was not caught in {TRIES} histories");
}

/// The rules that the shipped code itself can have broken.
#[cfg(feature = "mutants")]
#[test]
fn shipped_rules_broken_on_purpose_are_noticed() {
    use longhaul_core::mutants::{Rule, break_rule};
    for rule in [Rule::FenceAtAcknowledgement, Rule::Majority] {
        let _broken = break_rule(rule);
        let noticed = (0..6000).find_map(|seed| run(settings(seed, None)).err().map(|violation| (seed, violation)));
        let (seed, violation) = noticed.unwrap_or_else(|| panic!("{rule:?} went unnoticed"));
        println!("{rule:?}: noticed in history {seed}: {violation}");
    }
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident;)*) => {
        $(#[test] fn $name() { caught(Mutant::$mutant); })*
    };
}

mutants! {
    voters_that_do_not_promise_are_caught: NoPromise;
    promises_that_are_not_durable_are_caught: PromiseNotDurable;
    promoting_any_candidate_is_caught: AnyCandidate;
    hearing_too_few_is_caught: TooFewHeard;
    acknowledging_without_a_lease_is_caught: NoLease;
    checking_the_lease_at_acceptance_only_is_caught: LeaseCheckedAtAcceptOnly;
    keeping_what_lies_beyond_a_cut_is_caught: NoCut;
    switching_over_without_a_drain_is_caught: SwitchoverWithoutDrain;
    counting_acknowledgements_of_any_epoch_is_caught: AckOfAnyEpoch;
    shipping_without_the_sealed_prefix_is_caught: ShipWithoutPrefix;
}
