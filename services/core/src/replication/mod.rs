//! Replication as pure rules: every region pulls each peer's own timelines over a long-lived stream of [`frame`]s,
//! judges each batch before it stores anything ([`apply`]), takes the detour through a third region where the direct
//! link is cut ([`relay`]), starts from a [`snapshot`] where the log no longer reaches back, and forgets deletes and
//! log entries only behind the stability [`frontier`].
//!
//! Everything is arithmetic on two facts: sequence numbers are dense along a timeline, and versions strictly rise
//! along it. Both are given by one writer, in the transaction that makes the operation durable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, Timeline};
use crate::operation::Chain;
use crate::regime::Regime;
use crate::vector::VersionVector;
use crate::version::Version;

pub mod apply;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod frontier;
pub mod relay;
pub mod snapshot;

/// How far a timeline is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Everything up to here is durable.
    pub seq: u64,
    /// Everything up to here is applied to the records and visible to readers; `visible <= seq`.
    pub visible: u64,
    /// Version of the operation at `seq`.
    pub version: Version,
    /// Rolling hash at `seq`.
    pub chain: Chain,
}

impl Position {
    /// Before the first operation.
    pub const START: Self = Self { seq: 0, visible: 0, version: Version::ZERO, chain: crate::chain::START };
}

/// Positions by timeline; a timeline that is absent is at [`Position::START`].
pub type Positions = BTreeMap<Timeline, Position>;

/// What is durably held, as a vector.
pub fn durable_vector(positions: &Positions) -> VersionVector {
    positions.iter().map(|(timeline, position)| (*timeline, position.seq)).collect()
}

/// What is visible to readers, as a vector: what session tokens are compared with.
pub fn visible_vector(positions: &Positions) -> VersionVector {
    positions.iter().map(|(timeline, position)| (*timeline, position.visible)).collect()
}

/// The last operation of `timeline`, held up to `head`, that may be shipped: never beyond its cut.
pub fn shippable(regime: &Regime, timeline: Timeline, head: u64) -> u64 {
    regime.cuts.0.get(&timeline).map_or(head, |cut| head.min(*cut))
}

/// What a member says that it durably has, in one life of it and of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The life of the member.
    pub incarnation: Incarnation,
    /// The life of the data set: what a purged replica had means nothing.
    pub dataset_generation: u32,
    /// What it durably has.
    pub vector: VersionVector,
    /// What it shows to readers: never beyond what it has.
    pub visible: VersionVector,
    /// Version of the last operation that it durably has, per **timeline**. Per region would be wrong: operations of a
    /// former incarnation that come late through a third region have smaller versions than the present one's.
    pub heads: BTreeMap<Timeline, Version>,
}

impl MemberReport {
    /// The report of a member with these positions.
    pub fn new(incarnation: Incarnation, dataset_generation: u32, positions: &Positions) -> Self {
        Self {
            incarnation,
            dataset_generation,
            vector: durable_vector(positions),
            visible: visible_vector(positions),
            heads: positions.iter().map(|(timeline, position)| (*timeline, position.version)).collect(),
        }
    }

    /// Timelines of which the member has more than it shows, each with the last operation that it shows.
    pub fn hidden(&self) -> impl Iterator<Item = (Timeline, u64)> + '_ {
        self.vector
            .iter()
            .map(|(timeline, seq)| (timeline, seq, self.visible.get(timeline)))
            .filter_map(|(timeline, seq, shown)| (shown < seq).then_some((timeline, shown)))
    }

    /// Takes a report of the same member that came another way (reports travel through third regions). A later life
    /// replaces an earlier one; within a life everything only grows, so the maximum of both is true.
    pub fn merge(&mut self, other: &Self) {
        let life = |report: &Self| (report.dataset_generation, report.incarnation);
        match life(other).cmp(&life(self)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => self.clone_from(other),
            std::cmp::Ordering::Equal => {
                self.vector.merge(&other.vector);
                self.visible.merge(&other.visible);
                for (timeline, version) in &other.heads {
                    let mine = self.heads.entry(*timeline).or_insert(Version::ZERO);
                    *mine = (*mine).max(*version);
                }
            }
        }
    }
}
