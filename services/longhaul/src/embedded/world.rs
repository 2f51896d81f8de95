//! The embedded world: what control can do to child processes and userspace links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_control::world::{World, WorldError, WorldFuture};
use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::{LocationKind, Topology};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_netem::certificate;
use longhaul_netem::probe::{Pair, measure, survey};
use tokio::sync::watch;

use super::child::Child;
use super::layout::Layout;

/// Round trips per pair of the certificate.
const SAMPLES: u32 = 12;
/// Deadline of one round trip of the certificate.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(3);
/// A pair outside the tolerance is measured again this many times, and the smallest figure counts: a busy machine adds to
/// a round trip now and then and never takes from it, and a wrong link is wrong each time.
const REPEATS: usize = 8;

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
        let found = self.topology.locations.iter().find(|location| location.name.as_str() == name);
        found.map(|location| &location.name).ok_or_else(|| WorldError(format!("there is no location {name:?}")))
    }

    fn address(&self, name: &LocationName, kind: LocationKind) -> Option<String> {
        let location = self.topology.locations.iter().find(|location| location.name == *name)?;
        (location.kind == kind).then(|| self.layout.services.get(name).cloned()).flatten()
    }

    async fn certify(&self) -> Vec<LinkCheck> {
        let pairs: Vec<Pair> = self.topology.links.keys().filter_map(|(from, to)| self.pair(from, to)).collect();
        let (mut measured, failures) = survey(&self.client, &pairs, SAMPLES, SAMPLE_DEADLINE).await;
        for failure in failures {
            tracing::warn!(%failure, "a link was not measured");
        }
        let mut checks = certificate::judge(&self.topology, &measured, None);
        for _ in 0..REPEATS {
            let off = |pair: &&Pair| {
                checks.iter().any(|check| !check.ok && check.from == pair.from.as_str() && check.to == pair.to.as_str())
            };
            let again: Vec<Pair> = pairs.iter().filter(off).cloned().collect();
            if again.is_empty() {
                break;
            }
            for (pair, figure) in survey(&self.client, &again, SAMPLES, SAMPLE_DEADLINE).await.0 {
                let smallest = measured.entry(pair).or_insert(figure);
                *smallest = smallest.min(figure);
            }
            checks = certificate::judge(&self.topology, &measured, None);
        }
        checks
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

    fn traffic_address(&self) -> String {
        self.layout.traffic.clone()
    }

    fn link_agent(&self, from: &LocationName, to: &LocationName) -> Option<String> {
        let there = self.topology.links.contains_key(&(from.clone(), to.clone()));
        there.then(|| self.layout.link.clone())
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
