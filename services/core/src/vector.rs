//! Version vectors: what a region durably has, per timeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Dot, Timeline};

/// "I durably have everything up to `seq` of each timeline", contiguously. A timeline that is absent counts as 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionVector(pub BTreeMap<Timeline, u64>);

impl VersionVector {
    /// The last sequence number held of `timeline`, 0 if none.
    pub fn get(&self, timeline: Timeline) -> u64 {
        self.0.get(&timeline).copied().unwrap_or(0)
    }

    /// Sets the position of one timeline.
    pub fn set(&mut self, timeline: Timeline, seq: u64) {
        self.0.insert(timeline, seq);
    }

    /// Whether the operation is among those held.
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.timeline) >= dot.seq
    }

    /// Whether everything in `other` is held here too.
    pub fn dominates(&self, other: &Self) -> bool {
        other.0.iter().all(|(timeline, seq)| self.get(*timeline) >= *seq)
    }

    /// Component-wise maximum.
    pub fn merge(&mut self, other: &Self) {
        for (timeline, seq) in &other.0 {
            self.advance(*timeline, *seq);
        }
    }

    /// Raises one timeline to at least `seq`.
    pub fn advance(&mut self, timeline: Timeline, seq: u64) {
        let mine = self.0.entry(timeline).or_insert(0);
        *mine = (*mine).max(seq);
    }

    /// Timelines and positions in order.
    pub fn iter(&self) -> impl Iterator<Item = (Timeline, u64)> + '_ {
        self.0.iter().map(|(timeline, seq)| (*timeline, *seq))
    }
}

impl FromIterator<(Timeline, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Timeline, u64)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}
