//! A chaotic run: users, faults drawn from the seed while the invariants are watched, then everything heals and
//! liveness is demanded, and in the end the oracle judges what users saw.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::topology::Topology;
use longhaul_http::client::HttpClient;
use longhaul_http::wire::traffic::Findings;

use crate::clock::SimTime;
use crate::disk::Witness;
use crate::invariants::Watch;
use crate::judge::{self, Seen};
use crate::machine::USERS;
use crate::net::SimNet;
use crate::operator::Operator;
use crate::schedule::{AFTER_HEAL_MS, Schedule};
use crate::timeline::{Acknowledgement, Timeline};
use crate::world::{Simulation, SimulationError, WorldConfig, end_watching_panics, take_panics};

/// Virtual time after which a run counts as stuck.
const LIMIT: Duration = Duration::from_secs(600);

/// The topology of seeds that name none.
pub const USUAL_TOPOLOGY: &str = "three-continents";

/// When the processes of regions are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kills {
    /// Between two ticks, when nothing runs.
    #[default]
    BetweenTicks,
    /// In the middle of a commit, before or after that is durable: between a write and its acknowledgement, a promise and its
    /// answer, a batch and what says that it is there.
    InCommits,
}

/// What came of a chaotic run.
#[derive(Debug)]
pub struct ChaosRun {
    /// The name of the topology.
    pub topology: String,
    /// When processes were killed.
    pub kills: Kills,
    /// The seed.
    pub seed: u64,
    /// What was violated, one line each; empty if all is well.
    pub violations: Vec<String>,
    /// Faults and events in order of time; the first lines are the schedule.
    pub timeline: String,
    /// Virtual time that it took.
    pub virtual_time: Duration,
    /// What the oracle found: two runs of a seed that differ anywhere differ here. Absent if it never came to a judgement.
    pub findings: Option<Findings>,
}

impl ChaosRun {
    /// The one command that runs this seed again and prints its timeline.
    pub fn replay(&self) -> String {
        replay(&self.topology, self.kills, self.seed)
    }
}

/// The one command that runs a seed and prints its timeline.
pub fn replay(topology: &str, kills: Kills, seed: u64) -> String {
    let topology = if topology == USUAL_TOPOLOGY { String::new() } else { format!("LONGHAUL_TOPOLOGY={topology} ") };
    let kills = if kills == Kills::InCommits { "LONGHAUL_KILLS=in-commits " } else { "" };
    format!("{topology}{kills}LONGHAUL_SEED={seed} ./tests/run sim")
}

impl fmt::Display for ChaosRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, if self.violations.is_empty() { "all is well" } else { "violated" })?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "replay: {}\n{}", self.replay(), self.timeline)
    }
}

/// Whether any region is killed in the run of a seed.
pub fn kills_a_region(topology: &Topology, seed: u64) -> bool {
    Schedule::draw(topology, seed).kill_in_commits(topology, seed)
}

/// Runs one seed on a topology. Everything happens on this thread.
pub fn run_chaos(topology: &Topology, seed: u64) -> Result<ChaosRun, SimulationError> {
    run_chaos_with(topology, Kills::default(), seed)
}

/// The same with processes killed in other moments.
pub fn run_chaos_with(topology: &Topology, kills: Kills, seed: u64) -> Result<ChaosRun, SimulationError> {
    let mut schedule = Schedule::draw(topology, seed);
    if kills == Kills::InCommits {
        schedule.kill_in_commits(topology, seed);
    }
    let mut config = WorldConfig::new(topology.clone(), seed);
    config.mode = schedule.mode;
    config.durability = schedule.durability;
    config.primary = Some(schedule.primary);
    config.tick = Duration::from_millis(5);
    // A dwell of a minute would leave a second failover untried in a run of half a minute.
    config.timings.failover_dwell_ms = 5_000;
    if let Some(retained) = schedule.log_retained {
        config.timings.log_retained = retained;
    }
    let time = SimTime::default();
    let watch = Arc::new(Watch::new(time.clone()));
    let witness: Arc<dyn Witness> = watch.clone();
    let mut simulation = Simulation::new(&config, &witness, time);
    let machine = simulation.machine.clone();
    let regions: Vec<_> = topology.locations.iter().map(|location| location.region).collect();
    let told = watch.clone();
    let on_acknowledgement = move |host: usize, write: Acknowledgement| {
        if let Some(region) = regions.get(host).copied().flatten() {
            told.acknowledged(region, write.epoch, write.dot);
        }
    };
    let collector = machine.timeline.collector(simulation.hosts(), Box::new(on_acknowledgement));
    let seen = Rc::new(RefCell::new(Seen::default()));
    let kept = seen.clone();
    let operator = {
        let (topology, schedule, machine, watch) = (topology.clone(), schedule.clone(), machine.clone(), watch.clone());
        async move {
            let host = machine.links.host(USERS).unwrap_or_default();
            let client = HttpClient::new(Arc::new(SimNet::new(host, machine.links.clone())));
            let (seen, active) = (Seen::default(), RefCell::default());
            let mut operator = Operator { topology, schedule, machine, watch, client, seed, seen, active };
            operator.run().await;
            *kept.borrow_mut() = operator.seen;
        }
    };
    let mut violations = Vec::new();
    tracing::subscriber::with_default(collector, || {
        simulation.populate(&config, operator)?;
        loop {
            let done = simulation.step()?;
            violations.extend(take_panics().into_iter().map(|panic| format!("a service panicked: {panic}")));
            if done || watch.is_violated() || !violations.is_empty() {
                break;
            }
            if simulation.elapsed() > LIMIT {
                violations.push(format!("the run did not end within {} s of virtual time", LIMIT.as_secs()));
                break;
            }
        }
        Ok::<_, SimulationError>(())
    })?;
    let virtual_time = simulation.elapsed();
    drop(simulation);
    end_watching_panics();
    violations.extend(watch.violations());
    violations.extend(machine.timeline.alarms().into_iter().map(|alarm| format!("a service raises an alarm: {alarm}")));
    let seen = seen.take();
    if violations.is_empty() {
        violations = judge::violations(&schedule, &watch, &seen);
    }
    Ok(ChaosRun {
        topology: topology.name.clone(),
        kills,
        seed,
        violations,
        timeline: timeline_text(&schedule, &machine.timeline),
        virtual_time,
        findings: seen.findings,
    })
}

fn timeline_text(schedule: &Schedule, timeline: &Timeline) -> String {
    format!("{schedule}{}", timeline.text())
}

/// How long the users of a schedule are at work, seconds.
pub(crate) fn length_s(schedule: &Schedule) -> f64 {
    (schedule.heal_ms + AFTER_HEAL_MS) as f64 / 1e3
}
