//! What control can do to containers: through the agents of the locations, never through the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_control::world::{Player, World, WorldError, WorldFuture};
use longhaul_core::ids::LocationName;
use longhaul_core::limits::{CONTROL_DEADLINE, WATCH_INTERVAL};
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::{Location, LocationKind};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::net::SharedNet;
use longhaul_http::watch;
use longhaul_http::wire::location::{KILL_PATH, LocationView, PAUSE_PATH, PROCESSES_PATH, RESTART_PATH, RESUME_PATH};
use longhaul_netem::probe::{Pair, measure};
use tokio_util::sync::CancellationToken;

use super::places::{AGENT_PORT, SERVICE_PORT, USERS_PORT};
use super::site::{LinkDriver, Site};
use crate::certify::certify;

/// Deadline of an act on processes: a killed container comes back after the engine's pause.
const ACT_DEADLINE: Duration = Duration::from_secs(40);

/// The world of containers.
pub(crate) struct ContainersWorld {
    site: Site,
    client: HttpClient,
    /// Whether control's API is up.
    control: watch::Sender<bool>,
    /// Whether each location's processes run, as its agent said last.
    running: Mutex<BTreeMap<String, bool>>,
}

impl ContainersWorld {
    /// The world around control.
    pub(crate) fn new(site: Site, net: SharedNet, control: watch::Sender<bool>) -> Self {
        Self { site, client: HttpClient::new(net), control, running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an eye on every location's processes until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let looks = self
                .site
                .topology
                .locations
                .iter()
                .map(|location| async { (location.name.to_string(), self.look(&location.name).await) });
            let seen = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                seen = futures::future::join_all(looks) => seen,
            };
            self.running().extend(seen);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    }

    async fn look(&self, location: &LocationName) -> bool {
        if self.site.agents {
            let view = self.client.get::<LocationView>(&self.agent(location), PROCESSES_PATH, CONTROL_DEADLINE).await;
            return view.is_ok_and(|view| view.is_running());
        }
        // Without an agent a process counts as running when it answers.
        let mut request = http::Request::new(bytes::Bytes::new());
        *request.uri_mut() = http::Uri::from_static("/healthz");
        let address = self.site.out_of_band.at(location, SERVICE_PORT);
        self.client.send(&address, request, CONTROL_DEADLINE).await.is_ok()
    }

    fn agent(&self, location: &LocationName) -> String {
        self.site.out_of_band.at(location, AGENT_PORT)
    }

    fn location(&self, name: &str) -> Result<&Location, WorldError> {
        let found = self.site.topology.location(name);
        found.ok_or_else(|| {
            let known = self.site.topology.locations.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ");
            WorldError(format!("among containers there is no process {name:?}; use one of {known}, control"))
        })
    }

    async fn act(&self, target: &str, path: &str) -> Result<(), WorldError> {
        let location = self.location(target)?.name.clone();
        if !self.site.agents {
            let remedy = "use the orchestrator, or run the locations with agents (LONGHAUL_AGENTS)";
            return Err(WorldError(format!("{target} has no agent that could touch its processes; {remedy}")));
        }
        let agent = self.agent(&location);
        let headers = HeaderMap::new();
        let asked = self.client.json::<(), LocationView>(Method::POST, &agent, path, headers, None, ACT_DEADLINE).await;
        let view = asked.map_err(|error| match error {
            CallError::Problem { problem, .. } => WorldError(problem.detail),
            other => WorldError(format!("the agent of {target}: {other}; is its container up? (docker compose ps)")),
        })?;
        self.running().insert(target.to_owned(), view.is_running());
        Ok(())
    }

    fn address(&self, name: &LocationName, kind: LocationKind) -> Option<String> {
        let location = self.site.topology.location(name.as_str())?;
        (location.kind == kind).then(|| self.site.out_of_band.at(name, SERVICE_PORT))
    }

    fn pair(&self, from: &LocationName, to: &LocationName) -> Pair {
        let prober = self.site.out_of_band.at(from, SERVICE_PORT);
        Pair { from: from.clone(), to: to.clone(), prober, address: self.site.dial(to) }
    }

