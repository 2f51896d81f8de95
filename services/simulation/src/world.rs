//! A whole world from a topology: one host for each region and each edge's gateway, control, and the users of all
//! edges; the services that ship, in virtual time.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Once};
use std::time::Duration;

use longhaul_control::{Control, ControlConfig};
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::{Location, LocationKind, Topology};
use longhaul_gateway::{GatewayConfig, GatewayDeps};
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::SharedNet;
use longhaul_http::serve::serve;
use longhaul_http::watch;
use longhaul_region::RegionConfig;
use longhaul_region::config::{Genesis, StoreConfig, Timings};
use longhaul_traffic::TrafficConfig;
use tokio_util::sync::CancellationToken;

use crate::agent::{self, AGENT_PORT};
use crate::clock::{HostClock, SimTime};
use crate::disk::{Disk, SimStore, Witness};
use crate::field::Field;
use crate::links::{HostIndex, Links};
use crate::machine::{CONTROL, Machine, Order, USERS};
use crate::net::{PORT, SimNet, address};
use crate::seed::derive;
use crate::timeline::Timeline;

/// The longest tick: what is out of band arrives up to a tick late.
const TICK_MAX_MS: f64 = 5.0;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// The topology.
    pub topology: Topology,
    /// The seed of everything random.
    pub seed: u64,
    /// The mode at the start.
    pub mode: Mode,
    /// The durability at the start.
    pub durability: Durability,
    /// The primary at the start; the topology's first region if absent.
    pub primary: Option<RegionId>,
    /// Protocol timings.
    pub timings: Timings,
    /// How long a commit takes.
    pub flush: Duration,
    /// How far the simulation moves at a time; see [`tick_for`].
    pub tick: Duration,
    /// One of this many operations has its moment of visibility recorded (a region's setting); 0 records none.
    pub visibility_sample: u32,
}

impl WorldConfig {
    /// A world as the embedded testbed starts it: active-passive, local durability, the first region as primary.
    pub fn new(topology: Topology, seed: u64) -> Self {
        let tick = tick_for(&topology);
        Self {
            topology,
            seed,
            mode: Mode::ActivePassive,
            durability: Durability::Local,
            primary: None,
            timings: Timings::default(),
            flush: Duration::from_millis(1),
            tick,
            visibility_sample: 8,
        }
    }
}

/// The longest tick that leaves every declared delay exact: the shortest delay of the topology in whole milliseconds,
/// between 1 ms and 5 ms.
pub fn tick_for(topology: &Topology) -> Duration {
    let shortest = topology.links.values().map(|link| link.profile.delay_ms).fold(TICK_MAX_MS, f64::min);
    Duration::from_millis(shortest.floor().max(1.0) as u64)
}

/// A simulation ended for a reason of its own: a defect of the simulator, never a verdict.
#[derive(Debug, thiserror::Error)]
#[error("the simulation cannot go on: {0}; this is a defect, please report it with the seed")]
pub struct SimulationError(pub String);

/// A world in virtual time. Single-threaded: it stays on the thread that made it.
pub(crate) struct Simulation {
    sim: turmoil::Sim<'static>,
    time: SimTime,
    pub(crate) machine: Arc<Machine>,
    hosts: Vec<String>,
}

