//! The apply rule: what a replica demands of a batch before it stores any of it. The same in all modes.
//!
//! The checks go from cheap and general to dear and particular, and **all of them come before the first write**: a
//! batch is admitted whole or not at all. Skipping an offending operation is never possible, because the sequence
//! would no longer be dense.

use super::frame::{Batch, Refused, RefusedCode};
use super::{Position, Positions};
use crate::chain;
use crate::clock::{ClockError, RegionClock};
use crate::gate::may_replicate;
use crate::ids::{Dot, Epoch, RegionId, Timeline};
use crate::operation::{Operation, OperationKind};
use crate::regime::{MemberState, Mode, Regime};

/// What a replica knows when a batch arrives.
#[derive(Debug, Clone, Copy)]
pub struct ApplyView<'a> {
    /// The regime that it has adopted.
    pub regime: &'a Regime,
    /// The greatest epoch that it has durably promised.
    pub promised: Epoch,
    /// What it durably has.
    pub positions: &'a Positions,
    /// Its clock.
    pub clock: &'a RegionClock,
    /// While it completes the old primary's timeline in a failover that it has promised.
    pub top_up: Option<TopUp>,
}

/// The one exception to the epoch fence: between the promise and the new regime, the chosen region fetches from other
/// promised followers what they have of the old primary's timeline. They send it under the promised epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopUp {
    /// The old primary's timeline.
    pub timeline: Timeline,
    /// How far: the greatest position that a promised follower reported.
    pub up_to: u64,
}

/// A batch that may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// How many operations at the front are held already.
    pub skip: usize,
    /// The position once the others are stored. Records show operations up to `position.visible` only.
    pub position: Position,
}

/// A batch that may not be stored, as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender's regime is older than this region's, or than what it has promised.
    #[error(
        "the batch is of epoch {epoch}, and epoch {promised} is in force or promised here; the sender must adopt the newer regime"
    )]
    StaleEpoch {
        /// The sender's epoch.
        epoch: Epoch,
        /// The greatest epoch known or promised here.
        promised: Epoch,
    },
    /// The sender's regime is not known here.
    #[error("the batch is of epoch {epoch}, and this region knows epoch {known}; it fetches the regime first")]
    UnknownEpoch {
        /// The sender's epoch.
        epoch: Epoch,
        /// The epoch adopted here.
        known: Epoch,
    },
    /// Another life of the data set: one side has purged its replica, and the vectors do not compare.
    #[error(
        "the snapshot is of data set generation {theirs}, and {ours} is in force; the source must finish its transition first"
    )]
    Generation {
        /// The source's.
        theirs: u32,
        /// The one in force here.
        ours: u32,
    },
    /// Regional isolation.
    #[error("nothing is replicated in regional isolation; leave the mode to replicate again")]
    Isolation,
    /// The timeline has no place in this regime.
    #[error("timeline {timeline} may not write in epoch {epoch}; its region must rejoin under a new incarnation")]
    WrongTimeline {
        /// The timeline.
        timeline: Timeline,
        /// The regime.
        epoch: Epoch,
    },
    /// Operations beyond the sealed end of their timeline.
    #[error(
        "timeline {timeline} ended at {cut}, and the batch goes to {last}; its region must quarantine what lies beyond"
    )]
    BeyondCut {
        /// The timeline.
        timeline: Timeline,
        /// Its last operation that belongs to history.
        cut: u64,
        /// The last operation of the batch.
        last: u64,
    },
    /// Under one primary, history is the sealed timelines up to their cuts and then the primary's.
    #[error("timeline {timeline} is held up to {have} and goes to {cut}; it must be complete before the primary's")]
    PrefixMissing {
        /// The timeline that comes first.
        timeline: Timeline,
        /// What is held of it.
        have: u64,
        /// Where it ends.
        cut: u64,
    },
    /// Operations are missing before the batch, or inside it.
    #[error("timeline {timeline} is held up to {have}, and the batch goes on at {next}; send it from {have}")]
    Gap {
        /// The timeline.
        timeline: Timeline,
        /// What is held of it.
        have: u64,
        /// The first operation that does not follow.
        next: u64,
    },
    /// Two histories under one sequence number.
    #[error(
        "operation {dot} has another history here; one of the regions was restored from a copy: give it a new incarnation"
    )]
    Divergence {
        /// The first operation that shows it.
        dot: Dot,
    },
    /// An operation that no correct region writes.
    #[error("operation {dot} is malformed: {reason}; both regions must run the same version")]
    Malformed {
        /// The operation.
        dot: Dot,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A version is out of bounds.
    #[error("the data was not admitted: {error}")]
    Clock {
        /// The operation; `None` if it was the clock of a snapshot's source.
        dot: Option<Dot>,
        /// Why.
        error: ClockError,
    },
}

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Send the sender this region's regime; it goes on once it has adopted it.
    TeachRegime,
    /// Ask the sender for its regime, adopt it, try again.
    FetchRegime,
    /// Ask again from what is held.
    Rewind,
    /// Try again in a second: other timelines must come first, or the clock must catch up.
    Wait,
    /// Stop the link and raise an alarm: only a person, or a new regime, can help.
    Stop,
}

