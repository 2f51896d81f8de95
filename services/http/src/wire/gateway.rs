//! What a gateway says about itself, and its answer to "which region do I dial".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET`: [`GatewayStatus`].
pub const GATEWAY_PATH: &str = "/internal/v1/gateway";
/// `GET ?home=NAME&access=write|read`: [`Resolved`], for users who dial regions themselves (`geodns` steering).
pub const RESOLVE_PATH: &str = "/v1/resolve";
/// Request: milliseconds that the user still waits. It can only shorten the gateway's own deadline.
pub const DEADLINE_MS: &str = "longhaul-deadline-ms";

/// A gateway at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatewayStatus {
    /// Its edge.
    pub edge: String,
    /// The home region of the edge's users, by name.
    pub home: String,
    /// The epoch that it routes by (0: it knows no regime yet).
    pub epoch: u64,
    /// When it adopted each regime, oldest first (the last 256).
    pub adopted: Vec<AdoptedRegime>,
    /// What it knows about each region, in the order of their numbers.
    pub regions: Vec<RegionReach>,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests that wait for a newer regime or for a region to come back.
    pub holding: u64,
    /// Counters since the start, by name.
    pub counters: BTreeMap<String, u64>,
}

/// The moment from which a gateway routed by a regime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptedRegime {
    /// The regime's epoch.
    pub epoch: u64,
    /// When, nanoseconds since the host's boot.
    pub boot_ns: u64,
    /// The mode.
    pub mode: String,
    /// The primary, by name (`active-passive` only).
    pub primary: Option<String>,
}

/// Where a circuit breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused at once.
    Open,
    /// One request at a time is let through to see whether the region answers again.
    HalfOpen,
}

/// A region as a gateway sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegionReach {
    /// Its name.
    pub name: String,
    /// Whether it answers the gateway.
    pub healthy: bool,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Round trip as measured, moving average, milliseconds (before the first measurement: as declared).
    pub latency_ms: f64,
    /// 95th percentile of recent reads, milliseconds; absent until there are enough.
    pub read_p95_ms: Option<f64>,
    /// Attempts under way.
    pub in_flight: u64,
    /// Most attempts that may be under way now.
    pub concurrency_limit: u64,
    /// Its API instances: address and whether it answers.
    pub instances: BTreeMap<String, bool>,
}

/// The region to dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Its name.
    pub region: String,
    /// Its addresses as this edge dials them, `host:port`.
    pub addresses: Vec<String>,
    /// How long the answer may be kept, milliseconds.
    pub ttl_ms: u64,
    /// The epoch by which it was chosen.
    pub epoch: u64,
}