impl Simulation {
    /// Builds the world; nothing runs yet. Every durable change of a region is shown to the witness.
    pub(crate) fn new(config: &WorldConfig, witness: &Arc<dyn Witness>, time: SimTime) -> Self {
        watch_panics();
        let locations = config.topology.locations.iter().map(|location| location.name.to_string());
        let hosts: Vec<String> = locations.chain([CONTROL.to_owned(), USERS.to_owned()]).collect();
        let links = Links::new(time.clone(), &config.topology, hosts.clone(), derive(config.seed, 1));
        let clocks = hosts.iter().map(|_| Arc::new(HostClock::new(time.clone()))).collect();
        let disk = |(host, location): (usize, &Location)| {
            let seed = derive(config.seed, 100 + host as u64);
            Some((host, Arc::new(Disk::new(location.region?, config.flush, seed, witness.clone()))))
        };
        let disks = config.topology.locations.iter().enumerate().filter_map(disk).collect();
        let timeline = Timeline::new(time.clone());
        let machine = Machine::new(links, timeline, clocks, disks);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(derive(config.seed, 2))
            .tick_duration(config.tick)
            .simulation_duration(Duration::from_secs(1_000_000))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::ZERO)
            .tcp_capacity(4096)
            // Whose turn comes first within a tick is drawn anew each time: what happens at the same moment happens in any order.
            .enable_random_order();
        let sim = builder.build();
        Self { sim, time, machine, hosts }
    }

    /// Puts every host in place and starts it. `operator` runs on the host of the users, beside them.
    pub(crate) fn populate<F>(&mut self, config: &WorldConfig, operator: F) -> Result<(), SimulationError>
    where
        F: Future<Output = ()> + 'static,
    {
        self.users(config, operator);
        let topology = &config.topology;
        for (host, location) in topology.locations.iter().enumerate() {
            let seed = derive(config.seed, 200 + host as u64);
            match location.kind {
                LocationKind::Region => self.region(region_config(config, location, seed)?, host),
                LocationKind::Edge => self.gateway(gateway_config(topology, location, seed)?, host),
            }
        }
        self.control(config);
        for host in 0..self.hosts.len() {
            self.machine.links.set_up(host, true);
        }
        Ok(())
    }

    fn net(&self, host: HostIndex) -> SharedNet {
        Arc::new(SimNet::new(host, self.machine.links.clone()))
    }

    fn clock(&self, host: HostIndex) -> SharedClock {
        self.machine.clocks[host].clone()
    }

    fn host_named(&self, name: &str) -> HostIndex {
        self.machine.links.host(name).unwrap_or_default()
    }

    fn region(&mut self, config: RegionConfig, host: HostIndex) {
        let (net, clock, machine) = (self.net(host), self.clock(host), self.machine.clone());
        let disk = machine.disks.get(&host).cloned();
        self.sim.host(self.hosts[host].clone(), move || {
            let (net, clock, machine, config) = (net.clone(), clock.clone(), machine.clone(), config.clone());
            let store = disk.clone().map(SimStore::open);
            async move {
                let store = store.ok_or("a region has no disk")?;
                let listener = net.bind(&config.listen).await?;
                let deps = longhaul_region::Deps { net, clock, store: Arc::new(store) };
                let ended = longhaul_region::run(deps, config, listener, CancellationToken::new()).await;
                machine.exited(host, &ended.map_or_else(|error| error.to_string(), |()| "it stopped".to_owned()));
                Ok(())
            }
        });
    }

    fn gateway(&mut self, config: GatewayConfig, host: HostIndex) {
        let (net, clock, machine) = (self.net(host), self.clock(host), self.machine.clone());
        self.sim.host(self.hosts[host].clone(), move || {
            let deps = GatewayDeps { net: net.clone(), clock: clock.clone() };
            let (machine, config) = (machine.clone(), config.clone());
            async move {
                let listener = deps.net.bind(&config.listen).await?;
                let ended = longhaul_gateway::run(deps, config, listener, CancellationToken::new()).await;
                machine.exited(host, &ended.map_or_else(|error| error.to_string(), |()| "it stopped".to_owned()));
                Ok(())
            }
        });
    }

    fn users<F>(&mut self, config: &WorldConfig, operator: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let host = self.host_named(USERS);
        let (net, clock, links) = (self.net(host), self.clock(host), self.machine.links.clone());
        let traffic = TrafficConfig { seed: derive(config.seed, 3), ledger_dir: None, token: None };
        self.sim.client(USERS, async move {
            let deps = longhaul_traffic::Deps { net: net.clone(), clock };
            let listener = net.bind(&listen(PORT)).await?;
            let agent = net.bind(&listen(AGENT_PORT)).await?;
            let stop = CancellationToken::new();
            let traffic = longhaul_traffic::run(deps, traffic, listener, stop.clone());
            let links = serve(agent, agent::router(links), stop.clone());
            tokio::select! {
                biased;
                ended = traffic => ended?,
                ended = links => ended?,
                () = operator => {}
            }
            Ok(())
        });
    }

    fn control(&mut self, config: &WorldConfig) {
        let host = self.host_named(CONTROL);
        let (net, clock, machine) = (self.net(host), self.clock(host), self.machine.clone());
        let topology = config.topology.clone();
        let seed = derive(config.seed, 4);
        self.sim.host(CONTROL, move || {
            let (net, clock, machine, topology) = (net.clone(), clock.clone(), machine.clone(), topology.clone());
            async move {
                let (up, is_up) = watch::channel(true);
                let client = HttpClient::new(net.clone());
                let world = Arc::new(Field::new(topology.clone(), machine, client, up));
                let deps = longhaul_control::Deps { net: net.clone(), clock, world };
                let control = Control::start(deps, ControlConfig::new(topology, seed, env!("CARGO_PKG_VERSION")));
                serve_control(&control, &net, is_up).await?;
                Ok(())
            }
        });
    }

    /// Moves everybody one tick ahead, then kills and starts what is asked for. Answers whether the operator is done.
    pub(crate) fn step(&mut self) -> Result<bool, SimulationError> {
        let done = self.sim.step().map_err(|error| SimulationError(error.to_string()))?;
        self.time.advance_to(u64::try_from(self.sim.elapsed().as_nanos()).unwrap_or(u64::MAX));
        while let Some(order) = self.machine.next_order() {
            let (host, start, carried_out) = match order {
                Order::Crash(host, carried_out) => (host, false, carried_out),
                Order::Start(host, carried_out) => (host, true, carried_out),
            };
            let name = self.hosts[host].as_str();
            if self.machine.links.is_up(host) != start {
                let what = if start { "the process starts" } else { "the process is killed" };
                self.machine.timeline.add(name, what);
                if start {
                    self.sim.bounce(name);
                } else {
                    self.sim.crash(name);
                }
                self.machine.links.set_up(host, start);
            }
            let _ = carried_out.send(());
        }
        Ok(done)
    }

    /// Every host, in order.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Virtual time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }
}

