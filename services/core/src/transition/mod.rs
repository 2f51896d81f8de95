//! Planned transitions: what must hold before a switch of mode, primary or durability, as a plan ([`plan`]) and a
//! driver ([`TransitionDriver`]) without I/O.
//!
//! Every transition is a chain of compare-and-set changes of the regime. It announces itself (`transition` is set),
//! works, and flips; or it rolls back. Both ends are new epochs, so late messages of an attempt die. While it is under
//! way the stage in the regime, not a message of the coordinator, closes the gates ([`crate::gate::write_gate`]).

mod certificate;
mod driver;
mod membership;
mod regimes;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Dot, Epoch, RegionId};
use crate::operation::TraceContext;
use crate::regime::{Regime, Stage, Target};
use crate::vector::VersionVector;

pub use certificate::{CertificateError, HomeCopy, certify, purgeable_homes};
pub use driver::TransitionDriver;
pub use membership::{Author, activate_member, bring_home, leave_out, reassert, rejoin_member, set_in_sync};
pub use regimes::rollback;
pub use table::plan;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Where it shall lead.
    pub target: Target,
    /// Go on without regions that cannot be asked; the plan says what that costs.
    pub force: bool,
}

/// The identity of a transition, for the regimes that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The identity.
    pub id: Uuid,
    /// One line for people.
    pub reason: String,
    /// Its trace.
    pub trace: Option<TraceContext>,
    /// The coordinator rolls back after this long, and so does every region by itself, in milliseconds.
    pub deadline_ms: u64,
}

/// Which writes a gate holds off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateScope {
    /// All of them.
    AllWrites,
    /// Those of records whose home is elsewhere.
    NonHomeWrites,
}

/// A region has closed its gate: no write of that scope that it accepted comes after the barrier in its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// The regime that the region had adopted when it closed.
    pub epoch: Epoch,
    /// What it closed for.
    pub scope: GateScope,
    /// The barrier in its timeline.
    pub dot: Dot,
    /// The physical time of the barrier's version, nanoseconds since the Unix epoch.
    pub time_ns: u64,
}

/// What is known of a region that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// What it has applied, durably.
    pub applied: VersionVector,
    /// The physical time of the largest version that it has, nanoseconds since the Unix epoch.
    pub max_time_ns: u64,
    /// How far it lags behind the primary, milliseconds (0 for the primary and outside active-passive).
    pub lag_ms: u64,
    /// How many operations of the primary it lacks.
    pub lag_operations: u64,
    /// Quarantined operations that nobody has decided on.
    pub quarantined: u64,
    /// Those among them on records of other homes, which isolation would erase.
    pub quarantined_for_others: u64,
    /// Its last barrier.
    pub barrier: Option<Barrier>,
    /// It has merged every other home's records for this generation of the data set.
    pub merged_generation: u32,
    /// It has purged every other home's records for this generation of the data set.
    pub purged_generation: u32,
}

/// What the coordinator knows. Regions that cannot be reached are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observations {
    /// The reachable regions, the coordinator among them.
    pub regions: BTreeMap<RegionId, Seen>,
    /// Copies of a home's records: `(home, holder)`.
    pub copies: BTreeMap<(RegionId, RegionId), HomeCopy>,
}

/// Why a transition does not start: which region (if it is one), and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The region that stands in the way.
    pub region: Option<RegionId>,
    /// What is missing, and what to do.
    pub missing: String,
    /// Whether `force` goes on without it.
    pub forceable: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.region {
            Some(region) => write!(f, "region {region}: {}", self.missing),
            None => f.write_str(&self.missing),
        }
    }
}

/// A step of a transition. The next one begins when this one's condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The regime with this stage is chosen.
    Enter(Stage),
    /// These regions have applied every barrier so far; before the first barrier, what the coordinator had applied when
    /// the step began.
    Converge(BTreeSet<RegionId>),
    /// These regions have closed their gates and written a barrier.
    Close(BTreeSet<RegionId>, GateScope),
    /// For each of these homes: it has everything of its records that any of these regions holds.
    Certify(BTreeSet<RegionId>),
    /// Each of these regions has merged the records of every other one.
    Merge(BTreeSet<RegionId>),
    /// The target regime is chosen: the point of no return.
    Flip,
    /// Each of these regions has purged what others' homes own.
    Purge(BTreeSet<RegionId>),
}

/// A transition that may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The epoch from which it was planned; it starts under no other.
    pub epoch: Epoch,
    /// Where it leads.
    pub target: Target,
    /// The region that drives it.
    pub coordinator: RegionId,
    /// The regions that take part.
    pub included: BTreeSet<RegionId>,
    /// Participants that are left behind: they join again afterwards.
    pub excluded: BTreeSet<RegionId>,
    /// The members of the in-sync set afterwards (`sync` only).
    pub in_sync: BTreeSet<RegionId>,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// What it costs, one line each, for people.
    pub costs: Vec<String>,
    /// Whether it goes on at these costs.
    pub forced: bool,
}

/// What the coordinator does next. Commands come again until what they ask for is observed; doing one twice does no
/// harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Propose this regime by compare-and-set on the epoch before it. On `Stale` or an unknown outcome: read, adopt what
    /// is read, and ask the driver again.
    Propose {
        /// The regime.
        regime: Box<Regime>,
        /// The coordinator is the primary and gives back its lease with the proposal: own voter first, durably.
        release: bool,
    },
    /// The region adopts at least this epoch, finishes the writes that it has admitted and appends a barrier.
    CloseGate {
        /// The region.
        region: RegionId,
        /// The epoch that it must have adopted.
        epoch: Epoch,
        /// What is closed.
        scope: GateScope,
    },
    /// Wait until the region has applied this.
    AwaitBarrier {
        /// The region.
        region: RegionId,
        /// What it must have.
        vector: VersionVector,
    },
    /// Get the vector and the digest of the home's records from the home and from the holder, taken now.
    Certify {
        /// The home.
        home: RegionId,
        /// Who holds copies.
        holder: RegionId,
    },
    /// The region merges a snapshot and then the log of each of these homes.
    MergeHomes {
        /// The region.
        region: RegionId,
        /// The homes.
        homes: BTreeSet<RegionId>,
        /// The generation that this is for.
        generation: u32,
    },
    /// The region erases locally (no tombstones) whatever belongs to these homes.
    Purge {
        /// The region.
        region: RegionId,
        /// The homes whose records go.
        homes: BTreeSet<RegionId>,
        /// The generation that this is for.
        generation: u32,
    },
    /// The transition is complete.
    Done,
    /// The transition has ended without its target; why. The regime is stable again.
    Abort(String),
}

#[cfg(test)]
mod tests;
