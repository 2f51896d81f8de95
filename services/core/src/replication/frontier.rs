//! What may be forgotten: tombstones by the stability frontier, log entries once every member has them.
//!
//! Why a frontier: versions strictly rise along a timeline and operations arrive densely, so once every member has
//! applied everything at or below `S` of every timeline, no operation at or below `S` can ever be applied anywhere
//! again, and nothing can bring back what a tombstone at or below `S` deleted. Age is no substitute (a region that was
//! away longer brings the record back), nor is "everybody has this tombstone" (an *older* concurrent write may still
//! be on its way), nor a frontier per region (operations of a former incarnation come late, with smaller versions).
//!
//! Applied means shown to readers, not merely held: a session that finds nothing where a tombstone was takes nothing
//! away from it that would keep it from reading the deleted value at a member that does not show the delete yet.

use std::collections::{BTreeMap, BTreeSet};

use super::MemberReport;
use super::apply::may_write;
use crate::ids::{RegionId, Timeline};
use crate::mutants::{Rule, is_broken};
use crate::regime::{MemberState, Mode, Regime};
use crate::vector::VersionVector;
use crate::version::Version;

/// The stability frontier `S`: a tombstone with a version at or below it may be deleted.
///
/// The minimum, over every member that is not evicted, of the versions that it shows of every timeline that takes
/// writes, of every sealed one that it does not show to its cut, and of every former one that nobody sealed. Where a
/// member shows less than it has ([`MemberReport::hidden`]), the caller puts the version of the last operation shown into
/// its `heads` first, or takes the timeline out if that is not known.
/// `None` while a member has not reported in its present life, while a timeline that takes writes has shown nothing
/// yet (its first no-op comes within `NOOP_INTERVAL`), and in regional isolation.
pub fn frontier(regime: &Regime, reports: &BTreeMap<RegionId, MemberReport>) -> Option<Version> {
    let members = reports_of_members(regime, reports)?;
    let live: BTreeSet<Timeline> = regime
        .members
        .keys()
        .filter(|region| may_write(regime, **region))
        .filter_map(|r| regime.timeline_of(*r))
        .collect();
    let unsealed: BTreeSet<Timeline> = members
        .iter()
        .flat_map(|report| report.vector.0.keys())
        .copied()
        .filter(|timeline| !live.contains(timeline) && !regime.cuts.0.contains_key(timeline))
        .collect();
    let mut lowest: Option<Version> = None;
    for report in members {
        let open = regime.cuts.iter().filter(|(tl, cut)| !live.contains(tl) && report.visible.get(*tl) < *cut);
        for timeline in live.iter().chain(&unsealed).copied().chain(open.map(|(timeline, _)| timeline)) {
            let head = *report.heads.get(&timeline)?;
            let stricter = if is_broken(Rule::Frontier) { Version::max } else { Version::min };
            lowest = Some(lowest.map_or(head, |lowest| stricter(lowest, head)));
        }
    }
    lowest
}

/// Up to where each timeline's log may be forgotten: every member durably has it. Empty while a member has not
/// reported in its present life, and in regional isolation. A log kept for longer costs disk, not correctness; a log
/// forgotten earlier costs a member that is behind a snapshot.
pub fn collectable_log(regime: &Regime, reports: &BTreeMap<RegionId, MemberReport>) -> VersionVector {
    let Some(members) = reports_of_members(regime, reports) else {
        return VersionVector::default();
    };
    let Some((first, rest)) = members.split_first() else {
        return VersionVector::default();
    };
    first
        .vector
        .iter()
        .map(|(timeline, seq)| (timeline, rest.iter().map(|report| report.vector.get(timeline)).fold(seq, u64::min)))
        .filter(|(_, seq)| *seq > 0)
        .collect()
}

