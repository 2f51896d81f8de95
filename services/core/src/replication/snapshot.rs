//! Snapshots: how a region catches up where the log no longer reaches back. A snapshot is **merged**, never swapped
//! in: the receiver may hold writes that the source has not seen.
//!
//! Two rules keep it inside history. Positions are taken **after** every row is merged, and only if the regime and the
//! promise are still those of the header. And while a region holds rows that no vector of its covers, it **remembers so
//! durably**: if the row's region is lost at that moment, its timeline is sealed below the row, and the row has to go
//! with everything else beyond the cut. Otherwise one region keeps a write that never happened for the others. The
//! random histories found this.

use serde::{Deserialize, Serialize};

use super::apply::{ApplyView, Refusal, check_epoch, check_open};
use super::{Position, Positions};
use crate::ids::{Dot, Epoch, RegionId, Timeline};
use crate::mutants::{Rule, is_broken};
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
    /// What it had when it read the rows.
    pub positions: Positions,
    /// Greatest version that the source had drawn or applied by then.
    pub hlc: Version,
}

/// Judges a snapshot by its header, in the transaction that merges it: since it set out, the regime may have sealed a
/// timeline, and rows of its region may lie beyond the cut.
pub fn admit_header(view: &ApplyView<'_>, header: &SnapshotHeader, wall_ns: u64) -> Result<(), Refusal> {
    check_epoch(view, header.epoch)?;
    let generation = view.regime.dataset_generation;
    if header.dataset_generation != generation {
        return Err(Refusal::Generation { theirs: header.dataset_generation, ours: generation });
    }
    for (timeline, cut) in view.regime.cuts.iter() {
        let last = header.positions.get(&timeline).map_or(0, |position| position.seq);
        if last > cut {
            return Err(Refusal::BeyondCut { timeline, cut, last });
        }
    }
    for (timeline, position) in &header.positions {
        let dot = Some(Dot { timeline: *timeline, seq: position.seq });
        view.clock.check(&position.version, wall_ns).map_err(|error| Refusal::Clock { dot, error })?;
    }
    view.clock.check(&header.hlc, wall_ns).map_err(|error| Refusal::Clock { dot: None, error })?;
    // Last, so that a caller that lets one home pass in isolation knows that everything else holds.
    check_open(view.regime)
}

/// Judges the rows of an admitted snapshot before any of them is merged: none lies beyond a cut, and every version is in
/// the clock's bounds. Afterwards the greatest of them, and `header.hlc`, are admitted into the clock.
///
/// A row may be of a later moment than the header, because the source reads page after page while it goes on. Refusing it
/// would lose what it has replaced, which the header counts as held. It is merged, and the log brings its operation
/// again; until then the receiver remembers **durably** that rows of this timeline may lie beyond its position, and
/// removes them if the timeline is sealed below.
pub fn admit_rows(view: &ApplyView<'_>, rows: &[Record], wall_ns: u64) -> Result<(), Refusal> {
    for row in rows {
        let dot = row.dot;
        let cut = view.regime.cuts.0.get(&dot.timeline);
        if let Some(cut) = cut.filter(|cut| dot.seq > **cut) {
            return Err(Refusal::BeyondCut { timeline: dot.timeline, cut: *cut, last: dot.seq });
        }
        view.clock.check(&row.version, wall_ns).map_err(|error| Refusal::Clock { dot: Some(dot), error })?;
    }
    Ok(())
}

/// Whether a snapshot's row becomes the local record. `have` is what this region has applied by now.
///
/// A row that is absent here although its operation was applied here was deleted, and its tombstone collected, after
/// the source read it: it stays away. (The source had applied the tombstone too by then, or it would not have been
/// collected; the row was read before.)
pub fn merge_row(local: Option<&Record>, row: &Record, have: &VersionVector) -> bool {
    match local {
        _ if is_broken(Rule::SnapshotMerge) => true,
        Some(local) => row.version > local.version,
        None => !have.covers(row.dot),
    }
}

/// Whether a local record that the snapshot does not contain is to be removed: the source had applied its operation
/// and no longer has the row, so it was deleted and its tombstone collected there. `header` is
/// [`super::durable_vector`] of the header's positions.
pub fn gone(local: &Record, header: &VersionVector) -> bool {
    header.covers(local.dot) || is_broken(Rule::SnapshotMerge)
}

/// Takes the snapshot's positions, in the transaction that merges its rows. Positions that are ahead here stay. Returns the
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::durable_vector;
    use crate::replication::fixture::{log, position};

    const TIMELINE: Timeline = Timeline::new(1, 1);

    fn rows() -> Vec<Record> {
        log(TIMELINE, 3, 0).iter().filter_map(Record::from_operation).collect()
    }

    fn vector(seq: u64) -> VersionVector {
        VersionVector::from_iter([(TIMELINE, seq)])
    }

    #[test]
    fn the_greater_version_stays_and_a_row_that_was_deleted_here_stays_away() {
        let rows = rows();
        assert!(merge_row(Some(&rows[0]), &rows[1], &vector(0)));
        assert!(!merge_row(Some(&rows[1]), &rows[0], &vector(0)));
        assert!(!merge_row(Some(&rows[1]), &rows[1], &vector(0)));
        assert!(merge_row(None, &rows[1], &vector(1)));
        assert!(!merge_row(None, &rows[1], &vector(2)));
    }

    #[test]
    fn a_local_row_goes_only_if_the_source_had_seen_it() {
        assert!(gone(&rows()[1], &vector(2)));
        assert!(!gone(&rows()[1], &vector(1)));
    }

    #[test]
    fn positions_only_rise_and_name_the_timelines_that_jumped() {
        let (mine, theirs) = (log(Timeline::new(2, 1), 4, 0), log(TIMELINE, 3, 0));
        let mut local = Positions::from([(Timeline::new(2, 1), position(&mine))]);
        let positions = Positions::from([(TIMELINE, position(&theirs)), (Timeline::new(2, 1), position(&mine[..2]))]);
        let hlc = theirs[2].version;
        let header = SnapshotHeader { region: RegionId(1), epoch: Epoch(1), dataset_generation: 1, positions, hlc };
        assert_eq!(merge_positions(&mut local, &header), [TIMELINE]);
        assert_eq!(durable_vector(&local).0.values().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(merge_positions(&mut local, &header), []);
    }
}
