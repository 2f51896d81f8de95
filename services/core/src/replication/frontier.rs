//! What may be forgotten: tombstones by the stability frontier, log entries once every member has them.
//!
//! Why a frontier: versions strictly rise along a timeline and operations arrive densely, so once every member has
//! applied everything at or below `S` of every timeline, no operation at or below `S` can ever be applied anywhere
//! again, and nothing can bring back what a tombstone at or below `S` deleted. Age is no substitute (a region that was
//! away longer brings the record back), nor is "everybody has this tombstone" (an *older* concurrent write may still
//! be on its way), nor a frontier per region (operations of a former incarnation come late, with smaller versions).

use std::collections::{BTreeMap, BTreeSet};

use super::MemberReport;
use super::apply::may_write;
use crate::ids::{RegionId, Timeline};
use crate::regime::{MemberState, Mode, Regime};
use crate::vector::VersionVector;
use crate::version::Version;

/// The stability frontier `S`: a tombstone with a version at or below it may be deleted.
///
/// The minimum, over every member that is not evicted, of the versions that it durably has of every timeline that
/// takes writes, of every sealed one that it has not covered to its cut, and of every former one that nobody sealed.
/// `None` while a member has not reported in its present life, while a timeline that takes writes has shown nothing
/// yet (its first no-op comes within `NOOP_INTERVAL`), and in regional isolation.
pub fn frontier(regime: &Regime, reports: &BTreeMap<RegionId, MemberReport>) -> Option<Version> {
    let members = reports_of_members(regime, reports)?;
    let live: BTreeSet<Timeline> =
        regime.members.keys().filter(|region| may_write(regime, **region)).filter_map(|r| regime.timeline_of(*r)).collect();
    let unsealed: BTreeSet<Timeline> = members
        .iter()
        .flat_map(|report| report.vector.0.keys())
        .copied()
        .filter(|timeline| !live.contains(timeline) && !regime.cuts.0.contains_key(timeline))
        .collect();
    let mut lowest: Option<Version> = None;
    for report in members {
        let open = regime.cuts.iter().filter(|(tl, cut)| !live.contains(tl) && report.vector.get(*tl) < *cut);
        for timeline in live.iter().chain(&unsealed).copied().chain(open.map(|(timeline, _)| timeline)) {
            let head = *report.heads.get(&timeline)?;
            lowest = Some(lowest.map_or(head, |lowest| lowest.min(head)));
        }
    }
    lowest
}

/// Up to where each timeline's log may be forgotten: every member durably has it. Empty while a member has not
/// reported in its present life, and in regional isolation. A log kept for longer costs disk, not correctness; a log
/// forgotten earlier costs a member that is behind a snapshot.
pub fn collectable_log(regime: &Regime, reports: &BTreeMap<RegionId, MemberReport>) -> VersionVector {
    let Some(members) = reports_of_members(regime, reports) else { return VersionVector::default() };
    let Some((first, rest)) = members.split_first() else { return VersionVector::default() };
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
