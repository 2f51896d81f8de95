use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::Incarnation;
use crate::regime::{Durability, Member, Target, Transition};

const HOME: RegionId = RegionId(1);

fn regime(mode: Mode, primary: Option<u16>) -> Regime {
    Regime::genesis((1..=3).map(RegionId), mode, primary.map(RegionId), Durability::Local)
}

fn in_stage(mode: Mode, primary: Option<u16>, stage: Stage, target: Mode, next: Option<u16>) -> Regime {
    let transition = Transition {
        id: Uuid::nil(),
        coordinator: RegionId(1),
        target: Target { mode: target, primary: next.map(RegionId), durability: Durability::Local },
        stage,
        deadline_ms: 10_000,
    };
    Regime { transition: Some(transition), ..regime(mode, primary) }
}

/// Latency of regions 1, 2, 3; `None` is unhealthy.
fn reach(latency: [Option<u64>; 3]) -> BTreeMap<RegionId, Reach> {
    (1..=3)
        .zip(latency)
        .map(|(region, ms)| (RegionId(region), Reach { healthy: ms.is_some(), latency_us: ms.unwrap_or(1) * 1000 }))
        .collect()
}

fn ask(regime: &Regime, access: Access, home: u16, latency: [Option<u64>; 3]) -> Result<Vec<u16>, ErrorCode> {
    candidates(regime, HOME, access, RegionId(home), &reach(latency))
        .map(|regions| regions.into_iter().map(|region| region.0).collect())
        .map_err(|refusal| refusal.code)
}

const ALL: [Option<u64>; 3] = [Some(30), Some(10), Some(20)];
const EVENTUAL: Access = Access::Read(Consistency::Eventual);
const SESSION: Access = Access::Read(Consistency::Session);
const PRIMARY: Access = Access::Read(Consistency::Primary);

#[test]
fn active_passive_sends_writes_to_the_primary_and_reads_to_the_nearest() {
    let regime = regime(Mode::ActivePassive, Some(1));
    let without_primary = [None, Some(10), Some(20)];
    let rows = [
        (Access::Write, ALL, Ok(vec![1])),
        (PRIMARY, ALL, Ok(vec![1])),
        (EVENTUAL, ALL, Ok(vec![2, 3, 1])),
        (SESSION, ALL, Ok(vec![2, 1, 3])),
        (SESSION, [Some(1), Some(10), Some(20)], Ok(vec![1, 2, 3])),
        (Access::Write, without_primary, Err(ErrorCode::NoRegion)),
        (PRIMARY, without_primary, Err(ErrorCode::NoRegion)),
        (EVENTUAL, without_primary, Ok(vec![2, 3])),
        (SESSION, without_primary, Ok(vec![2, 3])),
        (EVENTUAL, [None; 3], Err(ErrorCode::NoRegion)),
    ];
    for (access, latency, expected) in rows {
        assert_eq!(ask(&regime, access, 3, latency), expected, "{access:?} {latency:?}");
    }
}

#[test]
fn active_active_sends_everything_to_the_nearest_healthy_region() {
    let regime = regime(Mode::ActiveActive, None);
    for access in [Access::Write, EVENTUAL, SESSION, PRIMARY] {
        assert_eq!(ask(&regime, access, 1, ALL), Ok(vec![2, 3, 1]), "{access:?}");
        assert_eq!(ask(&regime, access, 1, [Some(30), None, Some(20)]), Ok(vec![3, 1]), "{access:?}");
    }
}

#[test]
fn isolation_serves_only_the_edges_own_home() {
    let regime = regime(Mode::RegionalIsolation, None);
    for access in [Access::Write, EVENTUAL, SESSION, PRIMARY] {
        assert_eq!(ask(&regime, access, 1, ALL), Ok(vec![1]), "{access:?}");
        assert_eq!(ask(&regime, access, 1, [None, Some(1), Some(1)]), Err(ErrorCode::HomeUnavailable), "{access:?}");
        let refusal = candidates(&regime, HOME, access, RegionId(2), &reach(ALL)).unwrap_err();
        assert_eq!(refusal, Refusal { code: ErrorCode::WrongHome, region: Some(RegionId(2)) }, "{access:?}");
    }
}

