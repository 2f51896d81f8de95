//! What the apply rule admits, what it refuses, and what is to be done about it.

use super::*;
use crate::replication::fixture::{log, position, regime};

const TIMELINE: Timeline = Timeline::new(1, 1);
const WALL: u64 = 1_800_000_000_000_000_000;

/// The verdict on `operations` at a replica that holds `held`, under a regime and promise.
fn judge(regime: &Regime, promised: u64, held: &[Operation], batch: &Batch) -> Result<Admitted, Refusal> {
    let positions = Positions::from([(TIMELINE, position(held))]);
    let clock = RegionClock::new(RegionId(2), 0, u64::MAX);
    let view = ApplyView { regime, promised: Epoch(promised), positions: &positions, clock: &clock, top_up: None };
    admit_batch(&view, batch, WALL)
}

fn batch(operations: &[Operation]) -> Batch {
    let timeline = operations.first().map_or(TIMELINE, |first| first.dot.timeline);
    Batch { epoch: Epoch(1), timeline, operations: operations.to_vec(), visible: u64::MAX }
}

#[test]
fn what_follows_is_admitted_and_what_is_held_is_skipped() {
    let (log, regime) = (log(TIMELINE, 5, WALL), regime(Mode::ActiveActive));
    for from in 0..=3 {
        let admitted = judge(&regime, 1, &log[..3], &batch(&log[from..])).unwrap();
        assert_eq!(admitted, Admitted { skip: 3 - from, position: position(&log) });
    }
    let old = judge(&regime, 1, &log, &batch(&log[1..3])).unwrap();
    assert_eq!(old, Admitted { skip: 2, position: position(&log) });
}

#[test]
fn followers_show_only_what_the_sender_shows() {
    let (log, regime) = (log(TIMELINE, 5, WALL), regime(Mode::ActivePassive));
    let admitted = judge(&regime, 1, &log[..2], &Batch { visible: 4, ..batch(&log[2..]) }).unwrap();
    assert_eq!((admitted.position.seq, admitted.position.visible), (5, 4));
}

#[test]
fn a_gap_is_asked_for_again() {
    let (log, regime) = (log(TIMELINE, 5, WALL), regime(Mode::ActiveActive));
    let refusal = judge(&regime, 1, &log[..1], &batch(&log[2..])).unwrap_err();
    assert_eq!(refusal, Refusal::Gap { timeline: TIMELINE, have: 1, next: 3 });
    assert_eq!(refusal.remedy(), Remedy::Rewind);
    let hole = [log[0].clone(), log[2].clone()];
    assert!(matches!(judge(&regime, 1, &[], &batch(&hole)), Err(Refusal::Gap { .. })));
}

#[test]
fn the_epoch_fence_comes_before_everything_else() {
    let (log, regime) = (log(TIMELINE, 5, WALL), regime(Mode::ActiveActive));
    let stale = judge(&regime, 2, &log[..1], &batch(&log[3..])).unwrap_err();
    assert_eq!(stale, Refusal::StaleEpoch { epoch: Epoch(1), promised: Epoch(2) });
    assert_eq!(stale.remedy(), Remedy::TeachRegime);
    let unknown = judge(&regime, 1, &[], &Batch { epoch: Epoch(2), ..batch(&log) }).unwrap_err();
    assert_eq!(unknown.remedy(), Remedy::FetchRegime);
}

#[test]
fn a_promised_region_tops_up_the_old_primarys_timeline_and_no_more() {
    let (log, regime) = (log(TIMELINE, 5, WALL), regime(Mode::ActivePassive));
    let (positions, clock) = (Positions::new(), RegionClock::new(RegionId(2), 0, u64::MAX));
    let top_up = Some(TopUp { timeline: TIMELINE, up_to: 4 });
    let view = ApplyView { regime: &regime, promised: Epoch(2), positions: &positions, clock: &clock, top_up };
    let of = |operations| Batch { epoch: Epoch(2), ..batch(operations) };
    assert!(admit_batch(&view, &of(&log[..4]), WALL).is_ok());
    assert!(matches!(admit_batch(&view, &of(&log), WALL), Err(Refusal::UnknownEpoch { .. })));
    assert!(matches!(admit_batch(&view, &batch(&log[..4]), WALL), Err(Refusal::StaleEpoch { .. })));
}

