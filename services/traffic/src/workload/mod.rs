//! What users do and when: a pure function of workload, edges and seed.
//!
//! Open loop: every operation has an intended start that does not depend on how long earlier ones took. Equal seeds,
//! workloads and edges give equal operations, whatever the mode and whatever happens.

mod bounds;
mod keys;
mod schedule;
mod shape;

pub use bounds::{WorkloadError, check};
pub use schedule::{EdgeStream, Population};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Reads a register.
    Read,
    /// Overwrites a register.
    Put,
    /// Deletes a register.
    Delete,
    /// Appends to a list by read-modify-write.
    Append,
    /// Creates a record that is never touched again.
    Insert,
}

impl Kind {
    /// Whether it changes a record.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// Which of a home's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Slot {
    /// The n-th register: read, overwritten, deleted.
    Register(u32),
    /// The n-th list in its g-th generation: appended to.
    List(u32, u32),
    /// The record created by operation n.
    Insert(u32),
}

/// A record of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Key {
    /// The home, as an index into the population's homes.
    pub home: u16,
    /// Which of its records.
    pub slot: Slot,
}

impl Key {
    /// The record id. `tag` keeps the records of runs on one testbed apart; the home in it makes the id itself
    /// something that residency can be checked by; no id is part of another one.
    pub fn record_id(self, tag: &str) -> String {
        let home = self.home;
        match self.slot {
            Slot::Register(n) => format!("{tag}-h{home}-r{n:07}"),
            Slot::List(n, generation) => format!("{tag}-h{home}-l{n:05}.{generation:05}"),
            Slot::Insert(n) => format!("{tag}-h{home}-i{n:010}"),
        }
    }
}

/// An operation as it is intended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedOperation {
    /// Its number, unique in the run over all edges.
    pub n: u32,
    /// The edge, as an index into the run's edges.
    pub edge: u16,
    /// The user's session, as an index into the edge's sessions.
    pub session: u16,
    /// What it does.
    pub kind: Kind,
    /// The record.
    pub key: Key,
    /// Intended start, nanoseconds from the start of the traffic (warm-up included).
    pub at_ns: u64,
}
