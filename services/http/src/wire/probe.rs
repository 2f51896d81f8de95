//! Round-trip probes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answers with 204 at once.
pub const PROBE_PATH: &str = "/internal/v1/probe";
/// Measures another location.
pub const PROBE_MEASURE_PATH: &str = "/internal/v1/probe/measure";

/// Ask a location to measure an address.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProbeRequest {
    /// `host:port`, as the location dials it.
    pub address: String,
    /// How many round trips, 1 to 200.
    pub samples: u32,
    /// Deadline of each, milliseconds.
    pub deadline_ms: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProbeResult {
    /// Each round trip, milliseconds, in order.
    pub round_trips_ms: Vec<f64>,
}