#[test]
fn the_mode_decides_who_may_write() {
    let theirs = log(Timeline::new(3, 1), 1, WALL);
    assert!(judge(&regime(Mode::ActiveActive), 1, &[], &batch(&theirs)).is_ok());
    let passive = judge(&regime(Mode::ActivePassive), 1, &[], &batch(&theirs)).unwrap_err();
    assert!(matches!(passive, Refusal::WrongTimeline { .. }));
    let isolated = judge(&regime(Mode::RegionalIsolation), 1, &[], &batch(&theirs)).unwrap_err();
    assert_eq!((&isolated, isolated.remedy()), (&Refusal::Isolation, Remedy::Stop));
}

#[test]
fn nothing_beyond_a_cut_is_admitted_and_the_prefix_comes_first() {
    let (old, new) = (log(TIMELINE, 5, WALL), log(Timeline::new(2, 2), 1, WALL + 100));
    let mut regime = regime(Mode::ActivePassive);
    regime.primary = Some(RegionId(2));
    regime.members.entry(RegionId(2)).and_modify(|member| member.incarnation = new[0].dot.timeline.incarnation);
    regime.cuts.set(TIMELINE, 4);
    let beyond = judge(&regime, 1, &old[..2], &batch(&old[2..])).unwrap_err();
    assert_eq!(beyond, Refusal::BeyondCut { timeline: TIMELINE, cut: 4, last: 5 });
    let early = judge(&regime, 1, &old[..2], &batch(&new)).unwrap_err();
    assert_eq!(early, Refusal::PrefixMissing { timeline: TIMELINE, have: 2, cut: 4 });
    assert!(judge(&regime, 1, &old[..2], &batch(&old[2..4])).is_ok());
    assert!(judge(&regime, 1, &old[..4], &batch(&new)).is_ok());
}

#[test]
fn another_history_under_the_same_numbers_is_a_divergence() {
    let (ours, theirs) = (log(TIMELINE, 3, WALL), log(TIMELINE, 5, WALL + 7));
    let regime = regime(Mode::ActiveActive);
    for from in 0..=3 {
        let refusal = judge(&regime, 1, &ours, &batch(&theirs[from..])).unwrap_err();
        assert!(matches!(refusal, Refusal::Divergence { .. }), "{refusal}");
        assert_eq!(refusal.remedy(), Remedy::Stop);
    }
}

#[test]
fn one_version_out_of_bounds_refuses_the_whole_batch_until_the_clock_has_caught_up() {
    let regime = regime(Mode::ActiveActive);
    let ahead = log(TIMELINE, 3, WALL + 499_999_998);
    let refusal = judge(&regime, 1, &[], &batch(&ahead)).unwrap_err();
    assert!(matches!(refusal, Refusal::Clock { dot: Some(Dot { seq: 3, .. }), .. }), "{refusal}");
    assert_eq!(refusal.remedy(), Remedy::Wait);
    assert!(judge(&regime, 1, &[], &batch(&ahead[..2])).is_ok());
}

#[test]
fn a_home_that_was_frozen_brings_what_it_wrote_in_isolation_in_that_life_only() {
    let mut regime = regime(Mode::ActivePassive);
    let brought = batch(&log(Timeline::new(3, 1), 2, WALL));
    let refused = |regime: &Regime| matches!(judge(regime, 1, &[], &brought), Err(Refusal::WrongTimeline { .. }));
    assert!(refused(&regime));
    regime.frozen_homes.insert(RegionId(3));
    assert!(refused(&regime), "a full member has brought everything");
    regime.members.entry(RegionId(3)).and_modify(|member| member.state = MemberState::Joining);
    assert!(judge(&regime, 1, &[], &brought).is_ok());
    regime.members.entry(RegionId(3)).and_modify(|member| member.incarnation = member.incarnation.next());
    assert!(refused(&regime));
}
