//! The configuration of each role of an embedded testbed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul_core::ids::LocationName;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::{Location, Topology};
use longhaul_gateway::GatewayConfig;
use longhaul_gateway::config::RegionTarget;
use longhaul_netem::relay::{LinkConfig, RelayConfig, RouteConfig};
use longhaul_region::RegionConfig;
use longhaul_region::config::{Genesis, StoreConfig, Timings};
use longhaul_traffic::TrafficConfig;
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// A role's file: its own configuration, and where its traces go.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleFile<T> {
    /// The role's own.
    pub(crate) role: T,
    /// Where traces and metrics go (the base address of an OTLP endpoint); where the `OTEL_*` variables say if absent.
    #[serde(default)]
    pub(crate) otlp: Option<String>,
    /// The file that spans are written to; none if absent.
    #[serde(default)]
    pub(crate) spans: Option<PathBuf>,
    /// The location that the process stands at, for its traces.
    pub(crate) location: String,
}

/// The link role: relays of every directed pair, and their agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkRole {
    /// Where the agent listens, `host:port`.
    pub(crate) listen: String,
    /// What to drive.
    pub(crate) relay: RelayConfig,
    /// The token that changes need; none on loopback.
    #[serde(default)]
    pub(crate) token: Option<String>,
}

/// The traffic role: users of all edges.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrafficRole {
    /// Where it listens, `host:port`.
    pub(crate) listen: String,
    /// The role's own.
    pub(crate) traffic: TrafficConfig,
}

/// What every configuration is made from.
pub(crate) struct Plan<'a> {
    /// The topology.
    pub(crate) topology: &'a Topology,
    /// Who listens where.
    pub(crate) layout: &'a Layout,
    /// The seed of the testbed.
    pub(crate) seed: u64,
    /// The mode at the start.
    pub(crate) mode: Mode,
    /// The durability at the start.
    pub(crate) durability: Durability,
    /// The primary at the start, by name.
    pub(crate) primary: Option<String>,
    /// The secret of session tokens.
    pub(crate) session_secret: String,
}

impl Plan<'_> {
    /// A seed of its own for the n-th process.
    fn seed(&self, process: usize) -> u64 {
        self.seed.wrapping_add((process as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn place(&self, location: &LocationName) -> usize {
        self.topology.locations.iter().position(|other| other.name == *location).unwrap_or(0)
    }

    /// A region.
    pub(crate) fn region(&self, location: &Location, store: StoreConfig) -> Result<RegionConfig, String> {
        let topology = self.topology;
        let region = location.region.ok_or_else(|| format!("a defect: {} is no region", location.name))?;
        let mut peers = BTreeMap::new();
        for (id, name) in topology.regions().filter(|(id, _)| *id != region) {
            peers.insert(id, self.layout.relay(&location.name, name)?.to_owned().into());
        }
        Ok(RegionConfig {
            region,
            regions: topology.regions().map(|(id, name)| (id, name.clone())).collect(),
            listen: self.layout.service(&location.name)?.to_owned(),
            advertise: None,
            store,
            topology_fingerprint: topology.fingerprint.clone(),
            peers,
            genesis: Genesis {
                mode: self.mode,
                primary: self.primary.as_deref().and_then(|name| topology.region_id(name)),
                durability: self.durability,
            },
            seed: self.seed(self.place(&location.name)),
            session_secret: self.session_secret.clone(),
            token: None,
            timings: Timings::default(),
            visibility_sample: 8,
            unsafe_boot: false,
        })
    }

    /// A gateway.
    pub(crate) fn gateway(&self, location: &Location) -> Result<GatewayConfig, String> {
        let topology = self.topology;
        let home = location.home.ok_or_else(|| format!("a defect: {} has no home", location.name))?;
        let mut regions = Vec::new();
        for (id, name) in topology.regions() {
            regions.push(RegionTarget {
                id,
                name: name.clone(),
                addresses: vec![self.layout.relay(&location.name, name)?.to_owned()],
                rtt_ms: topology.round_trip_ms(&location.name, name).unwrap_or(0.0),
            });
        }
        let config = serde_json::json!({
            "edge": location.name,
            "home": home,
            "regions": regions,
            "listen": self.layout.service(&location.name)?,
            "seed": self.seed(self.place(&location.name)),
            "control": self.layout.control,
        });
        serde_json::from_value(config).map_err(|error| format!("a defect: the gateway of {}: {error}", location.name))
    }

    /// The links.
    pub(crate) fn link(&self) -> Result<LinkRole, String> {
        let links = self.topology.links.iter().map(|((from, to), link)| LinkConfig {
            from: from.clone(),
            to: to.clone(),
            profile: link.profile.clone(),
        });
        let mut routes = Vec::new();
        for ((from, to), listen) in &self.layout.relays {
            let target = self.layout.service(to)?.to_owned();
            routes.push(RouteConfig { from: from.clone(), to: to.clone(), listen: listen.clone(), target });
        }
        let relay = RelayConfig { seed: self.seed(1000), links: links.collect(), routes };
        Ok(LinkRole { listen: self.layout.link.clone(), relay, token: None })
    }

    /// The users; the ledger of each run is written to `ledger_dir`.
    pub(crate) fn traffic(&self, ledger_dir: &Path) -> TrafficRole {
        let traffic = TrafficConfig { seed: self.seed(1001), ledger_dir: Some(ledger_dir.to_owned()), token: None };
        TrafficRole { listen: self.layout.traffic.clone(), traffic }
    }
}
