use super::*;
use crate::ids::{Incarnation, Timeline};
use crate::limits;
use crate::regime::{ChangeKind, Durability, MemberState, Mode, Regime};
use crate::register::check_successor;

const ALL: [u16; 3] = [1, 2, 3];

/// A world in which regions obey commands at once: closes gates, applies barriers, merges and purges.
struct World {
    regime: Regime,
    seen: Observations,
    now_ms: u64,
    commands: Vec<Command>,
    history: Vec<Regime>,
}

fn id(region: u16) -> RegionId {
    RegionId(region)
}

impl World {
    fn new(mode: Mode, durability: Durability) -> Self {
        let regime = Regime::genesis(ALL.map(RegionId), mode, Some(id(1)), durability);
        let writes = |region: u16| mode != Mode::ActivePassive || region == 1;
        let applied: VersionVector =
            ALL.into_iter().filter(|region| writes(*region)).map(|region| (Timeline::new(region, 1), 10)).collect();
        let seen = Seen { applied, max_time_ns: 1000, ..Seen::default() };
        let regions = ALL.into_iter().map(|region| (id(region), seen.clone())).collect();
        let seen = Observations { regions, copies: BTreeMap::new() };
        Self { regime, seen, now_ms: 0, commands: Vec::new(), history: Vec::new() }
    }

    fn plan(
        &self,
        mode: Mode,
        primary: Option<u16>,
        durability: Durability,
        force: bool,
    ) -> Result<Plan, Vec<Refusal>> {
        let target = Target { mode, primary: primary.map(RegionId), durability };
        plan(&self.regime, &Request { target, force }, &self.seen)
    }

    fn driver(&self, plan: Plan) -> TransitionDriver {
        let origin = Origin { id: Uuid::from_u128(7), reason: "test".to_owned(), trace: None, deadline_ms: 10_000 };
        TransitionDriver::new(plan, origin, self.now_ms * 1_000_000)
    }

    fn region(&mut self, region: RegionId) -> &mut Seen {
        self.seen.regions.get_mut(&region).expect("a reachable region")
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Propose { regime, .. } => {
                let by = regime.change.by;
                assert_eq!(check_successor(&self.regime, regime, by), Ok(()));
                self.regime = (**regime).clone();
                self.history.push(self.regime.clone());
            }
            Command::CloseGate { region, epoch, scope } => {
                let timeline = self.regime.timeline_of(*region).expect("a member");
                assert!(*epoch <= self.regime.epoch);
                let epoch = self.regime.epoch;
                let seen = self.region(*region);
                let seq = seen.applied.get(timeline) + 1;
                seen.applied.advance(timeline, seq);
                seen.barrier = Some(Barrier { epoch, scope: *scope, dot: Dot { timeline, seq }, time_ns: 2000 });
            }
            Command::AwaitBarrier { region, vector } => {
                let vector = vector.clone();
                self.region(*region).applied.merge(&vector);
            }
            Command::Certify { home, holder } => {
                let epoch = self.regime.epoch;
                for region in [*home, *holder] {
                    let vector = self.seen.regions[&region].applied.clone();
                    let copy = HomeCopy { epoch, vector, count: 5, digest: vec![1], undecided: 0 };
                    self.seen.copies.entry((*home, region)).or_insert(copy);
                }
            }
            Command::MergeHomes { region, generation, .. } => self.region(*region).merged_generation = *generation,
            Command::Purge { region, generation, .. } => self.region(*region).purged_generation = *generation,
            Command::Done | Command::Abort(_) => {}
        }
    }

    /// Runs to the end; returns the last command.
    fn run(&mut self, driver: &mut TransitionDriver) -> Command {
        for _ in 0..50 {
            let commands = driver.next(&self.regime, &self.seen, self.now_ms * 1_000_000);
            for command in commands {
                self.obey(&command);
                self.commands.push(command.clone());
                if matches!(command, Command::Done | Command::Abort(_)) {
                    return command;
                }
            }
        }
        panic!("the transition does not end: {:?}", driver.step());
    }

    fn go(&mut self, mode: Mode, primary: Option<u16>, durability: Durability) {
        let plan = self.plan(mode, primary, durability, false).expect("nothing stands in the way");
        let mut driver = self.driver(plan);
        assert_eq!(self.run(&mut driver), Command::Done);
        let regime = &self.regime;
        assert_eq!((regime.mode, regime.primary, regime.durability), (mode, primary.map(RegionId), durability));
        assert!(regime.transition.is_none() && regime.change.kind == ChangeKind::TransitionDone);
        assert!(self.history.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
    }

    fn stages(&self) -> Vec<Option<Stage>> {
        self.history.iter().map(|regime| regime.transition.as_ref().map(|transition| transition.stage)).collect()
    }

    fn incarnations(&self) -> Vec<u32> {
        self.regime.members.values().map(|member| member.incarnation.0).collect()
    }
}

