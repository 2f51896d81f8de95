//! `drill`: one plan, one verdict.

use longhaul_core::plan::DrillPlan;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::report::{RunReport, Verdict};
use longhaul_core::topology::Topology;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::target::Target;
use crate::cli::{RunArgs, TestbedArgs};
use crate::embedded::{Start, Testbed};
use crate::outcome::Outcome;
use crate::report::{self, Progress};
use crate::telemetry::{self, Telemetry};
use crate::{inputs, signals};

/// Runs a drill.
pub(crate) async fn run(plan: &str, args: RunArgs) -> Outcome {
    match Box::pin(telemetry::with(Telemetry::command(args.testbed.otlp.as_deref()), drill(plan, &args))).await {
        Ok(report) => outcome(&report),
        Err(reason) => Outcome::invalid(reason),
    }
}

async fn drill(name: &str, args: &RunArgs) -> Result<RunReport, String> {
    let (plan, label) = inputs::plan(name)?;
    let mut plan = with_start(plan, args.mode, args.durability, args.testbed.seed);
    let target = args.report.target.as_deref().map(Target::parse).transpose()?;
    let topology = match &target {
        Some(target) => running_topology(target, &args.testbed).await?,
        None => inputs::topology_of(args.testbed.topology.as_deref(), &plan, &label)?,
    };
    let transferred = inputs::transfer(&mut plan, &label, &topology);
    plan.validate_as(&label, &topology).map_err(|error| error.to_string())?;
    if let Some(line) = transferred {
        eprintln!("{line}");
    }
    let folder = report::Folder::prepare(args.report.report.as_deref(), &plan.name)?;
    let stop = stop_token()?;
    let mut progress = Progress::new(&format!("{}, {}", plan.name, regime(&plan)));
    let report = match target {
        Some(target) => target.drill(&plan, None, &mut progress, &stop).await?,
        None => fresh(&plan, topology, &args.testbed, &mut progress, &stop, &folder).await?,
    };
    drop(progress);
    let written = folder.write_run(&report)?;
    if args.report.json {
        report::print_json(&report)?;
    } else {
        print!("{}", report::run_text(&report, Some(&written)));
    }
    Ok(report)
}

/// One run on a testbed of its own.
pub(crate) async fn fresh(
    plan: &DrillPlan,
    topology: Topology,
    args: &TestbedArgs,
    progress: &mut Progress,
    stop: &CancellationToken,
    folder: &report::Folder,
) -> Result<RunReport, String> {
    progress.note("starting the testbed");
    let testbed = Testbed::start(&start_of(plan, topology, args), stop).await?;
    let target = Target::new(testbed.control());
    match target.drill(plan, Some(&testbed), progress, stop).await {
        Ok(report) => {
            let name = format!("{}-{}", plan.regime.mode, plan.regime.durability);
            testbed.stop_after(|data| folder.keep_traces(data, &name, &report)).await?;
            Ok(report)
        }
        Err(reason) if stop.is_cancelled() => {
            testbed.stop().await;
            Err(reason)
        }
        Err(reason) => {
            let logs = testbed.stop_and_keep().await;
            Err(format!("{reason}; logs: {}", logs.display()))
        }
    }
}

fn start_of(plan: &DrillPlan, topology: Topology, args: &TestbedArgs) -> Start {
    Start {
        topology,
        mode: plan.regime.mode,
        durability: plan.regime.durability,
        primary: plan.regime.primary.clone(),
        seed: plan.seed,
        data: args.data.clone(),
        control_port: args.port.filter(|port| *port != 0),
        database_url: args.database_url.clone(),
        otlp: args.otlp.clone(),
        jaeger: args.jaeger(),
    }
}

/// The topology of a running testbed, by its name; what the user names must be the same.
pub(crate) async fn running_topology(target: &Target, args: &TestbedArgs) -> Result<Topology, String> {
    let running = target.topology().await?;
    let name = args.topology.as_deref().unwrap_or(&running.name);
    let topology = inputs::topology(name).map_err(|error| format!("{error} (the testbed runs {})", running.name))?;
    if topology.fingerprint != running.fingerprint {
        return Err(format!("the testbed runs topology {}, which is not {name}; leave out --topology", running.name));
    }
    Ok(topology)
}

/// The plan in another mode, durability or seed. A mode without a primary drops the plan's primary and durability.
pub(crate) fn with_start(
    mut plan: DrillPlan,
    mode: Option<Mode>,
    durability: Option<Durability>,
    seed: Option<u64>,
) -> DrillPlan {
    plan.seed = seed.unwrap_or(plan.seed);
    plan.regime.mode = mode.unwrap_or(plan.regime.mode);
    if plan.regime.mode != Mode::ActivePassive {
        plan.regime.primary = None;
        plan.regime.durability = Durability::Local;
    }
    plan.regime.durability = durability.unwrap_or(plan.regime.durability);
    plan
}

/// The regime of a plan, for people.
pub(crate) fn regime(plan: &DrillPlan) -> String {
    match plan.regime.mode {
        Mode::ActivePassive => format!("active-passive {}", plan.regime.durability),
        mode => mode.to_string(),
    }
}

/// A token for the signals of a command.
pub(crate) fn stop_token() -> Result<CancellationToken, String> {
    let tasks = TaskTracker::new();
    signals::stop_on_signal(&tasks).map_err(|error| format!("signals cannot be received: {error}; check the limits"))
}

/// The exit of a run.
pub(crate) fn outcome(report: &RunReport) -> Outcome {
    let why = |what: &str| {
        let more = report.reasons.len().saturating_sub(1);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        format!("{what}: {}{more}", report.reasons.first().map_or("no reason was given", String::as_str))
    };
    match report.verdict {
        Verdict::Passed => Outcome::Met,
        Verdict::Failed => Outcome::NotMet(why("expectations were not met")),
        Verdict::Invalid => Outcome::invalid(why("the run proves nothing")),
    }
}
