//! Snapshots: how a region catches up where the log no longer reaches back. A snapshot is **merged**, never swapped
//! in: the receiver may hold writes that the source has not seen.
//!
//! It travels in chunks of rows in key order, each read at a later moment than the header. That is sound because the
//! header's positions are those of *before* the first chunk: what changed meanwhile comes again from the log.

use serde::{Deserialize, Serialize};

use super::{Position, Positions};
use crate::ids::{Epoch, RegionId, Timeline};
use crate::record::Record;
use crate::vector::VersionVector;
use crate::version::Version;

/// What a snapshot stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The source.
    pub region: RegionId,
    /// Its regime.
    pub epoch: Epoch,
    /// The life of its data set.
    pub dataset_generation: u32,
    /// What it had before it read the first row.
    pub positions: Positions,
    /// At least the greatest version among its rows: admitted into the receiver's clock.
    pub hlc: Version,
}

/// Whether a snapshot's row becomes the local record. `have` is what this region had applied when the snapshot began.
///
/// A row that is absent here although its operation was applied here was deleted, and its tombstone collected, after
/// the source read it: it stays away. (The source had applied the tombstone too by then, or it would not have been
/// collected; the row was read before.)
pub fn merge_row(local: Option<&Record>, row: &Record, have: &VersionVector) -> bool {
    match local {
        Some(local) => row.version > local.version,
        None => !have.covers(row.dot),
    }
}

/// Whether a local record that the snapshot does not contain is to be removed: the source had applied its operation
/// and no longer has the row, so it was deleted and its tombstone collected there. `header` is
/// [`super::durable_vector`] of the header's positions.
pub fn gone(local: &Record, header: &VersionVector) -> bool {
    header.covers(local.dot)
}

/// Takes the snapshot's positions once all of its rows are merged. Positions that are ahead here stay. Returns the
/// timelines that jumped: their local log has a hole now and must be dropped (its floor rises to the new position).
pub fn merge_positions(local: &mut Positions, header: &SnapshotHeader) -> Vec<Timeline> {
    let mut jumped = Vec::new();
    for (timeline, theirs) in &header.positions {
        let ours = local.entry(*timeline).or_insert(Position::START);
        if theirs.seq > ours.seq {
            *ours = Position { visible: ours.visible.max(theirs.visible), ..*theirs };
            jumped.push(*timeline);
        } else {
            ours.visible = ours.visible.max(theirs.visible.min(ours.seq));
        }
    }
    jumped
}