#[test]
fn a_switchover_drains_catches_up_cuts_at_the_barrier_and_gives_the_lease_back() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    world.go(Mode::ActivePassive, Some(2), Durability::Local);
    assert_eq!(world.stages(), [Some(Stage::Announced), Some(Stage::Draining), None]);
    assert_eq!(world.regime.cuts.get(Timeline::new(1, 1)), 11);
    assert_eq!(world.incarnations(), [2, 2, 1]);
    assert_eq!(world.regime.hlc_floor_ns, 2001);
    let barrier = world.commands.iter().position(|command| matches!(command, Command::CloseGate { .. })).unwrap();
    let caught_up = world.commands.iter().rposition(|c| matches!(c, Command::AwaitBarrier { .. })).unwrap();
    let released = world.commands.iter().position(|c| matches!(c, Command::Propose { release: true, .. })).unwrap();
    assert!(barrier < caught_up && caught_up < released);
}

#[test]
fn a_switchover_under_sync_brings_every_new_in_sync_member_to_the_barrier() {
    let mut world = World::new(Mode::ActivePassive, Durability::Sync);
    world.go(Mode::ActivePassive, Some(2), Durability::Sync);
    assert_eq!(world.regime.in_sync, [id(1), id(3)].into());
    assert!(world.seen.regions[&id(3)].applied.get(Timeline::new(1, 1)) >= 11);
}

#[test]
fn stronger_durability_waits_for_the_followers_and_weaker_does_not() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    world.region(id(3)).applied = VersionVector::default();
    world.go(Mode::ActivePassive, Some(1), Durability::Sync);
    assert_eq!(world.regime.in_sync, [id(2), id(3)].into());
    assert_eq!(world.seen.regions[&id(3)].applied.get(Timeline::new(1, 1)), 10);
    assert!(world.commands.iter().all(|command| !matches!(command, Command::CloseGate { .. })));
    world.history.clear();
    let plan = world.plan(Mode::ActivePassive, Some(1), Durability::Semi(1), false).unwrap();
    assert_eq!(plan.steps, [Step::Flip]);
    assert_eq!(world.incarnations(), [1, 1, 1], "the primary goes on in its timeline");
}

#[test]
fn an_unreachable_follower_is_left_out_of_the_in_sync_set_and_too_few_are_refused() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    world.seen.regions.remove(&id(3));
    let plan = world.plan(Mode::ActivePassive, Some(1), Durability::Sync, false).unwrap();
    assert_eq!(plan.in_sync, [id(2)].into());
    assert!(plan.costs[0].contains("region 3"));
    let refusals = world.plan(Mode::ActivePassive, Some(1), Durability::Semi(2), true).unwrap_err();
    assert!(refusals[0].to_string().contains("semi(2) needs 2 followers"));
}

#[test]
fn leaving_active_passive_opens_every_region_under_a_new_incarnation() {
    let mut world = World::new(Mode::ActivePassive, Durability::Semi(1));
    world.go(Mode::ActiveActive, None, Durability::Local);
    assert_eq!(world.incarnations(), [2, 2, 2]);
    assert_eq!(world.regime.cuts.get(Timeline::new(1, 1)), 11);
    let applied = |region: u16| world.seen.regions[&id(region)].applied.get(Timeline::new(1, 1));
    assert_eq!([applied(2), applied(3)], [11, 11]);
}

#[test]
fn entering_active_passive_cuts_the_others_at_their_barriers_while_the_primary_goes_on() {
    let mut world = World::new(Mode::ActiveActive, Durability::Local);
    world.go(Mode::ActivePassive, Some(2), Durability::Local);
    assert_eq!(world.incarnations(), [2, 1, 2]);
    let cuts: Vec<u64> = ALL.map(|region| world.regime.cuts.get(Timeline::new(region, 1))).into();
    assert_eq!(cuts, [11, 0, 11]);
    let wanted = &world.seen.regions[&id(2)].applied;
    assert!(wanted.get(Timeline::new(1, 1)) == 11 && wanted.get(Timeline::new(3, 1)) == 11);
    assert!(!world.commands.iter().any(|c| matches!(c, Command::CloseGate { region, .. } if *region == id(2))));
}

