use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::{Epoch, Incarnation};
use crate::regime::{Durability, MemberState, Target, Transition};

const ALL: [RegionId; 3] = [RegionId(1), RegionId(2), RegionId(3)];

fn regime(mode: Mode, durability: Durability) -> Regime {
    Regime::genesis(ALL, mode, Some(RegionId(1)), durability)
}

fn at_stage(mut regime: Regime, stage: Stage, mode: Mode, primary: Option<u16>) -> Regime {
    regime.transition = Some(Transition {
        id: Uuid::nil(),
        coordinator: RegionId(1),
        target: Target { mode, primary: primary.map(RegionId), durability: Durability::Local },
        stage,
        deadline_ms: 1000,
    });
    regime
}

fn write(regime: &Regime, me: u16, home: u16) -> Result<(), GateRefusal> {
    write_gate(regime, RegionId(me), RegionId(home), true, true)
}

#[test]
fn active_passive_writes_at_the_primary_with_a_lease_only() {
    let regime = regime(Mode::ActivePassive, Durability::Local);
    assert_eq!(write(&regime, 1, 3), Ok(()));
    let refused = write(&regime, 2, 2).unwrap_err();
    assert_eq!((refused.code(), refused.hint()), (ErrorCode::NotPrimary, Some(RegionId(1))));
    assert_eq!(write_gate(&regime, RegionId(1), RegionId(1), false, true), Err(GateRefusal::NoLease));
    assert_eq!(write_gate(&regime, RegionId(1), RegionId(1), true, false), Err(GateRefusal::NotReady));
    assert_eq!(write(&regime, 1, 9).unwrap_err().code(), ErrorCode::UnknownHome);
}

#[test]
fn a_drain_holds_the_primary_and_names_the_next_one() {
    let draining =
        at_stage(regime(Mode::ActivePassive, Durability::Local), Stage::Draining, Mode::ActivePassive, Some(2));
    let refused = write(&draining, 1, 1).unwrap_err();
    assert_eq!((refused.code(), refused.hint()), (ErrorCode::Switching, Some(RegionId(2))));
    let announced =
        at_stage(regime(Mode::ActivePassive, Durability::Local), Stage::Announced, Mode::ActivePassive, Some(2));
    assert_eq!(write(&announced, 1, 1), Ok(()));
}

#[test]
fn on_the_way_to_isolation_only_the_home_writes() {
    let both = at_stage(regime(Mode::ActiveActive, Durability::Local), Stage::HomeOnly, Mode::RegionalIsolation, None);
    assert_eq!(write(&both, 2, 2), Ok(()));
    assert_eq!(write(&both, 2, 3), Err(GateRefusal::WrongHome { home: RegionId(3) }));
    let one = at_stage(regime(Mode::ActivePassive, Durability::Local), Stage::HomeOnly, Mode::RegionalIsolation, None);
    assert_eq!(write(&one, 1, 1), Ok(()));
    assert_eq!(write(&one, 1, 2).unwrap_err().code(), ErrorCode::Switching);
    let given_back = write_gate(&one, RegionId(1), RegionId(1), false, true).unwrap_err();
    assert_eq!(
        (given_back.code(), given_back.hint()),
        (ErrorCode::Switching, Some(RegionId(1))),
        "held until the flip"
    );
    assert_eq!(write(&one, 2, 2).unwrap_err().code(), ErrorCode::NotPrimary);
}

#[test]
fn on_the_way_to_isolation_a_region_reads_its_own_records_only() {
    for mode in [Mode::ActiveActive, Mode::ActivePassive] {
        let leaving = at_stage(regime(mode, Durability::Local), Stage::HomeOnly, Mode::RegionalIsolation, None);
        for consistency in [Consistency::Eventual, Consistency::Session] {
            assert_eq!(read_gate(&leaving, RegionId(2), RegionId(2), consistency), Ok(()));
            let wrong = Err(GateRefusal::WrongHome { home: RegionId(3) });
            assert_eq!(read_gate(&leaving, RegionId(2), RegionId(3), consistency), wrong);
        }
    }
    let leaving =
        at_stage(regime(Mode::ActivePassive, Durability::Local), Stage::HomeOnly, Mode::RegionalIsolation, None);
    assert_eq!(read_gate(&leaving, RegionId(1), RegionId(3), Consistency::Primary), Ok(()), "under its lease");
}