    /// A location that measures its way to itself.
    fn itself(&self, location: &LocationName) -> Pair {
        Pair { address: format!("127.0.0.1:{SERVICE_PORT}"), ..self.pair(location, location) }
    }
}

impl World for ContainersWorld {
    fn kind(&self) -> &'static str {
        match self.site.links {
            LinkDriver::Kernel => "containers, kernel links",
            LinkDriver::Relay => "containers, userspace links",
            LinkDriver::Real => "containers, real network",
        }
    }

    fn kill<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == "control" {
                // Control runs the drill that kills it: what goes is its API.
                self.control.send_replace(false);
                return Ok(());
            }
            self.act(target, KILL_PATH).await
        })
    }

    fn restart<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == "control" {
                self.control.send_replace(true);
                return Ok(());
            }
            self.act(target, RESTART_PATH).await
        })
    }

    fn pause<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(self.act(target, PAUSE_PATH))
    }

    fn resume<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(self.act(target, RESUME_PATH))
    }

    fn is_running(&self, target: &str) -> bool {
        if target == "control" {
            return *self.control.borrow();
        }
        self.running().get(target).copied().unwrap_or(false)
    }

    fn region_address(&self, region: &LocationName) -> Option<String> {
        self.address(region, LocationKind::Region)
    }

    fn gateway_address(&self, edge: &LocationName) -> Option<String> {
        self.address(edge, LocationKind::Edge)
    }

    fn players(&self) -> Vec<Player> {
        let player = |edge: &Location| Player {
            address: self.site.users.at(&edge.name, USERS_PORT),
            edges: Some(vec![edge.name.clone()]),
        };
        self.site.topology.edges().map(player).collect()
    }

    fn link_agents_of(&self, from: &LocationName, to: &LocationName) -> Vec<String> {
        let there = self.site.topology.links.contains_key(&(from.clone(), to.clone()));
        if there && self.site.agents && self.site.links != LinkDriver::Real {
            vec![self.agent(from), self.agent(to)]
        } else {
            Vec::new()
        }
    }

    fn link_agents(&self) -> Vec<String> {
        if !self.site.agents || self.site.links == LinkDriver::Real {
            return Vec::new();
        }
        self.site.topology.locations.iter().map(|location| self.agent(&location.name)).collect()
    }

    fn probe<'a>(&'a self, from: &'a str, to: &'a str, deadline: Duration) -> WorldFuture<'a, Option<f64>> {
        Box::pin(async move {
            let pair = self.pair(&self.location(from)?.name, &self.location(to)?.name);
            match measure(&self.client, &pair, 1, deadline).await {
                Ok(round_trip) => Ok(round_trip),
                // The prober answered that nothing came back.
                Err(error) if matches!(error.error, CallError::Problem { .. }) => Ok(None),
                Err(error) => Err(WorldError(error.to_string())),
            }
        })
    }

    fn measure_links(&self) -> WorldFuture<'_, Vec<LinkCheck>> {
        Box::pin(async move {
            let pairs: Vec<Pair> = self.site.topology.links.keys().map(|(from, to)| self.pair(from, to)).collect();
            let selves: Vec<Pair> = self.site.topology.locations.iter().map(|at| self.itself(&at.name)).collect();
            let checks = certify(&self.client, &self.site.topology, &pairs, &selves).await;
            Ok(if self.site.links == LinkDriver::Real { checks.into_iter().map(as_it_is).collect() } else { checks })
        })
    }
}

/// The tolerance of a round trip on a real network, milliseconds: the longest that can be declared.
const ANY_MS: f64 = 120_000.0;

/// On a real network the declared figure is what was expected: every pair that answers is as it is.
fn as_it_is(check: LinkCheck) -> LinkCheck {
    let source = format!("expected: {}; a real network, as measured", check.source);
    LinkCheck { ok: check.measured_rtt_ms.is_some(), tolerance_ms: ANY_MS, source, ..check }
}
