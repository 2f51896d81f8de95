//! `compare`: one plan, seed and workload in every mode and durability.

use longhaul_core::plan::DrillPlan;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::report::{Comparison, Verdict};

use super::drill::{fresh, regime, running_topology, stop_token, with_start};
use super::target::Target;
use crate::cli::CompareArgs;
use crate::inputs;
use crate::outcome::Outcome;
use crate::report::{self, Progress};
use crate::telemetry::{self, Telemetry};

/// What is compared, in this order.
const REGIMES: [(Mode, Durability); 5] = [
    (Mode::ActivePassive, Durability::Local),
    (Mode::ActivePassive, Durability::Semi(1)),
    (Mode::ActivePassive, Durability::Sync),
    (Mode::ActiveActive, Durability::Local),
    (Mode::RegionalIsolation, Durability::Local),
];

/// Runs a comparison.
pub(crate) async fn run(plan: &str, args: CompareArgs) -> Outcome {
    match telemetry::with(Telemetry::command(args.testbed.otlp.as_deref()), compare(plan, &args)).await {
        Ok(comparison) => outcome(&comparison),
        Err(reason) => Outcome::invalid(reason),
    }
}

fn chosen(args: &CompareArgs) -> Result<Vec<(Mode, Durability)>, String> {
    let fits = |(mode, durability): &(Mode, Durability)| {
        args.mode.is_none_or(|wanted| wanted == *mode) && args.durability.is_none_or(|wanted| wanted == *durability)
    };
    let chosen: Vec<_> = REGIMES.into_iter().filter(fits).collect();
    if chosen.is_empty() {
        return Err("nothing is left to compare; leave out --mode or --durability".to_owned());
    }
    Ok(chosen)
}

async fn compare(name: &str, args: &CompareArgs) -> Result<Comparison, String> {
    let (mut plan, label) = inputs::plan(name)?;
    let target = args.report.target.as_deref().map(Target::parse).transpose()?;
    let topology = match &target {
        Some(target) => running_topology(target, &args.testbed).await?,
        None => inputs::topology_of(args.testbed.topology.as_deref(), &plan, &label)?,
    };
    let transferred = inputs::transfer(&mut plan, &label, &topology);
    let plans: Vec<DrillPlan> = chosen(args)?
        .into_iter()
        .map(|(mode, durability)| with_start(plan.clone(), Some(mode), Some(durability), args.testbed.seed))
        .collect();
    for plan in &plans {
        // All before any: a comparison must not end after the third run.
        plan.validate_as(&label, &topology).map_err(|error| format!("{error} (in {})", regime(plan)))?;
    }
    if let Some(line) = transferred {
        eprintln!("{line}");
    }
    let folder = report::Folder::prepare(args.report.report.as_deref(), &format!("compare-{}", plan.name))?;
    let stop = stop_token()?;
    let mut runs = Vec::with_capacity(plans.len());
    for (number, plan) in plans.iter().enumerate() {
        let mut progress =
            Progress::new(&format!("{} of {}: {}, {}", number + 1, plans.len(), plan.name, regime(plan)));
        let report = if let Some(target) = &target {
            target.drill(plan, None, &mut progress, &stop).await
        } else {
            let mut testbed = args.testbed.clone();
            // Each run has data of its own.
            let name = format!("{}-{}", plan.regime.mode, plan.regime.durability);
            testbed.data = testbed.data.map(|data| data.join(name));
            fresh(plan, topology.clone(), &testbed, &mut progress, &stop, &folder).await
        };
        runs.push(report.map_err(|reason| format!("{}: {reason}", regime(plan)))?);
    }
    let comparison = Comparison { plan: plan.name.clone(), seed: plans[0].seed, runs };
    let written = folder.write_comparison(&comparison)?;
    if args.report.json {
        report::print_json(&comparison)?;
    } else {
        print!("{}", report::comparison_text(&comparison, Some(&written)));
    }
    Ok(comparison)
}

fn outcome(comparison: &Comparison) -> Outcome {
    let with = |verdict: Verdict| {
        let runs = comparison.runs.iter().filter(|run| run.verdict == verdict);
        runs.map(|run| regime(&run.plan)).collect::<Vec<_>>().join(", ")
    };
    let (invalid, failed) = (with(Verdict::Invalid), with(Verdict::Failed));
    if !invalid.is_empty() {
        return Outcome::invalid(format!("these runs prove nothing: {invalid}; the report says why"));
    }
    if !failed.is_empty() {
        return Outcome::NotMet(format!("expectations were not met in: {failed}; the report says which"));
    }
    Outcome::Met
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{ReportArgs, TestbedArgs};

    fn args(mode: Option<Mode>, durability: Option<Durability>) -> CompareArgs {
        CompareArgs { testbed: TestbedArgs::default(), report: ReportArgs::default(), mode, durability }
    }

    #[test]
    fn a_comparison_can_be_narrowed_but_not_to_nothing() {
        assert_eq!(chosen(&args(None, None)).unwrap().len(), 5);
        assert_eq!(chosen(&args(Some(Mode::ActivePassive), None)).unwrap().len(), 3);
        assert_eq!(chosen(&args(None, Some(Durability::Sync))).unwrap().len(), 1);
        assert!(chosen(&args(Some(Mode::ActiveActive), Some(Durability::Sync))).is_err());
    }

    #[test]
    fn every_shipped_drill_is_either_comparable_or_says_why_not() {
        let (plan, label) = inputs::plan("region-loss").unwrap();
        let topology = inputs::topology(&plan.topology).unwrap();
        for (mode, durability) in REGIMES {
            let plan = with_start(plan.clone(), Some(mode), Some(durability), None);
            plan.validate_as(&label, &topology).unwrap();
        }
    }
}