#[test]
fn on_the_way_to_one_primary_the_others_send_writers_to_it() {
    let draining =
        at_stage(regime(Mode::ActiveActive, Durability::Local), Stage::Draining, Mode::ActivePassive, Some(2));
    assert_eq!(write(&draining, 2, 1), Ok(()));
    assert_eq!(write(&draining, 3, 3), Err(GateRefusal::NotPrimary { primary: RegionId(2) }));
    let homes =
        at_stage(regime(Mode::RegionalIsolation, Durability::Local), Stage::Draining, Mode::ActivePassive, Some(2));
    assert_eq!(write(&homes, 2, 2), Ok(()));
    assert_eq!(write(&homes, 3, 3).unwrap_err().code(), ErrorCode::Switching);
    assert_eq!(write(&homes, 2, 3).unwrap_err().code(), ErrorCode::WrongHome);
}

#[test]
fn isolation_serves_reads_and_writes_at_home_only_and_a_frozen_home_stays_so() {
    let isolated = regime(Mode::RegionalIsolation, Durability::Local);
    for consistency in [Consistency::Eventual, Consistency::Session, Consistency::Primary] {
        assert_eq!(read_gate(&isolated, RegionId(2), RegionId(2), consistency), Ok(()));
        let wrong = Err(GateRefusal::WrongHome { home: RegionId(3) });
        assert_eq!(read_gate(&isolated, RegionId(2), RegionId(3), consistency), wrong);
    }
    let mut frozen = regime(Mode::ActiveActive, Durability::Local);
    frozen.frozen_homes.insert(RegionId(3));
    assert_eq!(write(&frozen, 2, 3).unwrap_err().code(), ErrorCode::WrongHome);
    assert!(read_gate(&frozen, RegionId(2), RegionId(3), Consistency::Eventual).is_err());
}

#[test]
fn a_primary_read_is_for_the_primary_and_other_reads_for_every_full_member() {
    let mut regime = regime(Mode::ActivePassive, Durability::Local);
    let refused = Err(GateRefusal::NotPrimary { primary: RegionId(1) });
    assert_eq!(read_gate(&regime, RegionId(2), RegionId(2), Consistency::Primary), refused);
    assert_eq!(read_gate(&regime, RegionId(1), RegionId(2), Consistency::Primary), Ok(()));
    assert_eq!(read_gate(&regime, RegionId(2), RegionId(2), Consistency::Session), Ok(()));
    regime.members.get_mut(&RegionId(2)).unwrap().state = MemberState::Joining;
    assert_eq!(read_gate(&regime, RegionId(2), RegionId(2), Consistency::Eventual), Err(GateRefusal::NotReady));
}

#[test]
fn an_acknowledgement_needs_the_lease_the_role_and_the_same_timeline_now() {
    let accepted = regime(Mode::ActivePassive, Durability::Local);
    let me = RegionId(1);
    let mut later = accepted.clone();
    later.epoch = Epoch(2);
    assert!(still_acknowledges(&accepted, &later, me, true));
    assert!(!still_acknowledges(&accepted, &later, me, false));
    assert!(!still_acknowledges(&later, &accepted, me, true), "epochs only grow");
    let mut again = later.clone();
    again.members.get_mut(&me).unwrap().incarnation = Incarnation(2);
    assert!(!still_acknowledges(&accepted, &again, me, true), "the old timeline is sealed");
    later.primary = Some(RegionId(2));
    assert!(!still_acknowledges(&accepted, &later, me, true));
}

proptest! {
    /// In every mode and stage: at most one region takes a given record's write in active-passive and in isolation, and
    /// somebody who refuses names a region or says to wait.
    #[test]
    fn at_most_one_region_takes_a_write_unless_the_mode_is_active_active(
        mode in 0..3_u8, stage in proptest::option::of(0..4_u8), target in 0..3_u8, primary in 1..=3_u16, home in 1..=3_u16,
    ) {
        let modes = [Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation];
        let stages = [Stage::Announced, Stage::HomeOnly, Stage::Draining, Stage::Merging];
        let mode = modes[usize::from(mode)];
        let mut regime = regime(mode, Durability::Local);
        if let Some(stage) = stage {
            let target = modes[usize::from(target)];
            let primary = (target == Mode::ActivePassive).then_some(primary);
            regime = at_stage(regime, stages[usize::from(stage)], target, primary);
        }
        let results: Vec<_> = (1..=3).map(|me| write(&regime, me, home)).collect();
        let takers = results.iter().filter(|result| result.is_ok()).count();
        if mode != Mode::ActiveActive {
            prop_assert!(takers <= 1);
        }
        for refusal in results.into_iter().filter_map(Result::err) {
            let waits = refusal.code() == ErrorCode::Switching;
            prop_assert!(refusal.hint().is_some() || waits, "{} names nobody", refusal);
        }
        if mode == Mode::RegionalIsolation {
            let readers = ALL.iter().filter(|me| read_gate(&regime, **me, RegionId(home), Consistency::Eventual).is_ok());
            prop_assert_eq!(readers.count(), 1);
        }
    }
}