#[test]
fn a_home_that_no_region_has_is_unknown() {
    for mode in [Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation] {
        assert_eq!(ask(&regime(mode, None), EVENTUAL, 9, ALL), Err(ErrorCode::UnknownHome));
    }
}

#[test]
fn a_switchover_keeps_the_old_primary_until_the_flip() {
    let regime = in_stage(Mode::ActivePassive, Some(1), Stage::Draining, Mode::ActivePassive, Some(2));
    assert_eq!(ask(&regime, Access::Write, 3, ALL), Ok(vec![1]));
}

#[test]
fn on_the_way_to_isolation_writes_go_to_the_records_home() {
    let regime = in_stage(Mode::ActiveActive, None, Stage::HomeOnly, Mode::RegionalIsolation, None);
    assert_eq!(ask(&regime, Access::Write, 3, ALL), Ok(vec![3]));
}

#[test]
fn on_the_way_to_isolation_reads_go_to_the_records_home_before_the_mode_changes() {
    for (mode, primary) in [(Mode::ActiveActive, None), (Mode::ActivePassive, Some(1))] {
        let regime = in_stage(mode, primary, Stage::HomeOnly, Mode::RegionalIsolation, None);
        assert_eq!(ask(&regime, EVENTUAL, 3, ALL), Ok(vec![3]));
        assert_eq!(ask(&regime, SESSION, 2, [None, Some(10), None]), Ok(vec![2]));
        assert_eq!(ask(&regime, EVENTUAL, 3, [Some(1), Some(1), None]), Err(ErrorCode::HomeUnavailable));
    }
    // Under its lease the primary answers until it gives the lease up.
    let regime = in_stage(Mode::ActivePassive, Some(1), Stage::HomeOnly, Mode::RegionalIsolation, None);
    assert_eq!(ask(&regime, PRIMARY, 3, ALL), Ok(vec![1]));
}

#[test]
fn the_one_writer_is_the_region_whose_gate_is_open() {
    let regimes = [
        regime(Mode::ActivePassive, Some(2)),
        regime(Mode::RegionalIsolation, None),
        in_stage(Mode::ActiveActive, None, Stage::HomeOnly, Mode::RegionalIsolation, None),
        in_stage(Mode::ActiveActive, None, Stage::Draining, Mode::ActivePassive, Some(3)),
        in_stage(Mode::RegionalIsolation, None, Stage::Merging, Mode::ActiveActive, None),
    ];
    for regime in regimes {
        for home in (1..=3).map(RegionId) {
            let Writer::One(writer) = writer(&regime, home) else { panic!("{regime:?} has one writer per record") };
            for region in (1..=3).map(RegionId) {
                let open = crate::gate::write_gate(&regime, region, home, true, true).is_ok();
                assert_eq!(open, region == writer, "{:?} {home} {region}", regime.mode);
            }
        }
    }
}

#[test]
fn on_the_way_out_of_isolation_the_border_still_holds() {
    let regime = in_stage(Mode::RegionalIsolation, None, Stage::Merging, Mode::ActiveActive, None);
    assert_eq!(ask(&regime, EVENTUAL, 2, ALL), Err(ErrorCode::WrongHome));
}

#[test]
fn on_the_way_to_one_primary_writes_go_to_the_primary_to_be() {
    let announced = in_stage(Mode::ActiveActive, None, Stage::Announced, Mode::ActivePassive, Some(3));
    assert_eq!(ask(&announced, Access::Write, 1, ALL), Ok(vec![2, 3, 1]));
    let draining = in_stage(Mode::ActiveActive, None, Stage::Draining, Mode::ActivePassive, Some(3));
    assert_eq!(ask(&draining, Access::Write, 1, ALL), Ok(vec![3]));
}