#[test]
fn an_unreachable_writer_is_refused_or_cut_at_what_the_primary_has() {
    let mut world = World::new(Mode::ActiveActive, Durability::Local);
    world.seen.regions.remove(&id(3));
    let refusals = world.plan(Mode::ActivePassive, Some(2), Durability::Local, false).unwrap_err();
    assert_eq!((refusals[0].region, refusals[0].forceable), (Some(id(3)), true));
    let plan = world.plan(Mode::ActivePassive, Some(2), Durability::Local, true).unwrap();
    assert!(plan.costs[0].contains("quarantined"));
    let mut driver = world.driver(plan);
    assert_eq!(world.run(&mut driver), Command::Done);
    assert_eq!(world.regime.cuts.get(Timeline::new(3, 1)), 10);
    let left = world.regime.members[&id(3)];
    assert_eq!((left.state, left.incarnation), (MemberState::Joining, Incarnation(2)));
}

#[test]
fn isolation_certifies_before_the_flip_and_purges_after_it() {
    for (mode, durability) in [(Mode::ActiveActive, Durability::Local), (Mode::ActivePassive, Durability::Sync)] {
        let mut world = World::new(mode, durability);
        world.go(Mode::RegionalIsolation, None, Durability::Local);
        let position = |wanted: fn(&Command) -> bool| world.commands.iter().position(wanted).unwrap();
        let certified = world.commands.iter().rposition(|c| matches!(c, Command::Certify { .. })).unwrap();
        let flip = world.commands.iter().rposition(|c| matches!(c, Command::Propose { .. })).unwrap();
        let purged = position(|command| matches!(command, Command::Purge { .. }));
        let closed = position(|command| matches!(command, Command::CloseGate { .. }));
        assert!(closed < certified && certified < flip && flip < purged);
        assert_eq!(world.regime.dataset_generation, 2);
        assert_eq!(purgeable_homes(&world.regime, id(1)), [id(2), id(3)].into());
        let purges = world.commands.iter().filter(|command| matches!(command, Command::Purge { .. })).count();
        assert_eq!(purges, 3);
    }
}

#[test]
fn a_purge_is_not_waited_for_once_the_next_transition_has_begun() {
    let mut world = World::new(Mode::ActiveActive, Durability::Local);
    let plan = world.plan(Mode::RegionalIsolation, None, Durability::Local, false).unwrap();
    let mut driver = world.driver(plan);
    let purge = |command: &Command| matches!(command, Command::Purge { .. });
    loop {
        let commands = driver.next(&world.regime, &world.seen, world.now_ms * 1_000_000);
        if commands.iter().any(purge) {
            break;
        }
        for command in &commands {
            world.obey(command);
        }
    }
    let next = world.plan(Mode::ActiveActive, None, Durability::Local, false).unwrap();
    let origin = Origin { id: Uuid::from_u128(8), reason: "next".to_owned(), trace: None, deadline_ms: 10_000 };
    let mut next = TransitionDriver::new(next, origin, world.now_ms * 1_000_000);
    let begin = next.next(&world.regime, &world.seen, world.now_ms * 1_000_000);
    world.obey(&begin[0]);
    let stage = world.regime.transition.as_ref().map(|transition| transition.stage);
    assert_eq!((world.regime.mode, stage), (Mode::RegionalIsolation, Some(Stage::Merging)));
    assert_eq!(driver.next(&world.regime, &world.seen, world.now_ms * 1_000_000), [Command::Done]);
}

#[test]
fn different_digests_stop_the_transition_and_nothing_is_purged() {
    let mut world = World::new(Mode::ActiveActive, Durability::Local);
    let vector =
        [(Timeline::new(1, 1), 11), (Timeline::new(2, 1), 11), (Timeline::new(3, 1), 11)].into_iter().collect();
    let other = HomeCopy { epoch: Epoch(9), vector, count: 5, digest: vec![2], undecided: 0 };
    world.seen.copies.insert((id(1), id(3)), other);
    let plan = world.plan(Mode::RegionalIsolation, None, Durability::Local, false).unwrap();
    let mut driver = world.driver(plan);
    let Command::Abort(reason) = world.run(&mut driver) else { panic!("it went on") };
    assert!(reason.contains("home 1 at region 3"), "{reason}");
    assert_eq!((world.regime.mode, world.regime.transition.is_none()), (Mode::ActiveActive, true));
    assert!(!world.commands.iter().any(|command| matches!(command, Command::Purge { .. })));
}

