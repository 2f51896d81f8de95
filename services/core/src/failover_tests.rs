use super::*;
use crate::ids::Incarnation;

const OLD: Timeline = Timeline::new(1, 1);

fn regime(regions: u16, durability: Durability) -> Regime {
    Regime::genesis((1..=regions).map(RegionId), Mode::ActivePassive, Some(RegionId(1)), durability)
}

fn fenced(positions: &[(Timeline, u64)]) -> Fenced {
    let positions = positions.iter().map(|(timeline, seq)| (*timeline, (*seq, Chain([*seq as u8; 16])))).collect();
    let max_version = Version { time_ns: 500, count: 0, region: RegionId(1) };
    Fenced { promised_epoch: Epoch(2), position: Position { positions, max_version } }
}

/// Regions and how much of the old primary's timeline each has.
fn inputs(heard: &[(u16, u64)]) -> Inputs {
    Inputs {
        fenced: heard.iter().map(|(region, seq)| (RegionId(*region), fenced(&[(OLD, *seq)]))).collect(),
        latency_rank: BTreeMap::new(),
        chains: BTreeMap::new(),
        last_head: Some(12),
        old_is_lost: false,
        allow_data_loss: false,
        prefer: None,
        id: Uuid::nil(),
        by: RegionId(2),
        reason: "test".to_owned(),
        trace: None,
    }
}

fn with_chains(mut inputs: Inputs) -> Inputs {
    for (region, fenced) in &inputs.fenced {
        for (timeline, (seq, _)) in &fenced.position.positions {
            for seq in 0..=*seq {
                let dot = Dot { timeline: *timeline, seq };
                inputs.chains.insert((*region, dot), Chain([seq as u8; 16]));
            }
        }
    }
    inputs
}

fn flip(regime: &Regime, inputs: &Inputs) -> Flip {
    match plan(regime, inputs) {
        Ok(Decision::Flip(flip)) => *flip,
        other => panic!("no flip: {other:?}"),
    }
}

#[test]
fn the_longest_log_wins_and_the_old_timeline_is_cut_there() {
    let current = regime(3, Durability::Local);
    let flip = flip(&current, &with_chains(inputs(&[(2, 7), (3, 9)])));
    let next = &flip.regime;
    assert_eq!((next.epoch, next.primary, next.cuts.get(OLD)), (Epoch(2), Some(RegionId(3)), 9));
    assert_eq!(next.members[&RegionId(1)].incarnation, Incarnation(2));
    assert_eq!(next.members[&RegionId(3)].incarnation, Incarnation(2));
    assert_eq!(next.members[&RegionId(2)].incarnation, Incarnation(1));
    assert_eq!((next.hlc_floor_ns, flip.predicted_loss), (501, Some(3)));
    assert_eq!(crate::register::check_successor(&current, next, RegionId(2)), Ok(()));
}

#[test]
fn ties_go_to_the_region_that_is_best_placed_for_users() {
    let mut inputs = inputs(&[(2, 9), (3, 9)]);
    inputs.latency_rank = [(RegionId(2), 1), (RegionId(3), 0)].into();
    assert_eq!(flip(&regime(3, Durability::Local), &inputs).regime.primary, Some(RegionId(3)));
}

#[test]
fn the_epoch_follows_the_highest_promise() {
    let mut inputs = inputs(&[(2, 9), (3, 9)]);
    inputs.fenced.get_mut(&RegionId(3)).unwrap().promised_epoch = Epoch(6);
    assert_eq!(flip(&regime(3, Durability::Local), &inputs).regime.epoch, Epoch(6));
}

#[test]
fn a_region_that_somebody_wants_is_topped_up_first() {
    let mut inputs = with_chains(inputs(&[(2, 7), (3, 9)]));
    inputs.prefer = Some(RegionId(2));
    let fetch = Fetch { from: RegionId(3), timeline: OLD, after: 7, up_to: 9 };
    let decision = Decision::TopUp { candidate: RegionId(2), fetches: vec![fetch] };
    assert_eq!(plan(&regime(3, Durability::Local), &inputs), Ok(decision));
    inputs.fenced.insert(RegionId(2), fenced(&[(OLD, 9)]));
    assert_eq!(flip(&regime(3, Durability::Local), &inputs).regime.primary, Some(RegionId(2)));
}