fn any_regime() -> impl Strategy<Value = Regime> {
    let mode = prop_oneof![Just(Mode::ActivePassive), Just(Mode::ActiveActive), Just(Mode::RegionalIsolation)];
    let stage = prop_oneof![
        Just(None),
        Just(Some(Stage::Announced)),
        Just(Some(Stage::HomeOnly)),
        Just(Some(Stage::Draining)),
        Just(Some(Stage::Merging))
    ];
    let state = prop_oneof![Just(MemberState::Active), Just(MemberState::Joining), Just(MemberState::Evicted)];
    (mode, 1_u16..=5, 1_u16..=5, stage, prop::collection::vec(state, 5)).prop_map(
        |(mode, primary, next, stage, states)| {
            let mut regime = Regime::genesis((1..=5).map(RegionId), mode, Some(RegionId(primary)), Durability::Local);
            for (member, state) in regime.members.values_mut().zip(states) {
                *member = Member { incarnation: Incarnation(1), state };
            }
            regime.transition = stage.map(|stage| Transition {
                id: Uuid::nil(),
                coordinator: RegionId(1),
                target: Target {
                    mode: Mode::ActivePassive,
                    primary: Some(RegionId(next)),
                    durability: Durability::Local,
                },
                stage,
                deadline_ms: 1,
            });
            regime
        },
    )
}

fn any_access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Write), Just(EVENTUAL), Just(SESSION), Just(PRIMARY)]
}

fn any_reach() -> impl Strategy<Value = BTreeMap<RegionId, Reach>> {
    prop::collection::btree_map(
        (1_u16..=5).prop_map(RegionId),
        (any::<bool>(), 0_u64..300_000).prop_map(|(healthy, latency_us)| Reach { healthy, latency_us }),
        0..=5,
    )
}

proptest! {
    #[test]
    fn a_write_never_goes_to_a_region_that_may_not_accept_it(
        regime in any_regime(), edge in 1_u16..=5, home in 1_u16..=5, regions in any_reach()
    ) {
        if let Ok(order) = candidates(&regime, RegionId(edge), Access::Write, RegionId(home), &regions) {
            match writer(&regime, RegionId(home)) {
                Writer::One(region) => prop_assert_eq!(order, vec![region]),
                Writer::Any => prop_assert_eq!(regime.mode, Mode::ActiveActive),
                Writer::Nobody => prop_assert!(false, "a write was routed although nobody may write"),
            }
        }
        if regime.mode == Mode::ActivePassive && regime.transition.is_none() {
            prop_assert_eq!(writer(&regime, RegionId(home)), Writer::One(regime.primary.unwrap()));
        }
    }

    #[test]
    fn isolation_never_crosses_a_border(
        regime in any_regime(), access in any_access(), edge in 1_u16..=5, home in 1_u16..=5, regions in any_reach()
    ) {
        prop_assume!(regime.mode == Mode::RegionalIsolation);
        match candidates(&regime, RegionId(edge), access, RegionId(home), &regions) {
            Ok(order) => {
                prop_assert_eq!(edge, home);
                prop_assert_eq!(order, vec![RegionId(home)]);
            }
            Err(refusal) => {
                let code = if edge == home { ErrorCode::HomeUnavailable } else { ErrorCode::WrongHome };
                prop_assert_eq!(refusal, Refusal { code, region: Some(RegionId(home)) });
            }
        }
    }

    #[test]
    fn candidates_are_distinct_healthy_active_and_nearest_first(
        regime in any_regime(), access in any_access(), edge in 1_u16..=5, home in 1_u16..=5, regions in any_reach()
    ) {
        let Ok(order) = candidates(&regime, RegionId(edge), access, RegionId(home), &regions) else { return Ok(()) };
        prop_assert!(!order.is_empty());
        for (i, region) in order.iter().enumerate() {
            prop_assert!(regions[region].healthy);
            prop_assert_eq!(regime.members[region].state, MemberState::Active);
            prop_assert!(!order[..i].contains(region));
            prop_assert!(regions[&order[0]].latency_us <= regions[region].latency_us);
        }
    }
}
