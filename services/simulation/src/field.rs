//! What control can do to a simulated world: the seam that is child processes and userspace links elsewhere.

use std::sync::Arc;
use std::time::Duration;

use longhaul_control::world::{Player, World, WorldError, WorldFuture};
use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::Topology;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::watch;
use longhaul_netem::certificate;
use longhaul_netem::probe::{Pair, Survey, measure, survey};

use crate::agent::AGENT_PORT;
use crate::machine::{CONTROL, Machine, USERS};
use crate::net::address;

/// How the links are measured: without neighbours who disturb, few round trips say as much as many, and all pairs are measured
/// at the same time. The regions of Azure and their edges are 2,550 pairs: a few at a time would take minutes.
const SURVEY: Survey = Survey { samples: 3, deadline: Duration::from_secs(3), at_a_time: usize::MAX };

/// The field that control plays on.
pub(crate) struct Field {
    topology: Topology,
    machine: Arc<Machine>,
    client: HttpClient,
    control: watch::Sender<bool>,
}

impl Field {
    pub(crate) fn new(
        topology: Topology,
        machine: Arc<Machine>,
        client: HttpClient,
        control: watch::Sender<bool>,
    ) -> Self {
        Self { topology, machine, client, control }
    }

    fn known(&self, target: &str) -> Result<usize, WorldError> {
        let is_location = self.topology.locations.iter().any(|location| location.name.as_str() == target);
        self.machine.links.host(target).filter(|_| is_location).ok_or_else(|| {
            let known: Vec<_> = self.topology.locations.iter().map(|location| location.name.to_string()).collect();
            WorldError(format!("there is no host {target:?}; use one of {}, control", known.join(", ")))
        })
    }

    fn pair(&self, from: &str, to: &str) -> Result<Pair, WorldError> {
        let name = |name: &str| {
            let found = self.topology.location(name);
            found
                .map(|location| location.name.clone())
                .ok_or_else(|| WorldError(format!("there is no location {name:?}")))
        };
        let (from, to) = (name(from)?, name(to)?);
        Ok(Pair { prober: address(from.as_str()), address: address(to.as_str()), from, to })
    }
}

impl World for Field {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn kill<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == CONTROL {
                // The drill that kills control runs in it: what goes is its API, as in the embedded world.
                self.control.send_replace(false);
                return Ok(());
            }
            self.machine.crash(self.known(target)?).await;
            Ok(())
        })
    }

    fn restart<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == CONTROL {
                self.control.send_replace(true);
                return Ok(());
            }
            self.machine.start(self.known(target)?).await;
            Ok(())
        })
    }

    fn pause<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            self.machine.freeze(self.known(target)?, true);
            Ok(())
        })
    }

    fn resume<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            self.machine.freeze(self.known(target)?, false);
            Ok(())
        })
    }

    fn is_running(&self, target: &str) -> bool {
        if target == CONTROL {
            return *self.control.borrow();
        }
        self.machine.links.host(target).is_some_and(|host| self.machine.is_running(host))
    }

    fn region_address(&self, region: &LocationName) -> Option<String> {
        Some(address(region.as_str()))
    }

    fn gateway_address(&self, edge: &LocationName) -> Option<String> {
        Some(address(edge.as_str()))
    }

    fn players(&self) -> Vec<Player> {
        vec![Player { address: address(USERS), edges: None }]
    }

    fn link_agents_of(&self, from: &LocationName, to: &LocationName) -> Vec<String> {
        self.topology.link(from, to).map(|_| format!("{USERS}:{AGENT_PORT}")).into_iter().collect()
    }

    fn link_agents(&self) -> Vec<String> {
        vec![format!("{USERS}:{AGENT_PORT}")]
    }

    fn probe<'a>(&'a self, from: &'a str, to: &'a str, deadline: Duration) -> WorldFuture<'a, Option<f64>> {
        Box::pin(async move {
            let pair = self.pair(from, to)?;
            match measure(&self.client, &pair, 1, deadline).await {
                Ok(round_trip) => Ok(round_trip),
                Err(error) if matches!(error.error, CallError::Problem { .. }) => Ok(None),
                Err(error) => Err(WorldError(error.to_string())),
            }
        })
    }

    fn measure_links(&self) -> WorldFuture<'_, Vec<LinkCheck>> {
        Box::pin(async move {
            let pairs = self.topology.links.keys().map(|(from, to)| self.pair(from.as_str(), to.as_str()));
            let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
            let (measured, failures) = survey(&self.client, &pairs, SURVEY).await;
            for failure in failures {
                tracing::warn!(%failure, "a link was not measured");
            }
            Ok(certificate::judge(&self.topology, &measured, None))
        })
    }
}