#[test]
fn isolation_erases_no_quarantined_operation_that_nobody_has_decided_on() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    world.region(id(3)).quarantined_for_others = 2;
    let refusals = world.plan(Mode::RegionalIsolation, None, Durability::Local, false).unwrap_err();
    assert!(refusals[0].to_string().starts_with("region 3: holds 2 quarantined operations of other homes"));
    let plan = world.plan(Mode::RegionalIsolation, None, Durability::Local, true).unwrap();
    assert!(plan.costs.iter().any(|cost| cost.contains("erased")), "{:?}", plan.costs);
    // A region that learns only of a later regime what it has to put aside.
    for force in [false, true] {
        let mut world = World::new(Mode::ActiveActive, Durability::Local);
        let vector = ALL.into_iter().map(|region| (Timeline::new(region, 1), 11)).collect();
        let late = HomeCopy { epoch: Epoch(9), vector, count: 5, digest: vec![1], undecided: 1 };
        world.seen.copies.insert((id(1), id(3)), late);
        let plan = world.plan(Mode::RegionalIsolation, None, Durability::Local, force).unwrap();
        let mut driver = world.driver(plan);
        let end = world.run(&mut driver);
        let refused = matches!(&end, Command::Abort(reason) if reason.contains("region 3 holds 1 quarantined"));
        assert_eq!((refused, end == Command::Done), (!force, force), "{end:?}");
    }
}

#[test]
fn a_home_that_is_behind_is_waited_for() {
    let vector = |seq| [(Timeline::new(2, 1), seq)].into_iter().collect();
    let copy = |seq, digest: u8| {
        let (epoch, vector) = (Epoch(2), vector(seq));
        HomeCopy { epoch, vector, count: 1, digest: vec![digest], undecided: 0 }
    };
    assert_eq!(certify(&copy(4, 1), &copy(5, 1)), Err(CertificateError::HomeBehind));
    assert_eq!(certify(&copy(5, 1), &copy(5, 2)), Err(CertificateError::Differ));
    assert_eq!(certify(&copy(6, 1), &copy(5, 2)), Ok(()));
}

#[test]
fn the_last_copy_is_never_purged() {
    let mut world = World::new(Mode::ActiveActive, Durability::Local);
    world.seen.regions.remove(&id(3));
    assert!(world.plan(Mode::RegionalIsolation, None, Durability::Local, false).is_err());
    let plan = world.plan(Mode::RegionalIsolation, None, Durability::Local, true).unwrap();
    let mut driver = world.driver(plan);
    assert_eq!(world.run(&mut driver), Command::Done);
    assert_eq!(world.regime.frozen_homes, [id(3)].into());
    assert_eq!(purgeable_homes(&world.regime, id(1)), [id(2)].into());
    assert!(purgeable_homes(&world.regime, id(3)).is_empty(), "what it alone has is certified by nobody");
    let author = Author { id: Uuid::nil(), by: id(3), reason: "back".to_owned(), trace: None };
    let back = activate_member(&world.regime, id(3), &author).unwrap();
    assert_eq!(purgeable_homes(&back, id(1)), [id(2), id(3)].into());
}

#[test]
fn leaving_isolation_merges_every_home_under_a_new_generation_before_the_flip() {
    let mut world = World::new(Mode::RegionalIsolation, Durability::Local);
    world.go(Mode::ActiveActive, None, Durability::Local);
    assert_eq!(world.stages(), [Some(Stage::Merging), None]);
    assert_eq!(world.history[0].dataset_generation, 2);
    assert_eq!(world.regime.dataset_generation, 2, "what was merged stays valid");
    assert!(world.seen.regions.values().all(|seen| seen.merged_generation == 2));
    let mut world = World::new(Mode::RegionalIsolation, Durability::Local);
    world.go(Mode::ActivePassive, Some(2), Durability::Semi(1));
    assert_eq!(world.stages(), [Some(Stage::Merging), Some(Stage::Draining), None]);
    assert_eq!(world.incarnations(), [2, 1, 2]);
    assert_eq!(world.regime.cuts.get(Timeline::new(3, 1)), 11);
}

#[test]
fn giving_up_a_merge_purges_again() {
    let mut world = World::new(Mode::RegionalIsolation, Durability::Local);
    let plan = world.plan(Mode::ActiveActive, None, Durability::Local, false).unwrap();
    let mut driver = world.driver(plan);
    let commands = driver.next(&world.regime, &world.seen, 0);
    world.obey(&commands[0]);
    let back = rollback(&world.regime, id(2), "deadline".to_owned()).unwrap();
    assert_eq!((back.mode, back.dataset_generation, back.epoch), (Mode::RegionalIsolation, 3, Epoch(3)));
    assert!(!purgeable_homes(&back, id(1)).is_empty());
}