#[test]
fn an_old_primary_that_was_reached_gives_its_tail_and_nothing_is_lost() {
    let inputs = with_chains(inputs(&[(1, 12), (2, 7)]));
    let fetch = Fetch { from: RegionId(1), timeline: OLD, after: 7, up_to: 12 };
    let decision = Decision::TopUp { candidate: RegionId(2), fetches: vec![fetch] };
    assert_eq!(plan(&regime(3, Durability::Semi(1)), &inputs), Ok(decision));
}

#[test]
fn an_old_primary_whose_disk_was_set_back_does_not_stand_for_what_it_acknowledged() {
    let current = regime(3, Durability::Semi(1));
    let refusal = plan(&current, &with_chains(inputs(&[(1, 5), (2, 7)]))).unwrap_err();
    assert_eq!(refusal, FailoverRefusal::TooFewHeard { heard: 1, needed: 2, missing: [RegionId(3)].into() });
    assert!(plan(&current, &with_chains(inputs(&[(1, 5), (2, 7), (3, 6)]))).is_ok());
}

#[test]
fn without_a_majority_of_voters_nothing_helps() {
    let mut inputs = inputs(&[(2, 9)]);
    inputs.allow_data_loss = true;
    let refusal = plan(&regime(3, Durability::Local), &inputs).unwrap_err();
    let missing = [RegionId(1), RegionId(3)].into();
    assert_eq!(refusal, FailoverRefusal::NoMajority { heard: 1, needed: 2, missing });
    assert!(refusal.to_string().contains("regions 1, 3"));
}

#[test]
fn semi_needs_all_but_k_minus_one_followers() {
    let heard = inputs(&[(2, 9), (3, 9), (4, 9)]);
    let refusal = plan(&regime(5, Durability::Semi(1)), &heard).unwrap_err();
    let missing = [RegionId(5)].into();
    assert_eq!(refusal, FailoverRefusal::TooFewHeard { heard: 3, needed: 4, missing });
    assert!(plan(&regime(5, Durability::Semi(2)), &heard).is_ok());
    let forced = Inputs { allow_data_loss: true, ..heard };
    assert_eq!(flip(&regime(5, Durability::Semi(1)), &forced).gave_up, vec![refusal]);
}

#[test]
fn a_joining_follower_is_neither_candidate_nor_witness() {
    let mut current = regime(3, Durability::Semi(1));
    current.members.get_mut(&RegionId(3)).unwrap().state = MemberState::Joining;
    let refusal = plan(&current, &inputs(&[(2, 9), (3, 9)])).unwrap_err();
    assert_eq!(refusal, FailoverRefusal::TooFewHeard { heard: 1, needed: 2, missing: [RegionId(3)].into() });
    current.durability = Durability::Local;
    let mut current_local = current;
    current_local.members.get_mut(&RegionId(2)).unwrap().state = MemberState::Joining;
    let refusal = plan(&current_local, &inputs(&[(2, 9), (3, 9)])).unwrap_err();
    assert!(matches!(refusal, FailoverRefusal::NoCandidate { .. }));
}

#[test]
fn sync_takes_one_in_sync_member_and_no_other_candidate() {
    let mut current = regime(3, Durability::Sync);
    current.in_sync = [RegionId(2)].into();
    let heard = with_chains(inputs(&[(2, 9), (3, 10)]));
    let fetch = Fetch { from: RegionId(3), timeline: OLD, after: 9, up_to: 10 };
    let decision = Decision::TopUp { candidate: RegionId(2), fetches: vec![fetch] };
    assert_eq!(plan(&current, &heard), Ok(decision));
    let heard = inputs(&[(2, 10), (3, 10)]);
    let next = flip(&current, &heard).regime;
    assert_eq!((next.primary, next.in_sync), (Some(RegionId(2)), [RegionId(3)].into()));
    current.in_sync = [RegionId(4)].into();
    assert!(matches!(plan(&current, &heard), Err(FailoverRefusal::NoInSync { .. })));
}

