//! The configuration of each role at a location.

use longhaul_core::topology::LocationKind;
use longhaul_gateway::GatewayConfig;
use longhaul_region::RegionConfig;
use longhaul_region::config::StoreConfig;

use super::Site;
use super::places::service_port;
use crate::embedded::{Plan, TrafficRole};

/// The schema in a region's own database.
const SCHEMA: &str = "longhaul";

fn plan<T>(site: &Site, make: impl FnOnce(&Plan<'_>) -> Result<T, String>) -> Result<T, String> {
    let layout = site.layout();
    make(&Plan {
        topology: &site.topology,
        layout: &layout,
        seed: site.seed,
        mode: site.mode,
        durability: site.durability,
        primary: None,
        session_secret: site.session_secret.clone(),
    })
}

/// A region.
pub(crate) fn region(site: &Site) -> Result<RegionConfig, String> {
    let location = site.location_of_kind(LocationKind::Region)?;
    let mut config = plan(site, |plan| plan.region(location, store(site)?))?;
    if site.instances > 1 {
        if site.database_url.is_none() {
            return Err(
                "LONGHAUL_INSTANCES: several instances need one PostgreSQL; set LONGHAUL_DATABASE_URL".to_owned()
            );
        }
        config.seed = config.seed.wrapping_add(u64::from(site.instance - 1) << 32);
        // All instances of a region are in one network namespace.
        config.advertise = Some(format!("127.0.0.1:{}", service_port(site.instance)));
        for (id, peer) in &mut config.peers {
            let name = config.regions.get(id).ok_or_else(|| format!("a defect: region {id} has no name"))?;
            *peer = site.dial_all(name).into();
        }
    }
    Ok(config)
}

/// The region's store: a PostgreSQL server if one is named, otherwise a SQLite file.
fn store(site: &Site) -> Result<StoreConfig, String> {
    if let Some(url) = &site.database_url {
        return Ok(StoreConfig::Postgres { url: url.clone(), schema: SCHEMA.to_owned() });
    }
    let folder = site.data.as_ref().ok_or("no store is named; set LONGHAUL_DATA, or LONGHAUL_DATABASE_URL")?;
    Ok(StoreConfig::sqlite(folder))
}

/// A gateway.
pub(crate) fn gateway(site: &Site) -> Result<GatewayConfig, String> {
    let location = site.location_of_kind(LocationKind::Edge)?;
    let mut config = plan(site, |plan| plan.gateway(location))?;
    for region in &mut config.regions {
        region.addresses = site.dial_all(&region.name);
    }
    Ok(config)
}

/// The users of an edge. Their ledgers are kept where data lies, if it is named.
pub(crate) fn traffic(site: &Site) -> Result<TrafficRole, String> {
    let mut role = plan(site, |plan| Ok(plan.traffic(&site.data.clone().unwrap_or_default())))?;
    role.traffic.ledger_dir.clone_from(&site.data);
    Ok(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::PlaceArgs;

    fn site(location: &str) -> Site {
        let args = PlaceArgs { topology: Some("two-regions".to_owned()), location: Some(location.to_owned()) };
        let variable = |name: &str| {
            let value = match name {
                "LONGHAUL_DATA" => "/data",
                "LONGHAUL_ADDRESSES" => "eu-west-1=10.87.0.11,eu-central-1=10.87.0.12,paris=10.87.0.13",
                _ => return None,
            };
            Some(value.to_owned())
        };
        Site::read(&args, &variable).unwrap()
    }

    #[test]
    fn a_region_dials_its_peers_and_no_more() {
        let config = region(&site("eu-west-1")).unwrap();
        let dialled: Vec<_> = config.peers.values().flat_map(longhaul_region::config::Addresses::all).collect();
        assert_eq!(dialled, ["10.87.0.12:7000"]);
        assert_eq!(config.check(), Ok(()));
        assert!(region(&site("paris")).is_err());
    }

    #[test]
    fn a_gateway_dials_every_region() {
        let config = gateway(&site("paris")).unwrap();
        let dialled: Vec<_> = config.regions.iter().flat_map(|region| region.addresses.clone()).collect();
        assert_eq!(dialled, ["10.87.0.11:7000", "10.87.0.12:7000"]);
        assert_eq!(config.control.as_deref(), Some("control:8080"));
        assert!(gateway(&site("eu-west-1")).is_err());
    }

    #[test]
    fn several_instances_are_dialled_one_and_all() {
        let place = |location: &str, links: &str, database: &str| {
            let args = PlaceArgs { topology: Some("two-regions".to_owned()), location: Some(location.to_owned()) };
            let variable = |name: &str| {
                let value = match name {
                    "LONGHAUL_ADDRESSES" => "eu-west-1=10.87.0.11,eu-central-1=10.87.0.12,paris=10.87.0.13",
                    "LONGHAUL_DATA" => "/data",
                    "LONGHAUL_DATABASE_URL" => database,
                    "LONGHAUL_LINKS" => links,
                    "LONGHAUL_INSTANCES" | "LONGHAUL_INSTANCE" => "2",
                    _ => return None,
                };
                Some(value.to_owned())
            };
            Site::read(&args, &variable).unwrap()
        };
        let second = region(&place("eu-west-1", "kernel", "postgres://db")).unwrap();
        assert_eq!((second.listen.as_str(), second.advertise.as_deref()), ("0.0.0.0:7001", Some("127.0.0.1:7001")));
        let dialled: Vec<_> = second.peers.values().flat_map(longhaul_region::config::Addresses::all).collect();
        assert_eq!(dialled, ["10.87.0.12:7000", "10.87.0.12:7001"]);
        let edge = gateway(&place("paris", "relay", "")).unwrap();
        assert_eq!(edge.regions[0].addresses, ["127.0.0.1:17000", "127.0.0.1:17128"]);
        assert!(region(&place("eu-west-1", "kernel", "")).unwrap_err().contains("LONGHAUL_DATABASE_URL"));
    }

    #[test]
    fn two_processes_have_different_seeds() {
        assert_ne!(region(&site("eu-west-1")).unwrap().seed, region(&site("eu-central-1")).unwrap().seed);
    }
}
