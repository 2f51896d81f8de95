//! A world in which nothing breaks: how fast the simulator is.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::plan::Workload;
use longhaul_http::client::HttpClient;
use longhaul_http::wire::traffic::{RUNS_PATH, RunProgress, RunStarted, RunState, run_path};

use crate::clock::SimTime;
use crate::disk::Witness;
use crate::machine::USERS;
use crate::net::{SimNet, address};
use crate::operator::run_request;
use crate::world::{Simulation, SimulationError, Unwatched, WorldConfig, end_watching_panics};

/// Deadline of one question.
const ASK: Duration = Duration::from_secs(2);
/// How often to look whether the users are done.
const LOOK: Duration = Duration::from_secs(1);

/// What was simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    /// Virtual time.
    pub virtual_time: Duration,
    /// Ticks of the simulation.
    pub ticks: u64,
    /// Hosts that each tick moves.
    pub hosts: u64,
    /// Operations that succeeded.
    pub ok: u64,
}

/// Runs users at a rate for so many seconds, without any fault.
pub fn run_steady(config: &WorldConfig, rate_per_s: f64, seconds: f64) -> Result<Steady, SimulationError> {
    let witness: Arc<dyn Witness> = Arc::new(Unwatched);
    let mut simulation = Simulation::new(config, &witness, SimTime::default());
    let machine = simulation.machine.clone();
    let outcome = Rc::new(RefCell::new(Err("the users never ended".to_owned())));
    let workload = Workload { rate_per_s, ..Workload::default() };
    let request = run_request(&config.topology, workload, config.mode, config.seed, 0.0, seconds);
    let kept = outcome.clone();
    let operator = async move {
        let host = machine.links.host(USERS).unwrap_or_default();
        let client = HttpClient::new(Arc::new(SimNet::new(host, machine.links.clone())));
        let users = address(USERS);
        // Regions and gateways need a moment to find each other.
        tokio::time::sleep(LOOK).await;
        let started = client.post::<_, RunStarted>(&users, RUNS_PATH, &request, ASK).await;
        let run = async {
            let path = run_path(&started?.id);
            loop {
                let progress: RunProgress = client.get(&users, &path, ASK).await?;
                if progress.state == RunState::FinishedSending {
                    return Ok(progress.edges.values().map(|edge| edge.ok).sum::<u64>());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        *kept.borrow_mut() = run.await.map_err(|error: longhaul_http::client::CallError| error.to_string());
    };
    simulation.populate(config, operator)?;
    let mut ticks = 1;
    while !simulation.step()? {
        ticks += 1;
    }
    let (virtual_time, hosts) = (simulation.elapsed(), simulation.hosts().len() as u64);
    drop(simulation);
    end_watching_panics();
    let ok = outcome.replace(Ok(0)).map_err(SimulationError)?;
    Ok(Steady { virtual_time, ticks, hosts, ok })
}