/// The report of every member that is not evicted; `None` unless all are there, of the present life.
fn reports_of_members<'a>(
    regime: &Regime,
    reports: &'a BTreeMap<RegionId, MemberReport>,
) -> Option<Vec<&'a MemberReport>> {
    if regime.mode == Mode::RegionalIsolation {
        return None;
    }
    let in_place = regime.members.iter().filter(|(_, member)| member.state != MemberState::Evicted);
    in_place
        .map(|(region, member)| {
            reports.get(region).filter(|report| {
                report.incarnation == member.incarnation && report.dataset_generation == regime.dataset_generation
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::replication::Positions;
    use crate::replication::fixture::{log, position, regime};

    /// Reports of three members; each has of timelines 1.1, 2.1, 3.1 as many operations as given (1000 ns apart).
    fn reports(held: [[u64; 3]; 3]) -> BTreeMap<RegionId, MemberReport> {
        let report = |held: [u64; 3]| {
            let timelines = (1..=3).map(|region| Timeline::new(region, 1));
            let positions: Positions =
                timelines.zip(held).filter(|(_, held)| *held > 0).map(|(t, n)| (t, position(&log(t, n, 0)))).collect();
            MemberReport::new(Incarnation(1), 1, &positions)
        };
        (1..=3).map(RegionId).zip(held.map(report)).collect()
    }

    #[test]
    fn the_frontier_is_the_slowest_member_on_the_slowest_timeline() {
        let regime = regime(Mode::ActiveActive);
        let version = frontier(&regime, &reports([[9, 8, 7], [9, 8, 3], [5, 8, 7]])).unwrap();
        assert_eq!((version.time_ns, version.region), (3, RegionId(3)));
    }

    #[test]
    fn nothing_is_stable_before_everybody_has_reported_in_its_present_life() {
        let mut regime = regime(Mode::ActiveActive);
        let mut all = reports([[9; 3]; 3]);
        assert!(frontier(&regime, &all).is_some());
        assert_eq!(frontier(&regime, &reports([[9; 3], [9; 3], [9, 0, 9]])), None);
        regime.members.entry(RegionId(2)).and_modify(|member| member.incarnation = Incarnation(2));
        assert_eq!(frontier(&regime, &all), None);
        assert_eq!(collectable_log(&regime, &all), VersionVector::default());
        all.remove(&RegionId(2));
        assert_eq!(frontier(&regime, &all), None);
    }

    #[test]
    fn an_evicted_members_timeline_holds_the_frontier_back_until_it_is_sealed() {
        let mut regime = regime(Mode::ActiveActive);
        let all = reports([[9, 4, 9]; 3]);
        regime.members.entry(RegionId(2)).and_modify(|member| member.state = MemberState::Evicted);
        assert_eq!(frontier(&regime, &all).unwrap().time_ns, 4, "it may still be completed");
        regime.cuts.set(Timeline::new(2, 1), 4);
        assert_eq!(frontier(&regime, &all).unwrap().time_ns, 9);
    }

    #[test]
    fn a_sealed_timeline_counts_until_it_is_covered() {
        let mut regime = regime(Mode::ActivePassive);
        regime.cuts.set(Timeline::new(2, 1), 6);
        regime.cuts.set(Timeline::new(3, 1), 1);
        let stuck = reports([[9, 6, 1], [9, 6, 1], [9, 4, 1]]);
        assert_eq!(frontier(&regime, &stuck).unwrap().time_ns, 4);
        let covered = reports([[9, 6, 1], [9, 6, 1], [9, 6, 1]]);
        assert_eq!(frontier(&regime, &covered).unwrap().time_ns, 9);
    }

    #[test]
    fn the_log_goes_as_far_as_everybody_has_it_and_isolation_forgets_nothing() {
        let all = reports([[9, 8, 7], [9, 8, 3], [5, 8, 7]]);
        let active = collectable_log(&regime(Mode::ActiveActive), &all);
        assert_eq!(active.0.values().copied().collect::<Vec<_>>(), [5, 8, 3]);
        let isolated = regime(Mode::RegionalIsolation);
        assert_eq!((frontier(&isolated, &all), collectable_log(&isolated, &all)), (None, VersionVector::default()));
    }

    #[test]
    fn what_a_member_has_but_does_not_show_is_not_stable() {
        let mut regime = regime(Mode::ActivePassive);
        let late = Timeline::new(2, 1);
        regime.cuts.set(late, 6);
        let mut all = reports([[9, 6, 1]; 3]);
        assert_eq!(all[&RegionId(3)].hidden().count(), 0);
        let before = frontier(&regime, &all);
        all.entry(RegionId(3)).and_modify(|report| report.visible.set(late, 4));
        assert_eq!(all[&RegionId(3)].hidden().collect::<Vec<_>>(), [(late, 4)]);
        // Sealed, and complete everywhere: it holds the frontier back until everybody shows it to its cut.
        all.entry(RegionId(3)).and_modify(|report| {
            report.heads.remove(&late);
        });
        assert_eq!(frontier(&regime, &all), None, "how far it shows the timeline is not known");
        all.entry(RegionId(3)).and_modify(|report| report.visible.set(late, 6));
        assert_eq!(frontier(&regime, &all), before);
    }
}
