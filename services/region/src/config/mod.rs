//! What a region is told when it starts: one JSON file, written by the parent process.

mod addresses;
mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::limits;
use longhaul_core::regime::{Durability, Mode, Regime};
use serde::{Deserialize, Serialize};

pub use self::addresses::Addresses;
pub use self::store::StoreConfig;

/// The configuration of one region, or of one API instance of a region that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// This region.
    pub region: RegionId,
    /// Every region of the topology by number, this one included.
    pub regions: BTreeMap<RegionId, LocationName>,
    /// Where to listen, `host:port`.
    pub listen: String,
    /// Where the other API instances of this region reach this one, `host:port`; `listen` if absent. Only a PostgreSQL
    /// store can be shared by several instances.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Where the region keeps what it knows; in memory if absent.
    #[serde(default)]
    pub store: StoreConfig,
    /// Fingerprint of the topology: a store of another topology is not opened.
    pub topology_fingerprint: String,
    /// Where to dial every other region: the entrance of the link from here to there, one for each of its API instances.
    pub peers: BTreeMap<RegionId, Addresses>,
    /// The first regime; used only while the store holds none.
    pub genesis: Genesis,
    /// The seed of everything random here (jitter, ids).
    pub seed: u64,
    /// The key that all regions of the testbed share: session tokens are authenticated with it.
    pub session_secret: String,
    /// The token of internal endpoints; none is needed on loopback.
    #[serde(default)]
    pub token: Option<String>,
    /// Protocol timings.
    #[serde(default)]
    pub timings: Timings,
    /// One of this many operations (by operation id, the same ones everywhere) has its moment of visibility recorded;
    /// 0 records none.
    #[serde(default = "visibility_sample_default")]
    pub visibility_sample: u32,
    /// Write after a boot although no peer could be asked whether it knows more of this region's log than this region
    /// does.
    #[serde(default)]
    pub unsafe_boot: bool,
}

const fn visibility_sample_default() -> u32 {
    8
}

/// The first regime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The mode.
    pub mode: Mode,
    /// The primary; the first region if absent (active-passive only).
    #[serde(default)]
    pub primary: Option<RegionId>,
    /// The durability (active-passive only).
    pub durability: Durability,
}

/// Protocol timings in milliseconds. Every one defaults to its limit of the same name; tests and simulations set others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timings {
    /// How often a stream says that it lives.
    pub heartbeat_ms: u64,
    /// How often an idle timeline appends a no-op.
    pub noop_ms: u64,
    /// Silence of the primary after which it is suspected.
    pub suspect_after_ms: u64,
    /// A timeline without progress for this long is fetched through a third region.
    pub relay_after_ms: u64,
    /// How often the primary renews its lease.
    pub lease_renew_ms: u64,
    /// How long a write waits for its durability.
    pub ack_deadline_ms: u64,
    /// How long a read with a session token waits.
    pub session_wait_ms: u64,
    /// Deadline of one regime message.
    pub vote_deadline_ms: u64,
    /// Deadline of a planned transition.
    pub transition_deadline_ms: u64,
    /// No second automatic failover within this time.
    pub failover_dwell_ms: u64,
    /// Deadline of opening a connection.
    pub connect_ms: u64,
    /// Silence after which a `sync` primary asks to leave a member out.
    pub in_sync_timeout_ms: u64,
    /// How often digests are compared with each peer.
    pub digest_ms: u64,
    /// How often collected tombstones and log entries are looked for.
    pub collect_ms: u64,
    /// How often the store does its housekeeping.
    pub maintain_ms: u64,
    /// Log entries kept per timeline although every member has them.
    pub log_retained: u64,
}

/// A named limit in whole milliseconds.
const fn ms(limit: Duration) -> u64 {
    limit.as_millis() as u64
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: ms(limits::HEARTBEAT_INTERVAL),
            noop_ms: ms(limits::NOOP_INTERVAL),
            suspect_after_ms: ms(limits::SUSPECT_AFTER),
            relay_after_ms: ms(limits::RELAY_AFTER),
            lease_renew_ms: ms(limits::LEASE_RENEW_INTERVAL),
            ack_deadline_ms: ms(limits::ACK_DEADLINE),
            session_wait_ms: ms(limits::SESSION_WAIT),
            vote_deadline_ms: ms(limits::VOTE_DEADLINE),
            transition_deadline_ms: ms(limits::TRANSITION_DEADLINE),
            failover_dwell_ms: ms(limits::FAILOVER_DWELL),
            connect_ms: ms(limits::CONNECT_DEADLINE),
            in_sync_timeout_ms: ms(limits::IN_SYNC_TIMEOUT),
            digest_ms: 3000,
            collect_ms: 1000,
            maintain_ms: 1000,
            log_retained: limits::LOG_RETAINED_MIN,
        }
    }
}

