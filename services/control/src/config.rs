//! What control is told when it starts.

use std::sync::Arc;

use longhaul_core::topology::Topology;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::SharedNet;

use crate::world::World;

/// The seams.
#[derive(Clone)]
pub struct Deps {
    /// The network, out of band.
    pub net: SharedNet,
    /// Time.
    pub clock: SharedClock,
    /// Processes and links.
    pub world: Arc<dyn World>,
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The topology.
    pub topology: Topology,
    /// The seed of ids and of run keys.
    pub seed: u64,
    /// The token that requests must carry; none on loopback.
    pub token: Option<String>,
    /// Where Jaeger's pages are, for the addresses of traces; none if there is no Jaeger.
    pub jaeger: Option<String>,
    /// The version of the program, for reports.
    pub version: String,
    /// US dollars for a gigabyte (10^9 bytes) that leaves a location, by the name of the location.
    pub usd_per_gb: std::collections::BTreeMap<String, f64>,
    /// The price where the table names none.
    pub usd_per_gb_default: f64,
}

/// Price of a gigabyte that leaves a region, US dollars, where nothing else is configured. A round figure of the order
/// that large providers list for traffic between regions; it serves to compare modes, not to foresee a bill.
const USD_PER_GB_DEFAULT: f64 = 0.02;

impl ControlConfig {
    /// A configuration without a token, with the default price.
    pub fn new(topology: Topology, seed: u64, version: impl Into<String>) -> Self {
        Self {
            topology,
            seed,
            token: None,
            jaeger: None,
            version: version.into(),
            usd_per_gb: std::collections::BTreeMap::new(),
            usd_per_gb_default: USD_PER_GB_DEFAULT,
        }
    }

    /// The price of bytes that leave `from`, US dollars.
    pub fn price(&self, from: &str, bytes: u64) -> f64 {
        let per_gb = self.usd_per_gb.get(from).copied().unwrap_or(self.usd_per_gb_default);
        per_gb * bytes as f64 / 1e9
    }
}