impl Refusal {
    /// What to do about it.
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::StaleEpoch { .. } => Remedy::TeachRegime,
            Self::UnknownEpoch { .. } => Remedy::FetchRegime,
            Self::Gap { .. } => Remedy::Rewind,
            Self::PrefixMissing { .. } | Self::Generation { .. } => Remedy::Wait,
            Self::Clock { error, .. } if !error.is_hopeless() => Remedy::Wait,
            Self::Clock { .. }
            | Self::Isolation
            | Self::WrongTimeline { .. }
            | Self::BeyondCut { .. }
            | Self::Divergence { .. }
            | Self::Malformed { .. } => Remedy::Stop,
        }
    }

    /// The refusal as told to the sender of `batch`.
    pub fn to_frame(&self, view: &ApplyView<'_>, batch: &Batch) -> Refused {
        let code = match self {
            Self::StaleEpoch { .. } => RefusedCode::StaleEpoch,
            Self::UnknownEpoch { .. } => RefusedCode::UnknownEpoch,
            Self::Generation { .. } => RefusedCode::Generation,
            Self::Isolation => RefusedCode::Isolation,
            Self::WrongTimeline { .. } => RefusedCode::WrongTimeline,
            Self::BeyondCut { .. } => RefusedCode::BeyondCut,
            Self::PrefixMissing { .. } => RefusedCode::PrefixMissing,
            Self::Gap { .. } => RefusedCode::Gap,
            Self::Divergence { .. } => RefusedCode::Divergence,
            Self::Malformed { .. } => RefusedCode::Malformed,
            Self::Clock { .. } => RefusedCode::Clock,
        };
        let have = view.positions.get(&batch.timeline).map_or(0, |position| position.seq);
        Refused {
            code,
            epoch: view.promised.max(view.regime.epoch),
            have: Some((batch.timeline, have)),
            detail: self.to_string(),
        }
    }
}

/// Judges a batch. `wall_ns` is the local wall clock.
///
/// On success the caller stores, in one transaction, `operations[skip..]`, their effect on the records up to
/// `position.visible`, and `position`; then, if anything was new, it admits `position.version` into its clock, and
/// acknowledges.
pub fn admit_batch(view: &ApplyView<'_>, batch: &Batch, wall_ns: u64) -> Result<Admitted, Refusal> {
    let topping_up = is_top_up(view, batch);
    if !topping_up {
        check_epoch(view, batch.epoch)?;
        check_mode(view.regime, batch.timeline)?;
    }
    let held = view.positions.get(&batch.timeline).copied().unwrap_or(Position::START);
    let operations = &batch.operations;
    if let (Some(cut), Some(last)) = (view.regime.cuts.0.get(&batch.timeline), operations.last())
        && last.dot.seq > *cut
    {
        return Err(Refusal::BeyondCut { timeline: batch.timeline, cut: *cut, last: last.dot.seq });
    }
    let skip = operations.iter().take_while(|operation| operation.dot.seq <= held.seq).count();
    if skip < operations.len() && !topping_up {
        check_prefix(view, batch.timeline)?;
    }
    check_dense(batch, held)?;
    check_chain(operations, held)?;
    let fresh = &operations[skip..];
    check_content(fresh, held)?;
    for operation in fresh {
        let clock = |error| Refusal::Clock { dot: Some(operation.dot), error };
        view.clock.check(&operation.version, wall_ns).map_err(clock)?;
    }
    let mut position = held;
    if let Some(last) = fresh.last() {
        position = Position { seq: last.dot.seq, version: last.version, chain: last.chain, ..held };
    }
    position.visible = held.visible.max(batch.visible.min(position.seq));
    Ok(Admitted { skip, position })
}

/// Whether the batch passes the fence as a top-up.
fn is_top_up(view: &ApplyView<'_>, batch: &Batch) -> bool {
    let last = batch.operations.last().map_or(0, |operation| operation.dot.seq);
    view.top_up.is_some_and(|top_up| {
        view.promised > view.regime.epoch
            && batch.epoch == view.promised
            && batch.timeline == top_up.timeline
            && last <= top_up.up_to
    })
}

/// The epoch fence.
pub(super) fn check_epoch(view: &ApplyView<'_>, epoch: Epoch) -> Result<(), Refusal> {
    let promised = view.promised.max(view.regime.epoch);
    if epoch < promised {
        return Err(Refusal::StaleEpoch { epoch, promised });
    }
    if epoch > view.regime.epoch {
        return Err(Refusal::UnknownEpoch { epoch, known: view.regime.epoch });
    }
    Ok(())
}

