//! The links of one location, by whatever drives them.

use std::net::IpAddr;
use std::sync::Arc;

use longhaul_core::ids::LocationName;
use longhaul_core::link::LinkProfile;
use longhaul_core::topology::LocationKind;
use longhaul_http::clock::SystemClock;
use longhaul_http::net::TokioNet;
use longhaul_netem::agent::Links;
use longhaul_netem::plan::Destination;
use longhaul_netem::relay::{LinkConfig, Relay, RelayConfig, RouteConfig};
use longhaul_netem::tc::{SystemShell, Tc, TcConfig, device_towards};
use tokio_util::sync::CancellationToken;

use super::places::{relay, service_port};
use super::site::{LinkDriver, Site};

/// Starts the links that begin at `location`.
pub(crate) async fn start(site: &Site, location: &LocationName, stop: &CancellationToken) -> Result<Links, String> {
    match site.links {
        LinkDriver::Relay => {
            let config = relays(site, location);
            let started =
                Relay::start(Arc::new(TokioNet), Arc::new(SystemClock::default()), config, stop.clone()).await;
            started.map(Links::Relay).map_err(|error| error.to_string())
        }
        LinkDriver::Kernel => {
            let shell = Arc::new(SystemShell);
            let destinations = destinations(site, location)?;
            let Some(first) = destinations.first() else { return Ok(Links::Real) };
            let device = device_towards(shell.as_ref(), first.subnets[0].address()).await.map_err(|e| e.to_string())?;
            let inbound = site.topology.links.iter().filter(|((_, to), _)| to == location);
            let config = TcConfig {
                location: location.clone(),
                device,
                namespace: None,
                destinations,
                inbound: inbound.map(|((from, _), link)| (from.clone(), link.profile.clone())).collect(),
            };
            Tc::start(shell, config, stop.clone()).await.map(Links::Kernel).map_err(|error| error.to_string())
        }
        LinkDriver::Real => Ok(Links::Real),
    }
}

/// Every other location with its address and the link to it.
fn destinations(site: &Site, location: &LocationName) -> Result<Vec<Destination>, String> {
    let links = site.topology.links.iter().filter(|((from, _), _)| from == location);
    let destination = |to: &LocationName, profile: &LinkProfile| -> Result<Destination, String> {
        let host = site.backbone.host(to);
        let address: IpAddr = host.parse().map_err(|_| {
            format!("LONGHAUL_ADDRESSES: {to} is {host:?}; the kernel's links need an IP address for each location")
        })?;
        Ok(Destination { name: to.clone(), subnets: vec![address.into()], profile: profile.clone() })
    };
    links.map(|((_, to), link)| destination(to, &link.profile)).collect()
}

/// A relay to every other location, dialled by the processes of this one. Both directions of a connection pass the relay
/// at the location that opened it.
fn relays(site: &Site, location: &LocationName) -> RelayConfig {
    let here = |pair: &(LocationName, LocationName)| pair.0 == *location || pair.1 == *location;
    let links = site.topology.links.iter().filter(|(pair, _)| here(pair)).map(|((from, to), link)| LinkConfig {
        from: from.clone(),
        to: to.clone(),
        profile: link.profile.clone(),
    });
    let others = site.topology.locations.iter().filter(|other| other.name != *location);
    let routes = others.flat_map(|to| {
        let instances = if to.kind == LocationKind::Region { site.instances } else { 1 };
        (1..=instances).map(|instance| RouteConfig {
            from: location.clone(),
            to: to.name.clone(),
            listen: relay(&site.topology, &to.name, instance),
            target: site.backbone.at(&to.name, service_port(instance)),
        })
    });
    let place = site.topology.locations.iter().position(|other| other.name == *location).unwrap_or(0);
    RelayConfig { seed: site.seed.wrapping_add(1000 + place as u64), links: links.collect(), routes: routes.collect() }
}
