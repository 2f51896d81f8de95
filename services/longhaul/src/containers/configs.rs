//! The configuration of each role at a location.

use longhaul_core::topology::LocationKind;
use longhaul_gateway::GatewayConfig;
use longhaul_region::RegionConfig;
use longhaul_region::config::StoreConfig;

use super::Site;
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
    plan(site, |plan| plan.region(location, store(site)?))
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
    plan(site, |plan| plan.gateway(location))
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
    fn two_processes_have_different_seeds() {
        assert_ne!(region(&site("eu-west-1")).unwrap().seed, region(&site("eu-central-1")).unwrap().seed);
    }
}