impl Timings {
    /// The heartbeat interval.
    pub const fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }
    /// The deadline of opening a connection.
    pub const fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }
    /// How long a write waits for its durability.
    pub const fn ack_deadline(&self) -> Duration {
        Duration::from_millis(self.ack_deadline_ms)
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The region is not in the list of regions.
    #[error("region {region} is not among the regions of the configuration; add it to `regions`")]
    UnknownRegion {
        /// The region.
        region: RegionId,
    },
    /// A region without an address.
    #[error("the configuration has no address for region {region}; add it to `peers`")]
    NoAddress {
        /// The region.
        region: RegionId,
    },
    /// The genesis regime names a primary that does not exist.
    #[error("the primary {region} of the genesis regime is no region of the configuration; name one of `regions`")]
    UnknownPrimary {
        /// The region.
        region: RegionId,
    },
    /// A schema whose name would have to be quoted.
    #[error(
        "the schema {schema:?} of the store cannot be used: name it with lower case letters, digits and _, at most 63 \
         bytes, beginning with a letter"
    )]
    Schema {
        /// Its name.
        schema: String,
    },
}

impl RegionConfig {
    /// Checks that the parts fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.regions.contains_key(&self.region) {
            return Err(ConfigError::UnknownRegion { region: self.region });
        }
        if let Some(region) = self.genesis.primary.filter(|primary| !self.regions.contains_key(primary)) {
            return Err(ConfigError::UnknownPrimary { region });
        }
        if let Some(schema) = self.store.unusable_schema() {
            return Err(ConfigError::Schema { schema: schema.to_owned() });
        }
        let missing = self.others().find(|region| self.peers.get(region).is_none_or(Addresses::is_empty));
        missing.map_or(Ok(()), |region| Err(ConfigError::NoAddress { region }))
    }

    /// This region's name.
    pub fn name(&self) -> &str {
        self.name_of(self.region)
    }

    /// Where the other API instances of this region reach this one.
    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    /// A region's name; `unknown` if there is no such region.
    pub fn name_of(&self, region: RegionId) -> &str {
        self.regions.get(&region).map_or("unknown", LocationName::as_str)
    }

    /// The region of that name.
    pub fn region_named(&self, name: &str) -> Option<RegionId> {
        self.regions.iter().find(|(_, known)| known.as_str() == name).map(|(region, _)| *region)
    }

    /// Every other region.
    pub fn others(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.regions.keys().copied().filter(|region| *region != self.region)
    }

    /// The regime that every region starts from.
    pub fn genesis_regime(&self) -> Regime {
        let genesis = self.genesis;
        Regime::genesis(self.regions.keys().copied(), genesis.mode, genesis.primary, genesis.durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RegionConfig {
        serde_json::from_value(serde_json::json!({
            "region": 1,
            "regions": {"1": "eu-west", "2": "us-east"},
            "listen": "127.0.0.1:0",
            "topology_fingerprint": "t",
            "peers": {"2": "127.0.0.1:9"},
            "genesis": {"mode": "active-active", "durability": "local"},
            "seed": 1,
            "session_secret": "s"
        }))
        .unwrap()
    }

    #[test]
    fn a_minimal_file_is_enough_and_survives_a_round_trip() {
        let config = config();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.timings, Timings::default());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RegionConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_region_without_an_address_is_named() {
        let mut config = config();
        config.peers.clear();
        assert_eq!(config.check(), Err(ConfigError::NoAddress { region: RegionId(2) }));
    }

    #[test]
    fn a_postgres_store_several_instances_and_their_addresses_are_read() {
        let mut value = serde_json::to_value(config()).unwrap();
        value["store"] = serde_json::json!({"kind": "postgres", "url": "postgres://region@db/longhaul"});
        value["advertise"] = "10.0.0.1:8081".into();
        value["peers"] = serde_json::json!({"2": ["10.1.0.1:8080", "10.1.0.1:8081"]});
        let config: RegionConfig = serde_json::from_value(value).unwrap();
        assert_eq!(config.check(), Ok(()));
        let schema = "longhaul".to_owned();
        let url = "postgres://region@db/longhaul".to_owned();
        assert_eq!(config.store, StoreConfig::Postgres { url, schema });
        assert_eq!((config.advertised(), config.peers[&RegionId(2)].all().len()), ("10.0.0.1:8081", 2));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RegionConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_schema_that_would_need_quotes_is_refused() {
        let mut config = config();
        for schema in ["", "Longhaul", "eu-west", "a\"b", "1a", "pg_temp", &"a".repeat(64)] {
            config.store = StoreConfig::Postgres { url: String::new(), schema: schema.to_owned() };
            assert_eq!(config.check(), Err(ConfigError::Schema { schema: schema.to_owned() }));
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut value = serde_json::to_value(config()).unwrap();
        value["typo"] = true.into();
        assert!(serde_json::from_value::<RegionConfig>(value).is_err());
    }
}