/// Isolation lets data pass only on the way out of it: while homes exchange their sets again, and while they drain
/// towards one primary, which has to get their barriers.
pub(super) fn check_open(regime: &Regime) -> Result<(), Refusal> {
    if may_replicate(regime) { Ok(()) } else { Err(Refusal::Isolation) }
}

fn check_mode(regime: &Regime, timeline: Timeline) -> Result<(), Refusal> {
    check_open(regime)?;
    if regime.cuts.0.contains_key(&timeline) {
        return Ok(()); // Sealed: the cut decides.
    }
    let member = regime.members.get(&timeline.region);
    // A home that was frozen on the way out of isolation comes back with what it alone has. It writes nothing more there,
    // and nobody else has written for it.
    let comes_home = regime.frozen_homes.contains(&timeline.region)
        && member
            .is_some_and(|member| member.state == MemberState::Joining && member.incarnation == timeline.incarnation);
    if comes_home {
        return Ok(());
    }
    if may_write(regime, timeline.region) {
        // A former incarnation that nobody sealed may still be completed; it holds the frontier back meanwhile.
        let known = member.is_some_and(|member| match regime.mode {
            Mode::ActivePassive => timeline.incarnation == member.incarnation,
            Mode::ActiveActive | Mode::RegionalIsolation => timeline.incarnation <= member.incarnation,
        });
        if known {
            return Ok(());
        }
    }
    Err(Refusal::WrongTimeline { timeline, epoch: regime.epoch })
}

/// Whether a region's present timeline takes operations in this regime (as opposed to being complete, or fenced off).
pub(super) fn may_write(regime: &Regime, region: RegionId) -> bool {
    let in_place = regime.members.get(&region).is_some_and(|member| member.state != MemberState::Evicted);
    match regime.mode {
        Mode::ActivePassive => in_place && regime.primary == Some(region),
        Mode::ActiveActive | Mode::RegionalIsolation => in_place,
    }
}

fn check_prefix(view: &ApplyView<'_>, timeline: Timeline) -> Result<(), Refusal> {
    let regime = view.regime;
    if regime.mode != Mode::ActivePassive || regime.cuts.0.contains_key(&timeline) {
        return Ok(());
    }
    for (timeline, cut) in regime.cuts.iter() {
        let have = view.positions.get(&timeline).map_or(0, |position| position.seq);
        if have < cut {
            return Err(Refusal::PrefixMissing { timeline, have, cut });
        }
    }
    Ok(())
}

fn check_dense(batch: &Batch, held: Position) -> Result<(), Refusal> {
    let Some(first) = batch.operations.first() else {
        return Ok(());
    };
    if first.dot.seq == 0 {
        return Err(Refusal::Malformed { dot: first.dot, reason: "sequence numbers start at 1" });
    }
    let mut expected = first.dot.seq.min(held.seq.saturating_add(1));
    for operation in &batch.operations {
        if operation.dot.timeline != batch.timeline {
            return Err(Refusal::Malformed { dot: operation.dot, reason: "it is of another timeline than its batch" });
        }
        if operation.dot.seq != expected {
            return Err(Refusal::Gap { timeline: batch.timeline, have: held.seq, next: operation.dot.seq });
        }
        expected = expected.saturating_add(1);
    }
    Ok(())
}

/// Every chain must follow from the one before it, and the one at the held position must be the held one. The chain is
/// rolling, so that one comparison speaks for everything before it; a batch wholly behind the held position changes
/// nothing, and what is wrong with it shows when the stream reaches that position.
fn check_chain(operations: &[Operation], held: Position) -> Result<(), Refusal> {
    let mut prev = operations.first().and_then(|first| match first.dot.seq - 1 {
        before if before == held.seq => Some(held.chain),
        0 => Some(chain::START),
        _ => None,
    });
    for operation in operations {
        let follows = prev.is_none_or(|prev| chain::verify(prev, operation));
        if !follows || (operation.dot.seq == held.seq && operation.chain != held.chain) {
            return Err(Refusal::Divergence { dot: operation.dot });
        }
        prev = Some(operation.chain);
    }
    Ok(())
}

fn check_content(fresh: &[Operation], held: Position) -> Result<(), Refusal> {
    let mut last = held.version;
    for operation in fresh {
        let malformed = |reason| Err(Refusal::Malformed { dot: operation.dot, reason });
        if operation.version.region != operation.dot.timeline.region {
            return malformed("its version names another region than its timeline");
        }
        if operation.version <= last {
            return malformed("versions must strictly rise along a timeline");
        }
        if operation.kind.writes() != operation.id.is_some() {
            return malformed("writes name a record and markers do not");
        }
        // A merge may bring back a delete.
        let value_fits = match operation.kind {
            OperationKind::Put => operation.value.is_some(),
            OperationKind::Merge => true,
            OperationKind::Delete | OperationKind::Noop | OperationKind::Barrier => operation.value.is_none(),
        };
        if !value_fits {
            return malformed("a put has a value, deletes and markers have none");
        }
        last = operation.version;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
