//! `simulate`: one plan in virtual time, with many seeds.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longhaul_core::plan::DrillPlan;
use longhaul_core::topology::Topology;
use longhaul_simulation::distribution::{Collection, SimulationReport};
use longhaul_simulation::{SimulationError, run_drill_while};
use tokio_util::sync::CancellationToken;

use super::drill::{regime, stop_token, with_start};
use crate::cli::SimulateArgs;
use crate::inputs;
use crate::outcome::Outcome;
use crate::report::{self, SeedProgress};
use crate::telemetry::{self, Telemetry};

const STOPPED: &str = "stopped by a signal before all seeds had run";

/// Runs a simulation.
pub(crate) async fn run(args: SimulateArgs) -> Outcome {
    match telemetry::with(Telemetry::command(None), simulate(args)).await {
        Ok(report) => outcome(&report),
        Err(reason) => Outcome::invalid(reason),
    }
}

async fn simulate(args: SimulateArgs) -> Result<SimulationReport, String> {
    let (plan, label) = inputs::plan(&args.plan)?;
    let mut plan = with_start(plan, args.mode, args.durability, args.seed);
    let topology = inputs::topology_of(args.topology.as_deref(), &plan, &label)?;
    let transferred = inputs::transfer(&mut plan, &label, &topology);
    plan.validate_as(&label, &topology).map_err(|error| error.to_string())?;
    if let Some(line) = transferred {
        eprintln!("{line}");
    }
    for ((from, to), link) in &topology.links {
        link.profile.validate_for_streams().map_err(|error| format!("link {from} to {to}: {error}"))?;
    }
    let folder = report::Folder::prepare(args.report.as_deref(), &format!("simulate-{}", plan.name))?;
    let stop = stop_token()?;
    let title = format!("simulate {}, {}, on {}", plan.name, regime(&plan), topology.name);
    let seeds = seeds(plan.seed, args.seeds)?;
    // Simulations bring runtimes of their own, which must not start inside of this one.
    let simulated = tokio::task::spawn_blocking(move || over_seeds(&title, &plan, &topology, seeds, &stop)).await;
    let report = simulated.map_err(|error| format!("the simulation failed: {error}"))??;
    let written = folder.write_simulation(&report)?;
    if args.json {
        report::print_json(&report)?;
    } else {
        print!("{}", report::simulation_text(&report, Some(&written)));
    }
    Ok(report)
}

/// So many seeds from this one.
fn seeds(first: u64, count: u64) -> Result<Range<u64>, String> {
    let end = first.checked_add(count).filter(|end| *end < u64::MAX);
    let end = end.ok_or_else(|| format!("there are no {count} seeds from {first} on; choose a smaller --seed"))?;
    Ok(first..end)
}

/// Runs every seed, on every core, and the median one again for its whole report.
fn over_seeds(
    title: &str,
    plan: &DrillPlan,
    topology: &Topology,
    seeds: Range<u64>,
    stop: &CancellationToken,
) -> Result<SimulationReport, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // One of several runs is made again for its whole report; an only one need not be.
    let count = seeds.end - seeds.start;
    let (again, only) = (u64::from(count > 1), Mutex::new(None));
    let progress =
        SeedProgress::new(title, count, count + again, Duration::from_secs_f64(plan.warm_up_s + plan.duration_s));
    let (next, collection, failed) = (AtomicU64::new(seeds.start), Mutex::new(Collection::default()), Mutex::new(None));
    let of_seed = |seed: u64| {
        let mut run = progress.run();
        run_drill_while(topology, &DrillPlan { seed, ..plan.clone() }, |virtual_time| {
            run.is_at(virtual_time);
            !stop.is_cancelled()
        })
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || stop.is_cancelled() {
                        return;
                    }
                    match of_seed(seed) {
                        Ok(drill) => {
                            let virtual_s = drill.virtual_time.as_secs_f64();
                            if again == 0 {
                                *only.lock().unwrap_or_else(PoisonError::into_inner) = drill.report.clone().ok();
                            }
                            let mut all = collection.lock().unwrap_or_else(PoisonError::into_inner);
                            all.add(seed, drill.report, virtual_s);
                        }
                        Err(error) => {
                            let error: SimulationError = error;
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(format!("seed {seed}: {error}"));
                            stop.cancel();
                        }
                    }
                }
            });
        }
    });
    if let Some(reason) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(reason);
    }
    if stop.is_cancelled() {
        return Err(STOPPED.to_owned());
    }
    let collection = collection.into_inner().unwrap_or_else(PoisonError::into_inner);
    let median = match collection.median_seed() {
        Some(seed) if again > 0 => of_seed(seed).map_err(|error| error.to_string())?.report.ok(),
        _ => only.into_inner().unwrap_or_else(PoisonError::into_inner),
    };
    if stop.is_cancelled() {
        return Err(STOPPED.to_owned());
    }
    drop(progress);
    Ok(collection.report(&plan.name, &topology.name, regime(plan), median))
}

fn outcome(report: &SimulationReport) -> Outcome {
    let verdicts = report.verdicts;
    if let Some((seed, reason)) = report.troubles.first_key_value() {
        let count = report.troubles.len();
        return Outcome::invalid(format!("{count} runs gave no report, the first with seed {seed}: {reason}"));
    }
    if verdicts.invalid > 0 {
        return Outcome::invalid(format!("{} runs prove nothing; the report says which", verdicts.invalid));
    }
    if verdicts.failed > 0 {
        let all = report.runs.len();
        return Outcome::NotMet(format!("expectations were not met in {} of {all} runs", verdicts.failed));
    }
    Outcome::Met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_do_not_begin_anew_at_zero() {
        assert_eq!(seeds(7, 3), Ok(7..10));
        assert!(seeds(u64::MAX, 1).unwrap_err().contains("--seed"));
        assert!(seeds(u64::MAX - 2, 2).is_err());
    }
}
