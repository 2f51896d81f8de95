//! The role's configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the traffic role runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficConfig {
    /// The seed of ids that are not part of a run (run ids, traces, the canaries of continuous traffic).
    pub seed: u64,
    /// Where ledgers are written, one JSON line for each operation; nowhere if absent. The directory must exist.
    pub ledger_dir: Option<PathBuf>,
    /// The testbed's token: needed by its API unless it is bound to loopback, and sent to the regions for evidence.
    pub token: Option<String>,
}
