//! The embedded world: what control can do to child processes and userspace links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_control::world::{Player, World, WorldError, WorldFuture};
use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::{Location, LocationKind, Topology};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::watch;
use longhaul_netem::probe::{Pair, measure};

use super::child::Child;
use super::layout::Layout;
use crate::certify::certify;

/// The world of a testbed.
pub(crate) struct EmbeddedWorld {
    topology: Topology,
    layout: Arc<Layout>,
    children: BTreeMap<String, Arc<Child>>,
    client: HttpClient,
    /// Whether control's API is up.
    control: watch::Sender<bool>,
}

impl EmbeddedWorld {
    /// The world of these children.
    pub(crate) fn new(
        topology: Topology,
        layout: Arc<Layout>,
        children: BTreeMap<String, Arc<Child>>,
        client: HttpClient,
        control: watch::Sender<bool>,
    ) -> Self {
        Self { topology, layout, children, client, control }
    }

    fn child(&self, target: &str) -> Result<&Arc<Child>, WorldError> {
        self.children.get(target).ok_or_else(|| {
            let known = self.children.keys().cloned().collect::<Vec<_>>().join(", ");
            WorldError(format!("there is no process {target:?}; use one of {known}, control"))
        })
    }

    fn pair(&self, from: &LocationName, to: &LocationName) -> Option<Pair> {
        Some(Pair {
            from: from.clone(),
            to: to.clone(),
            prober: self.layout.services.get(from)?.clone(),
            address: self.layout.relays.get(&(from.clone(), to.clone()))?.clone(),
        })
    }

    fn location(&self, name: &str) -> Result<&LocationName, WorldError> {
        let found = self.topology.location(name);
        found.map(|location| &location.name).ok_or_else(|| WorldError(format!("there is no location {name:?}")))
    }

    fn address(&self, name: &LocationName, kind: LocationKind) -> Option<String> {
        let location = self.topology.location(name.as_str())?;
        (location.kind == kind).then(|| self.layout.services.get(name).cloned()).flatten()
    }

    async fn certify(&self) -> Vec<LinkCheck> {
        let pairs: Vec<Pair> = self.topology.links.keys().filter_map(|(from, to)| self.pair(from, to)).collect();
        let itself = |at: &Location| {
            let address = self.layout.services.get(&at.name)?.clone();
            Some(Pair { from: at.name.clone(), to: at.name.clone(), prober: address.clone(), address })
        };
        let selves: Vec<Pair> = self.topology.locations.iter().filter_map(itself).collect();
        certify(&self.client, &self.topology, &pairs, &selves).await
    }
}

impl World for EmbeddedWorld {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn kill<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == "control" {
                // Control lives in the parent, with the drill that kills it: what goes is its API.
                self.control.send_replace(false);
                return Ok(());
            }
            self.child(target)?.kill().await.map_err(WorldError)
        })
    }

    fn restart<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            if target == "control" {
                self.control.send_replace(true);
                return Ok(());
            }
            self.child(target)?.start().map_err(WorldError)
        })
    }

    fn pause<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move { self.child(target)?.pause().await.map_err(WorldError) })
    }

    fn resume<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move { self.child(target)?.resume().map_err(WorldError) })
    }

    fn is_running(&self, target: &str) -> bool {
        if target == "control" {
            return *self.control.borrow();
        }
        self.children.get(target).is_some_and(|child| child.is_running())
    }

    fn region_address(&self, region: &LocationName) -> Option<String> {
        self.address(region, LocationKind::Region)
    }

    fn gateway_address(&self, edge: &LocationName) -> Option<String> {
        self.address(edge, LocationKind::Edge)
    }

    fn players(&self) -> Vec<Player> {
        vec![Player { address: self.layout.traffic.clone(), edges: None }]
    }

    fn link_agents_of(&self, from: &LocationName, to: &LocationName) -> Vec<String> {
        let there = self.topology.links.contains_key(&(from.clone(), to.clone()));
        there.then(|| self.layout.link.clone()).into_iter().collect()
    }

    fn link_agents(&self) -> Vec<String> {
        vec![self.layout.link.clone()]
    }

    fn probe<'a>(&'a self, from: &'a str, to: &'a str, deadline: Duration) -> WorldFuture<'a, Option<f64>> {
        Box::pin(async move {
            let (from, to) = (self.location(from)?, self.location(to)?);
            let pair = self.pair(from, to).ok_or_else(|| WorldError(format!("no link goes from {from} to {to}")))?;
            match measure(&self.client, &pair, 1, deadline).await {
                Ok(round_trip) => Ok(round_trip),
                // The prober answered that nothing came back.
                Err(error) if matches!(error.error, CallError::Problem { .. }) => Ok(None),
                Err(error) => Err(WorldError(error.to_string())),
            }
        })
    }

    fn measure_links(&self) -> WorldFuture<'_, Vec<LinkCheck>> {
        Box::pin(async move { Ok(self.certify().await) })
    }
}