/// With nobody in the set the primary answers `local`, and what it answered as `sync` before is with somebody.
#[test]
fn a_sync_primary_that_was_alone_and_lost_its_disk_is_replaced_once_everybody_is_heard() {
    let alone_of = |regions| Regime { in_sync: BTreeSet::new(), ..regime(regions, Durability::Sync) };
    let current = alone_of(3);
    let alone = plan(&current, &inputs(&[(2, 7), (3, 6)])).unwrap_err();
    assert_eq!(alone, FailoverRefusal::NoInSync { in_sync: BTreeSet::new() });
    assert!(alone.to_string().contains("start it on its disk, or allow data loss"), "{alone}");
    let lost = |heard: &[(u16, u64)]| Inputs { old_is_lost: true, ..with_chains(inputs(heard)) };
    let too_few = plan(&alone_of(4), &lost(&[(2, 7), (3, 6), (1, 0)]));
    assert!(matches!(too_few, Err(FailoverRefusal::NoInSync { .. })), "region 4 may have more: {too_few:?}");
    let next = flip(&current, &lost(&[(2, 7), (3, 6)]));
    let candidate = Some(RegionId(2));
    assert_eq!((next.regime.primary, next.regime.cuts.get(OLD), next.gave_up), (candidate, 7, Vec::new()));
    let mut shared = current.clone();
    shared.in_sync = [RegionId(3)].into();
    let decision = plan(&shared, &lost(&[(2, 7), (3, 6)]));
    assert!(matches!(decision, Ok(Decision::TopUp { candidate: RegionId(3), .. })), "{decision:?}");
    // One that has everything is worth as much as everybody.
    let decision = plan(&current, &with_chains(inputs(&[(1, 8), (2, 7)])));
    assert!(matches!(decision, Ok(Decision::TopUp { candidate: RegionId(2), .. })), "{decision:?}");
}

#[test]
fn a_hole_in_sealed_history_refuses_and_force_lowers_the_cut() {
    let sealed = Timeline::new(3, 1);
    let mut current = regime(3, Durability::Local);
    current.cuts = [(sealed, 5)].into_iter().collect();
    let mut heard = inputs(&[]);
    heard.fenced = [(RegionId(2), fenced(&[(sealed, 4)])), (RegionId(3), fenced(&[(sealed, 3)]))].into();
    let refusal = FailoverRefusal::PrefixMissing { timeline: sealed, cut: 5, best: 4 };
    assert_eq!(plan(&current, &heard), Err(refusal.clone()));
    heard.allow_data_loss = true;
    let flip = flip(&current, &heard);
    assert_eq!((flip.regime.cuts.get(sealed), flip.gave_up), (4, vec![refusal]));
    // What lies beyond a cut is no history, however much of it somebody has.
    heard.allow_data_loss = false;
    heard.fenced.insert(RegionId(2), fenced(&[(sealed, 50)]));
    assert_eq!(super::tests::flip(&current, &heard).regime.cuts.get(sealed), 5);
}

#[test]
fn histories_are_compared_where_they_meet() {
    let current = regime(3, Durability::Local);
    let mut heard = inputs(&[(2, 7), (3, 9)]);
    let dot = Dot { timeline: OLD, seq: 7 };
    assert_eq!(plan(&current, &heard), Ok(Decision::Verify(vec![ChainQuery { region: RegionId(3), dot }])));
    heard.chains.insert((RegionId(3), dot), Chain([99; 16]));
    let diverged = FailoverRefusal::Diverged { a: RegionId(2), b: RegionId(3), dot };
    assert_eq!(plan(&current, &heard), Err(diverged));
    let mut equal = inputs(&[(2, 9), (3, 9)]);
    equal.fenced.get_mut(&RegionId(3)).unwrap().position.positions.insert(OLD, (9, Chain([1; 16])));
    assert!(matches!(plan(&current, &equal), Err(FailoverRefusal::Diverged { .. })));
}

#[test]
fn only_active_passive_fails_over() {
    let current = Regime::genesis([1, 2, 3].map(RegionId), Mode::ActiveActive, None, Durability::Local);
    assert_eq!(plan(&current, &inputs(&[(2, 9)])), Err(FailoverRefusal::NoPrimary(Mode::ActiveActive)));
}
