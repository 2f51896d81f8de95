//! Into regional isolation and out of it.

use std::collections::BTreeSet;

use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Dot, OpId, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::regime::{ChangeKind, Durability, Mode};
use longhaul_core::version::Version;
use longhaul_http::wire::regime::ChangeState;
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::store::{Commit, ConflictKind, ConflictRow, Store};

use crate::steering::{milestone, mode, primary};
use crate::traffic::{Entry, Ledger, Traffic, digest};
use crate::world::{NAMES, World};

const AA: Mode = Mode::ActiveActive;
const AP: Mode = Mode::ActivePassive;
const ISOLATION: Mode = Mode::RegionalIsolation;
/// What users are told while homes close, and afterwards elsewhere than at home.
const TO_HOME: [ErrorCode; 3] = [ErrorCode::WrongHome, ErrorCode::Switching, ErrorCode::NotPrimary];

/// No byte of what the users wrote is anywhere but at its home.
async fn nothing_is_away_from_home(world: &World, ledger: &Ledger) {
    for (n, name) in NAMES.iter().enumerate().take(world.count()) {
        let foreign: Vec<String> = ledger
            .acknowledged()
            .filter(|entry| entry.home != n)
            .filter_map(|entry| entry.value.as_ref())
            .map(|value| value.trim_matches('"').to_owned())
            .collect();
        assert!(!foreign.is_empty());
        let found = world.sweep(n, &foreign).await;
        assert!(found.is_empty(), "{} of other homes found in {}, first {:?}", found.len(), name, found[0]);
        let rows = digest(world, n).await.unwrap().rows;
        assert!(rows.keys().eq([name]), "{rows:?}");
    }
}

/// In isolation only the home answers, and it says everything.
async fn only_the_home_serves(world: &World) {
    for n in 0..world.count() {
        let path = format!("/v1/records/{}/mine", NAMES[n]);
        world.put(n, &path, &[], "1").await.ok();
        let other = (n + 1) % world.count();
        for refused in [world.put(other, &path, &[], "2").await, world.get(other, &path, &[]).await] {
            let problem = refused.problem();
            assert_eq!((problem.code, problem.home.as_deref()), (ErrorCode::WrongHome, Some(NAMES[n])));
        }
        world.shows(n, &path, "1").await;
    }
}

