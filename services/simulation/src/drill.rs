//! A drill in virtual time: the engine of control that runs drills elsewhere, on simulated hosts and links.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use longhaul_core::plan::DrillPlan;
use longhaul_core::report::RunReport;
use longhaul_core::topology::Topology;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::wire::drills::{DRILLS_PATH, DrillPhase, DrillRequest, DrillStarted, DrillStatus};

use crate::clock::SimTime;
use crate::disk::Witness;
use crate::machine::{CONTROL, USERS};
use crate::net::{SimNet, address};
use crate::timeline::Timeline;
use crate::world::{Simulation, SimulationError, Unwatched, WorldConfig, end_watching_panics, take_panics};

/// How often to look at the drill.
const LOOK: Duration = Duration::from_millis(500);
/// Deadline of one question.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a drill may take beyond its own length before it counts as stuck.
const BEYOND: Duration = Duration::from_secs(600);

/// A drill that was simulated.
#[derive(Debug)]
pub struct SimulatedDrill {
    /// Its report, or in one line why there is none.
    pub report: Result<RunReport, String>,
    /// What happened.
    pub timeline: Timeline,
    /// Virtual time that it took.
    pub virtual_time: Duration,
}

/// Runs a drill on a topology in virtual time, with the plan's own seed.
pub fn run_drill(topology: &Topology, plan: &DrillPlan) -> Result<SimulatedDrill, SimulationError> {
    run_drill_while(topology, plan, |_| true)
}

/// The same, for as long as `go_on` says so: it is told the virtual time after every tick. A drill that is not to go on
/// has no report.
pub fn run_drill_while(
    topology: &Topology,
    plan: &DrillPlan,
    mut go_on: impl FnMut(Duration) -> bool,
) -> Result<SimulatedDrill, SimulationError> {
    let mut config = WorldConfig::new(topology.clone(), plan.seed);
    config.mode = plan.regime.mode;
    config.durability = plan.regime.durability;
    config.primary = plan.regime.primary.as_deref().and_then(|name| topology.region_id(name));
    let witness: Arc<dyn Witness> = Arc::new(Unwatched);
    let mut simulation = Simulation::new(&config, &witness, SimTime::default());
    let machine = simulation.machine.clone();
    let collector = machine.timeline.collector(simulation.hosts(), Box::new(|_, _| {}));
    let outcome = Rc::new(RefCell::new(Err("the drill did not end".to_owned())));
    let (kept, asked) = (outcome.clone(), plan.clone());
    let links = machine.links.clone();
    let limit = Duration::from_secs_f64(plan.warm_up_s + plan.duration_s + plan.settle_s) + BEYOND;
    tracing::subscriber::with_default(collector, || {
        let operator = async move {
            let host = links.host(USERS).unwrap_or_default();
            let client = HttpClient::new(Arc::new(SimNet::new(host, links)));
            *kept.borrow_mut() = operate(&client, &asked).await;
        };
        simulation.populate(&config, operator)?;
        while !simulation.step()? && simulation.elapsed() < limit {
            if !go_on(simulation.elapsed()) {
                *outcome.borrow_mut() = Err("the drill was stopped".to_owned());
                break;
            }
        }
        let panics = take_panics();
        if let Some(panic) = panics.first() {
            *outcome.borrow_mut() = Err(format!("a service panicked: {panic}"));
        }
        Ok::<_, SimulationError>(())
    })?;
    let virtual_time = simulation.elapsed();
    drop(simulation);
    end_watching_panics();
    let report = outcome.replace(Err(String::new()));
    Ok(SimulatedDrill { report, timeline: machine.timeline.clone(), virtual_time })
}

async fn operate(client: &HttpClient, plan: &DrillPlan) -> Result<RunReport, String> {
    let control = address(CONTROL);
    let request = DrillRequest { plan: Some(plan.clone()), ..DrillRequest::default() };
    let started: DrillStarted = loop {
        match client.post(&control, DRILLS_PATH, &request, DEADLINE).await {
            Ok(started) => break started,
            Err(CallError::Problem { problem, .. }) => return Err(problem.detail),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let path = format!("{DRILLS_PATH}/{}", started.id);
    loop {
        tokio::time::sleep(LOOK).await;
        // A drill may take control's API away; it goes on, and is looked at later.
        let asked =
            client.json::<(), DrillStatus>(Method::GET, &control, &path, http::HeaderMap::new(), None, DEADLINE);
        let Ok(status) = asked.await else { continue };
        match (status.summary.phase, status.report) {
            (DrillPhase::Done, Some(report)) => return Ok(report),
            (DrillPhase::Done | DrillPhase::Failed, _) => {
                return Err(status.trouble.unwrap_or_else(|| "the drill ended without a report".to_owned()));
            }
            _ => {}
        }
    }
}
