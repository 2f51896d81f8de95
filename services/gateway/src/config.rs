//! What a gateway is told when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longhaul_core::ids::{LocationName, RegionId};
use serde::{Deserialize, Serialize};

use crate::balance::Balancing;

/// The configuration of one gateway; JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The edge that it stands at.
    pub edge: LocationName,
    /// The home of the edge's users: the jurisdiction that they live in.
    pub home: RegionId,
    /// Every region.
    pub regions: Vec<RegionTarget>,
    /// Where it listens, `host:port`. The caller binds; kept here so that one document says it all.
    pub listen: String,
    /// Seed of every random choice. Two gateways need different ones.
    pub seed: u64,
    /// Token of internal endpoints; `None` (bound to loopback): none is needed.
    #[serde(default)]
    pub token: Option<String>,
    /// Control's address, `host:port`: one more place to learn the regime from. The gateway works without.
    #[serde(default)]
    pub control: Option<String>,
    /// How to choose among several API instances of one region.
    #[serde(default)]
    pub balancing: Balancing,
    /// How users find a region.
    #[serde(default)]
    pub steering: Steering,
    /// When an eventual read asks a second region.
    #[serde(default)]
    pub hedging: Hedging,
    /// How many retries it can afford.
    #[serde(default)]
    pub retries: Retries,
    /// Most attempts under way at one region, at the start; the limit then adapts.
    #[serde(default = "concurrency_default")]
    pub concurrency: u32,
}

const fn concurrency_default() -> u32 {
    512
}

/// A region as seen from the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionTarget {
    /// Its number.
    pub id: RegionId,
    /// Its name.
    pub name: LocationName,
    /// Where its API instances are dialled over the link, `host:port`; at least one.
    pub addresses: Vec<String>,
    /// Declared round trip, milliseconds; it orders regions until one is measured.
    pub rtt_ms: f64,
}

/// How users find a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Steering {
    /// Users enter here and the gateway forwards.
    #[default]
    Anycast,
    /// Users ask `/v1/resolve`, keep the answer for its time to live and dial the region.
    Geodns {
        /// Time to live of an answer, milliseconds.
        ttl_ms: u64,
    },
}

impl Steering {
    /// Time to live of an answer. Under `anycast` an answer serves people only and must not be kept.
    pub const fn ttl_ms(self) -> u64 {
        match self {
            Self::Anycast => 0,
            Self::Geodns { ttl_ms } => ttl_ms,
        }
    }
}

/// When an eventual read asks a second region.
///
/// Source: Dean and Barroso, "The Tail at Scale", 2013: a second request after the 95th percentile costs about 5 % more
/// load and cuts the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedging {
    /// Whether at all.
    pub enabled: bool,
    /// Not before this long, milliseconds, however fast the first region usually is.
    pub floor_ms: u64,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { enabled: true, floor_ms: 10 }
    }
}

impl Hedging {
    /// The floor.
    pub const fn floor(self) -> Duration {
        Duration::from_millis(self.floor_ms)
    }
}

/// How many retries a gateway can afford. Attempts for which a region asked (a switchover, a stale view) cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// Most at once.
    pub burst: f64,
    /// Retries that each request pays for: in the long run no more than this share of requests is repeated.
    pub per_request: f64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { burst: 500.0, per_request: 0.2 }
    }
}

/// A configuration that no gateway can run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No region at all.
    #[error("the gateway of edge {edge} has no regions: name every region of the topology")]
    NoRegions {
        /// The edge.
        edge: LocationName,
    },
    /// Two regions with one number or name.
    #[error("region {name} ({id}) is named twice: give each region its own number and name")]
    Twice {
        /// The second one's number.
        id: RegionId,
        /// The second one's name.
        name: LocationName,
    },
    /// A region that nobody can dial.
    #[error("region {name} has no address: give the address at which this edge dials it")]
    NoAddress {
        /// The region.
        name: LocationName,
    },
    /// A round trip that is no number of milliseconds.
    #[error("region {name} has a declared round trip of {rtt_ms} ms: it must be 0 to 120000")]
    RoundTrip {
        /// The region.
        name: LocationName,
        /// What was stated.
        rtt_ms: String,
    },
    /// A home that is no region.
    #[error("the home of edge {edge} is region {home}, which is not among its regions: correct the home")]
    Home {
        /// The edge.
        edge: LocationName,
        /// The home.
        home: RegionId,
    },
}

impl GatewayConfig {
    /// Whether a gateway can run with it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.regions.is_empty() {
            return Err(ConfigError::NoRegions { edge: self.edge.clone() });
        }
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for region in &self.regions {
            if !ids.insert(region.id) || !names.insert(&region.name) {
                return Err(ConfigError::Twice { id: region.id, name: region.name.clone() });
            }
            if region.addresses.is_empty() {
                return Err(ConfigError::NoAddress { name: region.name.clone() });
            }
            if !(0.0..=120_000.0).contains(&region.rtt_ms) {
                return Err(ConfigError::RoundTrip { name: region.name.clone(), rtt_ms: region.rtt_ms.to_string() });
            }
        }
        if !ids.contains(&self.home) {
            return Err(ConfigError::Home { edge: self.edge.clone(), home: self.home });
        }
        Ok(())
    }

    /// Names of regions by number.
    pub fn names(&self) -> BTreeMap<RegionId, LocationName> {
        self.regions.iter().map(|region| (region.id, region.name.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GatewayConfig {
        serde_json::from_value(serde_json::json!({
            "edge": "london", "home": 1, "listen": "127.0.0.1:0", "seed": 7,
            "regions": [
                {"id": 1, "name": "eu-west", "addresses": ["127.0.0.1:1"], "rtt_ms": 11.0},
                {"id": 2, "name": "us-east", "addresses": ["127.0.0.1:2", "127.0.0.1:3"], "rtt_ms": 77.5}
            ],
            "balancing": "power_of_two", "steering": {"kind": "geodns", "ttl_ms": 30000}
        }))
        .unwrap()
    }

    #[test]
    fn a_document_with_defaults_is_read_and_survives_a_round_trip() {
        let config = config();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.steering.ttl_ms(), config.hedging, config.concurrency), (30_000, Hedging::default(), 512));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<GatewayConfig>(&text).unwrap(), config);
    }

    #[test]
    fn what_no_gateway_can_run_with_is_refused_by_name() {
        let refused = |change: fn(&mut GatewayConfig)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert!(matches!(refused(|config| config.regions.clear()), ConfigError::NoRegions { .. }));
        assert!(matches!(refused(|config| config.regions[1].id = RegionId(1)), ConfigError::Twice { .. }));
        assert!(matches!(refused(|config| config.regions[0].addresses.clear()), ConfigError::NoAddress { .. }));
        assert!(matches!(refused(|config| config.regions[0].rtt_ms = f64::NAN), ConfigError::RoundTrip { .. }));
        assert!(matches!(refused(|config| config.home = RegionId(9)), ConfigError::Home { .. }));
    }
}