async fn into_isolation(mode_before: Mode, durability: Durability) {
    let world = World::start(mode_before, durability, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 100).await;
    let change = world.switch(0, mode(ISOLATION)).await;
    let moments = ["certified", "flipped", "purged"].map(|name| milestone(&change, name));
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "purged before certified: {change:?}");
    for home in 0..3 {
        let at_home = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by == home && epoch >= change.epoch_to);
        traffic.flows_where(&world, 20, at_home).await;
    }
    let ledger = traffic.end().await;
    ledger.only_refused_with(&TO_HOME);
    ledger.reads_were_right();
    for home in 0..3 {
        ledger.resumed_in_time(|entry| entry.home == home);
    }
    for entry in ledger.acknowledged() {
        let (by, epoch) = entry.by().unwrap();
        assert!(epoch < change.epoch_to || by == entry.home, "written away from home: {entry:?}");
    }
    ledger.holds_at_home(&world).await;
    nothing_is_away_from_home(&world, &ledger).await;
    only_the_home_serves(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_active_becomes_isolation_and_only_homes_hold_their_records() {
    into_isolation(AA, Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_passive_becomes_isolation_and_only_homes_hold_their_records() {
    into_isolation(AP, Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn semi_active_passive_becomes_isolation_under_steady_writes() {
    into_isolation(AP, Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_becomes_active_active_and_every_region_holds_everything() {
    let world = World::start(ISOLATION, Durability::Local, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 100).await;
    let change = world.switch(0, mode(AA)).await;
    assert!(milestone(&change, "merged") < milestone(&change, "flipped"), "{change:?}");
    let foreign = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by != entry.home && epoch >= change.epoch_to);
    traffic.flows_where(&world, 60, foreign).await;
    let ledger = traffic.end().await;
    ledger.only_refused_with(&TO_HOME);
    ledger.reads_were_right();
    for home in 0..3 {
        ledger.resumed_in_time(|entry| entry.home == home);
    }
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_becomes_active_passive_and_the_primary_holds_everything() {
    let world = World::start(ISOLATION, Durability::Local, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 100).await;
    let change = world.switch(0, primary(1, Durability::Semi(1))).await;
    let by_primary = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by == 1 && epoch >= change.epoch_to);
    traffic.flows_where(&world, 60, by_primary).await;
    let ledger = traffic.end().await;
    // The new primary has no lease in the moment before its first voters have answered.
    ledger.only_refused_with(&[&TO_HOME[..], &[ErrorCode::NoLease]].concat());
    ledger.reads_were_right();
    ledger.resumed_in_time(|_| true);
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_trip_through_isolation_loses_and_resurrects_nothing() {
    let world = World::start(AA, Durability::Local, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 100).await;
    // Deleted before, and deleted at home while the others hold nothing of it: neither may come back.
    let (before, meanwhile) = ("/v1/records/us-east/deleted-before", "/v1/records/us-east/deleted-meanwhile");
    for path in [before, meanwhile] {
        world.put(0, path, &[], "1").await.ok();
        world.shows(2, path, "1").await;
    }
    world.delete(0, before, &[]).await.ok();
    for round in 0..2 {
        let change = world.switch(0, mode(ISOLATION)).await;
        traffic.flows_where(&world, 60, |entry| entry.by().is_some_and(|(_, epoch)| epoch >= change.epoch_to)).await;
        if round == 0 {
            world.delete(1, meanwhile, &[]).await.ok();
        }
        let change = world.switch(0, mode(AA)).await;
        traffic.flows_where(&world, 60, |entry| entry.by().is_some_and(|(_, epoch)| epoch >= change.epoch_to)).await;
    }
    let ledger = traffic.end().await;
    ledger.only_refused_with(&TO_HOME);
    ledger.reads_were_right();
    ledger.holds_everywhere(&world).await;
    for n in 0..3 {
        for path in [before, meanwhile] {
            assert_eq!(world.get(n, path, &[]).await.status, 404, "{path} came back in {}", NAMES[n]);
        }
    }
}

/// A world in which the home us-east lacks what others wrote of its records, with isolation under way.
async fn isolation_while_the_home_lacks_records(deadline_ms: u64) -> (World, String) {
    let world = World::start(AA, Durability::Local, |config| config.timings.transition_deadline_ms = deadline_ms).await;
    world.starve(1);
    for i in 0..20 {
        world.put(0, &format!("/v1/records/us-east/k{i}"), &[], &format!("\"canary-{i}\"")).await.ok();
    }
    world.shows(2, "/v1/records/us-east/k19", "\"canary-19\"").await;
    let (at, change) = world.begin_transition(0, mode(ISOLATION), false).await;
    assert_eq!(at, 0);
    world.reaches(0, &change, "drained").await;
    (world, change)
}

async fn every_copy_is_kept(world: &World) {
    for n in [0, 2] {
        for i in 0..20 {
            world.shows(n, &format!("/v1/records/us-east/k{i}"), &format!("\"canary-{i}\"")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_purged_before_the_home_has_everything() {
    let (world, change) = isolation_while_the_home_lacks_records(15_000).await;
    // It waits: the copies are all there is, although no reader gets them any more.
    let canaries: Vec<String> = (0..20).map(|i| format!("canary-{i}")).collect();
    for n in [0, 2] {
        let kept: BTreeSet<usize> = world.sweep(n, &canaries).await.into_iter().map(|(needle, _)| needle).collect();
        assert_eq!(kept.len(), canaries.len(), "in {}", NAMES[n]);
        let answer = world.get(n, "/v1/records/us-east/k0", &[]).await;
        assert_eq!(answer.problem().code, ErrorCode::WrongHome, "in {}", NAMES[n]);
    }
    assert!(world.changes(0).await.iter().any(|known| known.id == change && known.state == ChangeState::Running));
    world.feed(1);
    let change = world.end_of(0, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    for i in 0..20 {
        world.shows(1, &format!("/v1/records/us-east/k{i}"), &format!("\"canary-{i}\"")).await;
    }
    for n in [0, 2] {
        assert_eq!(world.sweep(n, &canaries).await, [], "in {}", NAMES[n]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_is_rolled_back_and_nothing_is_purged_while_the_home_is_cut_off() {
    let (world, change) = isolation_while_the_home_lacks_records(4000).await;
    world.isolate(1);
    let change = world.end_of(0, &change).await;
    assert_eq!(change.state, ChangeState::Aborted, "{change:?}");
    every_copy_is_kept(&world).await;
    let regime = world.regime_becomes(2, |r| r.transition.is_none(), "the others hear of it").await;
    assert_eq!((regime.mode, regime.change.kind), (AA, ChangeKind::TransitionAborted));
    // Everybody writes everything again.
    world.put(2, "/v1/records/us-east/again", &[], "1").await.ok();
    world.feed(1);
    world.heal_all();
    world.shows(1, "/v1/records/us-east/again", "1").await;
    for i in 0..20 {
        world.shows(1, &format!("/v1/records/us-east/k{i}"), &format!("\"canary-{i}\"")).await;
    }
}

/// A home does not count every conflict about its records itself: one that is told of a later write, which had seen both,
/// before the loser has nothing to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_that_another_region_alone_has_found_go_home_before_they_are_erased() {
    let world = World::start(AA, Durability::Local, |_| {}).await;
    let dot = |region, seq| Dot { timeline: Timeline::new(region, 1), seq };
    let found = |home: u16, seq: u64| ConflictRow {
        key: RecordKey { home: RegionId(home), id: RecordId::new("contended").unwrap() },
        loser: dot(2, seq),
        loser_op_id: OpId(uuid::Uuid::from_u128(seq.into())),
        loser_version: Version { time_ns: seq, count: 0, region: RegionId(2) },
        loser_value: Some("\"lost\"".into()),
        winner: dot(3, seq),
        winner_op_id: OpId(uuid::Uuid::from_u128(u128::from(seq) + 100)),
        kind: ConflictKind::Concurrent,
        found_ns: seq,
    };
    let (own, of_second, of_third) = (found(1, 11), [found(2, 13), found(2, 12)], found(3, 14));
    let mut conflicts = vec![own.clone(), of_third.clone()];
    conflicts.extend(of_second.clone());
    world.stores[0].commit(Commit { conflicts, ..Commit::default() }).await.unwrap();
    // Known at home already, and found there at another time: the home's own row stays.
    let known = ConflictRow { found_ns: 1, ..of_third };
    world.stores[2].commit(Commit { conflicts: vec![known.clone()], ..Commit::default() }).await.unwrap();

    world.switch(0, mode(ISOLATION)).await;
    assert_eq!(world.stores[0].conflicts(0, 10).await.unwrap(), [own]);
    assert_eq!(world.stores[1].conflicts(0, 10).await.unwrap(), of_second);
    assert_eq!(world.stores[2].conflicts(0, 10).await.unwrap(), [known]);
}

/// It has proved that it has everything, and then it has nothing: as long as others have not erased what is its own, it
/// gets that back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_loses_its_disk_before_others_have_erased_its_records_gets_them_back() {
    let mut world = World::start(AA, Durability::Local, |_| {}).await;
    let path = |n: usize| format!("/v1/records/us-east/k{n}");
    for n in 0..3 {
        world.put(n, &path(n), &[], "\"canary\"").await.ok();
    }
    // Operations and regimes go around the cut; what region 2 has to ask the home itself before it erases does not.
    world.cut(1, 2);
    for (n, seen_at) in [(2, 1), (1, 2), (0, 1), (0, 2)] {
        world.shows(seen_at, &path(n), "\"canary\"").await;
    }
    let (at, change) = world.begin_transition(0, mode(ISOLATION), false).await;
    assert_eq!(at, 0);
    world.reaches(0, &change, "flipped").await;
    let canary = ["canary".to_owned()];
    world.until(|w| async { w.sweep(0, &canary).await.is_empty() }, "who reaches the home erases").await;
    world.regime_becomes(2, |regime| regime.mode == ISOLATION, "region 2 is isolated").await;

    world.stop(1).await.unwrap();
    world.stores[1] = MemoryStore::new();
    world.restart(1).await;
    world.heal(1, 2);
    for n in 0..3 {
        world.shows(1, &path(n), "\"canary\"").await;
    }
    world.until(|w| async { w.sweep(2, &canary).await.is_empty() }, "the copies go once the home is whole").await;
}

/// The log of a home that begins to write only after the purge is complete, and yet says nothing of what it held before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_from_before_isolation_come_back_although_the_homes_logs_begin_after_it() {
    let world = World::start(AP, Durability::Semi(1), |_| {}).await;
    let path = |n: usize| format!("/v1/records/{}/from-before", NAMES[n]);
    for n in 0..3 {
        world.put(0, &path(n), &[], "1").await.ok();
    }
    world.switch(0, mode(ISOLATION)).await;
    for n in 0..3 {
        world.shows(n, &path(n), "1").await;
    }
    world.switch(0, mode(AA)).await;
    for n in 0..3 {
        for home in 0..3 {
            assert_eq!(world.get(n, &path(home), &[]).await.status, 200, "{} is missing in {}", path(home), NAMES[n]);
        }
    }
}