#[test]
fn at_its_deadline_a_transition_rolls_back_to_the_old_primary_under_a_new_epoch() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    let plan = world.plan(Mode::ActivePassive, Some(2), Durability::Local, false).unwrap();
    let mut driver = world.driver(plan);
    for _ in 0..2 {
        for command in driver.next(&world.regime, &world.seen, 0) {
            world.obey(&command);
        }
    }
    assert!(world.regime.transition.is_some());
    world.now_ms = 10_000;
    let Command::Abort(reason) = world.run(&mut driver) else { panic!("it went on") };
    assert!(reason.contains("not done within 10000 ms"), "{reason}");
    assert_eq!((world.regime.primary, world.regime.transition.is_none()), (Some(id(1)), true));
    assert_eq!(world.regime.change.kind, ChangeKind::TransitionAborted);
    assert!(world.history.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
}

#[test]
fn a_stale_plan_and_a_superseded_one_die() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    let plan = world.plan(Mode::ActivePassive, Some(2), Durability::Local, false).unwrap();
    let mut stale = world.driver(plan.clone());
    let mut superseded = world.driver(plan);
    let commands = superseded.next(&world.regime, &world.seen, 0);
    world.obey(&commands[0]);
    superseded.next(&world.regime, &world.seen, 0);
    world.regime.epoch = Epoch(8);
    world.regime.transition = None;
    world.regime.change.id = Uuid::from_u128(99);
    assert!(matches!(superseded.next(&world.regime, &world.seen, 0)[..], [Command::Abort(_)]));
    assert!(
        matches!(&stale.next(&world.regime, &world.seen, 0)[..], [Command::Abort(reason)] if reason.contains("plan again"))
    );
}

#[test]
fn a_barrier_from_before_the_drain_does_not_count() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    let dot = Dot { timeline: Timeline::new(1, 1), seq: 3 };
    let early = Barrier { epoch: Epoch(2), scope: GateScope::AllWrites, dot, time_ns: 1 };
    world.region(id(1)).barrier = Some(early);
    world.go(Mode::ActivePassive, Some(2), Durability::Local);
    assert_eq!(world.regime.cuts.get(Timeline::new(1, 1)), 11);
}

#[test]
fn refusals_name_the_region_and_what_is_missing() {
    let mut world = World::new(Mode::ActivePassive, Durability::Local);
    world.region(id(2)).lag_ms = limits::SWITCHOVER_LAG_MAX.as_millis() as u64 + 1;
    world.region(id(2)).quarantined = 4;
    let refusals = world.plan(Mode::ActivePassive, Some(2), Durability::Local, false).unwrap_err();
    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].to_string().starts_with("region 2: lags by 1001 ms"));
    assert_eq!(world.plan(Mode::ActivePassive, Some(2), Durability::Local, true).unwrap().costs.len(), 2);
    let text = |result: Result<Plan, Vec<Refusal>>| result.unwrap_err()[0].to_string();
    assert!(text(world.plan(Mode::ActivePassive, Some(1), Durability::Local, true)).contains("already as wanted"));
    assert!(text(world.plan(Mode::ActivePassive, None, Durability::Local, true)).contains("name one"));
    assert!(text(world.plan(Mode::ActiveActive, None, Durability::Sync, true)).contains("must be local"));
    world.seen.regions.remove(&id(1));
    assert!(text(world.plan(Mode::ActivePassive, Some(2), Durability::Local, true)).contains("fail over first"));
    world.seen.regions.remove(&id(2));
    assert!(text(world.plan(Mode::ActiveActive, None, Durability::Local, true)).contains("majority"));
}

#[test]
fn membership_changes_keep_the_rules() {
    let regime = Regime::genesis(ALL.map(RegionId), Mode::ActivePassive, Some(id(1)), Durability::Sync);
    let author = Author { id: Uuid::nil(), by: id(1), reason: "test".to_owned(), trace: None };
    assert!(rejoin_member(&regime, id(1), &VersionVector::default(), &author).is_none(), "fail over first");
    let joining = rejoin_member(&regime, id(3), &VersionVector::default(), &author).unwrap();
    assert_eq!((joining.members[&id(3)].state, joining.in_sync.contains(&id(3))), (MemberState::Joining, false));
    assert_eq!(check_successor(&regime, &joining, id(1)), Ok(()));
    assert!(set_in_sync(&joining, [id(2), id(3)].into(), &author).is_none(), "a joining member acknowledges nothing");
    let active = activate_member(&joining, id(3), &author).unwrap();
    assert!(set_in_sync(&active, [id(2), id(3)].into(), &author).is_some());
    assert_eq!(reassert(&regime, Epoch(9), &author).epoch, Epoch(9));
    assert_eq!(leave_out(&regime, id(2), &author).unwrap().members[&id(2)].state, MemberState::Evicted);
}
