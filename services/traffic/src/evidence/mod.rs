//! The evidence: what the regions hold once traffic has ended, read directly and out of band.
//!
//! The ledger says what was promised; the evidence says what is left. Neither uses what a server says about how well
//! it did.

mod convergence;
mod gather;
mod pages;
mod watch;

use std::collections::BTreeMap;

use longhaul_core::ids::Dot;
use longhaul_core::version::Version;
use uuid::Uuid;

pub use convergence::{Snapshots, is_converged};
pub use gather::{Subject, gather};
pub use watch::VisibilityWatch;

use crate::value::Observed;

/// An operation that a region remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The client's id.
    pub op_id: Uuid,
    /// Its place.
    pub dot: Dot,
    /// Its version.
    pub version: Option<Version>,
}

/// A write that a region knows to have lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The operation that lost.
    pub loser: Uuid,
    /// The operation that won.
    pub winner: Option<Uuid>,
    /// Whether the two were concurrent (otherwise a stale retry).
    pub concurrent: bool,
}

/// An operation that a region put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAside {
    /// The operation.
    pub op_id: Uuid,
    /// Its place, beyond a cut.
    pub dot: Dot,
    /// Whether a person had it written again.
    pub merged: bool,
}

/// A record as a region shows it at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Final {
    /// There is none.
    Absent,
    /// There is one.
    Present {
        /// Its version.
        version: Version,
        /// Whose value it is.
        observed: Observed,
        /// Of a list: the numbers in it.
        list: Option<Vec<u32>>,
    },
    /// The region may not show it (foreign, in isolation).
    Refused,
}

/// A place where a foreign record was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The record, an index into the ledger's keys.
    pub key: u32,
    /// Where: the region and what in it.
    pub place: String,
}

/// What one region holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionEvidence {
    /// The operations of this run that it remembers.
    pub operations: Vec<Remembered>,
    /// The conflicts that it knows among operations of this run.
    pub conflicts: Vec<Conflict>,
    /// Operations of this run that it put aside.
    pub quarantine: Vec<PutAside>,
    /// When sampled operations became visible there, nanoseconds since boot.
    pub visible: Vec<(Uuid, u64)>,
    /// Records of the run, by the ledger's index.
    pub records: BTreeMap<u32, Final>,
    /// Foreign records found by sweeping what it keeps (in isolation).
    pub swept: Vec<Foreign>,
}

/// What all regions hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// By region; only those that gave all of their evidence.
    pub regions: BTreeMap<String, RegionEvidence>,
    /// Regions from which evidence was expected and did not come (all of it), with the reason.
    pub missing: BTreeMap<String, String>,
    /// Whether the regions held the same within the time to settle.
    pub converged: bool,
    /// How long that took after the end of the traffic, seconds.
    pub convergence_s: f64,
}
