//! The regimes that a transition writes: its stages, its flip and its rollback.

use std::collections::BTreeSet;

use super::{Author, Barrier, Observations, Origin, Plan};
use crate::ids::RegionId;
use crate::regime::{ChangeKind, Durability, MemberState, Mode, Regime, Stage, Transition};
use crate::vector::VersionVector;

/// The regime that announces the transition or moves it to another stage.
pub(super) fn staged(current: &Regime, plan: &Plan, origin: &Origin, stage: Stage) -> Regime {
    let mut next = current.clone();
    next.epoch = current.epoch.next();
    next.transition = Some(Transition {
        id: origin.id,
        coordinator: plan.coordinator,
        target: plan.target,
        stage,
        deadline_ms: origin.deadline_ms,
    });
    if stage == Stage::Merging {
        // What regions have applied of each other before they were isolated means nothing any more: it was purged.
        next.dataset_generation += 1;
        next.frozen_homes.extend(plan.excluded.iter().copied());
    }
    next.change = author(plan, origin).change(ChangeKind::TransitionStep);
    next
}

fn author(plan: &Plan, origin: &Origin) -> Author {
    Author { id: origin.id, by: plan.coordinator, reason: origin.reason.clone(), trace: origin.trace }
}

/// The regime at the end. `barriers` are those of the stage in which gates were closed.
pub(super) fn flipped(
    current: &Regime,
    plan: &Plan,
    origin: &Origin,
    barriers: &[Barrier],
    observations: &Observations,
) -> Regime {
    let mut next = current.clone();
    let target = plan.target;
    next.epoch = current.epoch.next();
    next.mode = target.mode;
    next.primary = target.primary;
    next.durability = target.durability;
    next.in_sync = if target.durability == Durability::Sync { plan.in_sync.clone() } else { BTreeSet::new() };
    next.transition = None;
    next.change = author(plan, origin).change(ChangeKind::TransitionDone);

    let writes_on = keeps_timeline(current, plan);
    for barrier in barriers.iter().filter(|barrier| !writes_on.contains(&barrier.dot.timeline.region)) {
        next.cuts.advance(barrier.dot.timeline, barrier.dot.seq);
    }
    for region in renewed(current, plan) {
        if let Some(member) = next.members.get_mut(&region) {
            member.incarnation = member.incarnation.next();
        }
    }
    for region in &plan.excluded {
        exclude(&mut next, current, plan, *region, observations);
    }
    if target.mode == Mode::RegionalIsolation {
        next.dataset_generation += 1;
    }
    let seen = plan.included.iter().filter_map(|region| observations.regions.get(region));
    let newest = seen.map(|seen| seen.max_time_ns).chain(barriers.iter().map(|barrier| barrier.time_ns)).max();
    next.hlc_floor_ns = next.hlc_floor_ns.max(newest.map_or(0, |time| time.saturating_add(1)));
    next
}

/// The regions that write the same timeline before and after, without a seam.
fn keeps_timeline(current: &Regime, plan: &Plan) -> BTreeSet<RegionId> {
    match (current.mode, plan.target.mode) {
        // The primary's timeline is sealed, unless it stays primary.
        (Mode::ActivePassive, Mode::ActivePassive) => {
            current.primary.filter(|primary| plan.target.primary == Some(*primary)).into_iter().collect()
        }
        (Mode::ActivePassive, Mode::ActiveActive) => BTreeSet::new(),
        // All other writers' timelines are sealed.
        (_, Mode::ActivePassive) => plan.target.primary.into_iter().collect(),
        // Every region goes on with records of its own home.
        _ => plan.included.clone(),
    }
}

/// The regions that get a new incarnation: those whose timeline is sealed, and those that begin to write.
fn renewed(current: &Regime, plan: &Plan) -> BTreeSet<RegionId> {
    let keeps = keeps_timeline(current, plan);
    match (current.mode, plan.target.mode) {
        (Mode::ActivePassive, Mode::ActivePassive) => {
            let both = [current.primary, plan.target.primary];
            both.into_iter().flatten().filter(|region| !keeps.contains(region)).collect()
        }
        (Mode::ActivePassive, Mode::RegionalIsolation) => {
            plan.included.iter().copied().filter(|region| current.primary != Some(*region)).collect()
        }
        _ => plan.included.difference(&keeps).copied().collect(),
    }
}

/// What becomes of a region that was left behind.
fn exclude(next: &mut Regime, current: &Regime, plan: &Plan, region: RegionId, observations: &Observations) {
    let Some(timeline) = current.timeline_of(region) else {
        return;
    };
    if current.mode == Mode::ActiveActive {
        // It may have written what nobody here has: its timeline ends where the new authority (or, on the way to
        // isolation, anybody) has it, and the rest will be quarantined when it returns.
        let seen = plan.included.iter().filter(|seen| plan.target.primary.is_none_or(|primary| primary == **seen));
        let applied = seen.filter_map(|seen| observations.regions.get(seen)).map(|seen| seen.applied.get(timeline));
        let cut: VersionVector = [(timeline, applied.max().unwrap_or(0))].into_iter().collect();
        next.cuts.merge(&cut);
    }
    if let Some(member) = next.members.get_mut(&region)
        && member.state != MemberState::Evicted
    {
        if current.mode == Mode::ActiveActive {
            member.incarnation = member.incarnation.next();
        }
        member.state = MemberState::Joining;
    }
    if current.mode == Mode::RegionalIsolation || plan.target.mode == Mode::RegionalIsolation {
        next.frozen_homes.insert(region);
    }
}

/// The regime that gives up the transition under way: the mode, primary and durability from before, under a new epoch.
/// `None` if there is none. The coordinator proposes it on failure; any region does once `deadline_ms` have passed since
/// it adopted the transition's first regime.
pub fn rollback(current: &Regime, by: RegionId, reason: String) -> Option<Regime> {
    let transition = current.transition.as_ref()?;
    let mut next = current.clone();
    next.epoch = current.epoch.next();
    next.transition = None;
    if current.mode == Mode::RegionalIsolation {
        // Regions may have merged what others own: a new generation makes them purge again.
        next.dataset_generation += 1;
        next.frozen_homes.retain(|home| !current.is_active(*home));
    }
    let author = Author { id: transition.id, by, reason, trace: current.change.trace };
    next.change = author.change(ChangeKind::TransitionAborted);
    Some(next)
}
