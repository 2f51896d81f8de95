//! Who listens where. Each process reaches another location only through the relay address of its own pair.

use std::collections::BTreeMap;

use longhaul_core::ids::LocationName;
use longhaul_core::topology::Topology;

use super::ports::Ports;

/// Addresses of a testbed, as its processes listen and dial.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Each location's own process: a region's API, an edge's gateway.
    pub(crate) services: BTreeMap<LocationName, String>,
    /// Where who is at the first location dials the second.
    pub(crate) relays: BTreeMap<(LocationName, LocationName), String>,
    /// The agent of the links.
    pub(crate) link: String,
    /// The traffic role.
    pub(crate) traffic: String,
    /// Control.
    pub(crate) control: String,
    // Held as long as the testbed lives.
    _ports: Option<Ports>,
}

impl Layout {
    /// Finds a place for everything. Control takes `control_port` if there is one.
    pub(crate) async fn plan(topology: &Topology, control_port: Option<u16>, spread: u64) -> Result<Self, String> {
        let count = topology.locations.len() + topology.links.len() + 3;
        let mut ports = Ports::take(count, spread).await?;
        let mut next = || ports.next().map(|port| format!("127.0.0.1:{port}"));
        let link = next()?;
        let traffic = next()?;
        let control = match control_port {
            Some(port) => format!("127.0.0.1:{port}"),
            None => next()?,
        };
        let mut services = BTreeMap::new();
        for location in &topology.locations {
            services.insert(location.name.clone(), next()?);
        }
        let mut relays = BTreeMap::new();
        for pair in topology.links.keys() {
            relays.insert(pair.clone(), next()?);
        }
        Ok(Self { services, relays, link, traffic, control, _ports: Some(ports) })
    }

    /// A layout of addresses that somebody else has given out.
    pub(crate) fn given(
        services: BTreeMap<LocationName, String>,
        relays: BTreeMap<(LocationName, LocationName), String>,
        link: String,
        traffic: String,
        control: String,
    ) -> Self {
        Self { services, relays, link, traffic, control, _ports: None }
    }

    /// The address of a location's own process.
    pub(crate) fn service(&self, location: &LocationName) -> Result<&str, String> {
        self.services.get(location).map(String::as_str).ok_or_else(|| format!("a defect: {location} has no address"))
    }

    /// What `from` dials to reach `to`.
    pub(crate) fn relay(&self, from: &LocationName, to: &LocationName) -> Result<&str, String> {
        let pair = (from.clone(), to.clone());
        self.relays.get(&pair).map(String::as_str).ok_or_else(|| format!("a defect: {from} to {to} has no relay"))
    }
}