fn listen(port: u16) -> String {
    format!("0.0.0.0:{port}")
}

fn region_config(config: &WorldConfig, location: &Location, seed: u64) -> Result<RegionConfig, SimulationError> {
    let topology = &config.topology;
    let region = location.region.ok_or_else(|| SimulationError(format!("{} is no region", location.name)))?;
    let others = topology.regions().filter(|(other, _)| *other != region);
    Ok(RegionConfig {
        region,
        regions: topology.regions().map(|(id, name)| (id, name.clone())).collect(),
        listen: listen(PORT),
        advertise: None,
        store: StoreConfig::Memory,
        topology_fingerprint: topology.fingerprint.clone(),
        peers: others.map(|(id, name)| (id, address(name.as_str()).into())).collect(),
        genesis: Genesis { mode: config.mode, primary: config.primary, durability: config.durability },
        seed,
        session_secret: "simulated".to_owned(),
        token: None,
        timings: config.timings,
        visibility_sample: config.visibility_sample,
        unsafe_boot: false,
    })
}

fn gateway_config(topology: &Topology, location: &Location, seed: u64) -> Result<GatewayConfig, SimulationError> {
    let regions: Vec<_> = topology
        .regions()
        .map(|(id, name)| {
            serde_json::json!({
                "id": id,
                "name": name,
                "addresses": [address(name.as_str())],
                "rtt_ms": topology.round_trip_ms(&location.name, name).unwrap_or(0.0),
            })
        })
        .collect();
    let config = serde_json::json!({
        "edge": location.name,
        "home": location.home,
        "regions": regions,
        "listen": listen(PORT),
        "seed": seed,
        "control": address(CONTROL),
    });
    serde_json::from_value(config)
        .map_err(|error| SimulationError(format!("the gateway of {} has no configuration: {error}", location.name)))
}

/// Serves control's API as long as it is meant to be up.
async fn serve_control(control: &Arc<Control>, net: &SharedNet, mut up: watch::Receiver<bool>) -> std::io::Result<()> {
    loop {
        if up.wait_for(|up| *up).await.is_err() {
            return Ok(());
        }
        let listener = net.bind(&listen(PORT)).await?;
        let down = CancellationToken::new();
        let serving = control.serve(listener, down.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            _ = up.wait_for(|up| !*up) => {}
            served = &mut serving => return served,
        }
        down.cancel();
        serving.await?;
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Panics of services are defects even where a runtime swallows them: they are collected on threads that simulate.
fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.to_string().replace('\n', " ");
            let kept = PANICS.with_borrow_mut(|panics| panics.as_mut().map(|panics| panics.push(text)).is_some());
            if !kept {
                usual(panic);
            }
        }));
    });
    PANICS.with_borrow_mut(|panics| *panics = Some(Vec::new()));
}

/// Panics on this thread since the last time.
pub(crate) fn take_panics() -> Vec<String> {
    PANICS.with_borrow_mut(|panics| panics.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Panics are the test's own again.
pub(crate) fn end_watching_panics() {
    PANICS.with_borrow_mut(|panics| *panics = None);
}

/// A world whose durable changes nobody watches.
pub(crate) struct Unwatched;

impl Witness for Unwatched {
    fn committed(&self, _: RegionId, _: &longhaul_region::store::Commit) {}
}
