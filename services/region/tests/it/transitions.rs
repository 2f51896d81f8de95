//! Between one primary and many writers, and transitions that nobody drives any more.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{ChangeKind, Durability, Mode};

use crate::steering::{mode, primary};
use crate::traffic::{Entry, Traffic};
use crate::world::World;

const AA: Mode = Mode::ActiveActive;
const AP: Mode = Mode::ActivePassive;
/// What gateways hold writes at: nothing that is not cured by asking again at once.
const SWITCHING: [ErrorCode; 3] = [ErrorCode::NotPrimary, ErrorCode::Switching, ErrorCode::NoLease];

async fn becomes_active_active(durability: Durability) {
    let world = World::start(AP, durability, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 80).await;
    let change = world.switch(0, mode(AA)).await;
    assert_eq!(change.kind, "mode_switch");
    for n in 0..3 {
        let here = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by == n && epoch >= change.epoch_to);
        traffic.flows_where(&world, 30, here).await;
    }
    let ledger = traffic.end().await;
    ledger.only_refused_with(&SWITCHING);
    ledger.reads_were_right();
    ledger.resumed_in_time(|_| true);
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_passive_becomes_active_active() {
    becomes_active_active(Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_active_passive_becomes_active_active() {
    becomes_active_active(Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_active_becomes_active_passive() {
    for durability in [Durability::Local, Durability::Semi(1)] {
        let world = World::start(AA, Durability::Local, |_| {}).await;
        let traffic = Traffic::start(&world);
        traffic.flows(&world, 80).await;
        let change = world.switch(0, primary(1, durability)).await;
        let by_primary = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by == 1 && epoch >= change.epoch_to);
        traffic.flows_where(&world, 60, by_primary).await;
        let ledger = traffic.end().await;
        ledger.only_refused_with(&SWITCHING);
        ledger.reads_were_right();
        ledger.resumed_in_time(|entry| entry.by().is_some_and(|(by, _)| by == 1));
        for entry in ledger.acknowledged() {
            let (by, epoch) = entry.by().unwrap();
            assert!(epoch < change.epoch_to || by == 1, "acknowledged by a follower: {entry:?}");
        }
        ledger.holds_everywhere(&world).await;
        for n in 0..3 {
            assert_eq!(world.status(n).await.unwrap().quarantined, 0);
        }
    }
}

/// Stops the coordinator once the transition waits for a starved region, and waits for the end that the others make.
async fn coordinator_dies(before: Mode, target: longhaul_core::regime::Target, coordinator: usize, starved: usize) {
    let mut world = World::start(before, Durability::Local, |config| config.timings.transition_deadline_ms = 800).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 30).await;
    world.starve(starved);
    // Something that the starved region lacks.
    let path = format!("/v1/records/{}/lacking", crate::world::NAMES[starved]);
    world.until(|w| async { w.put(coordinator, &path, &[], "1").await.status.is_success() }, "written").await;
    let (at, _) = world.begin_transition(coordinator, target, true).await;
    assert_eq!(at, coordinator);
    let watcher = (0..3).find(|n| *n != coordinator && *n != starved).unwrap();
    world.regime_becomes(watcher, |r| r.transition.is_some(), "the transition is under way").await;
    // What it has acknowledged goes down with it only if it is lost for good: it comes back below.
    world.stop(coordinator).await.unwrap();
    let aborted = world.regime_becomes(watcher, |r| r.transition.is_none(), "somebody ends the transition").await;
    assert_eq!(aborted.mode, before);
    world.feed(starved);
    // A writer exists, whoever it is.
    let alive = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by != coordinator && epoch >= aborted.epoch.0);
    traffic.flows_where(&world, 30, alive).await;
    world.restart(coordinator).await;
    let ledger = traffic.end().await;
    world
        .until(|w| async move { w.status(coordinator).await.is_some_and(|s| s.ready && s.trouble.is_none()) }, "back")
        .await;
    if before == AA {
        assert_eq!(aborted.change.kind, ChangeKind::TransitionAborted);
        ledger.holds_everywhere(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_without_its_coordinator_ends_and_a_writer_exists() {
    coordinator_dies(AP, primary(1, Durability::Local), 0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_one_primary_without_its_coordinator_is_rolled_back() {
    coordinator_dies(AA, primary(1, Durability::Local), 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_isolation_without_its_coordinator_is_rolled_back() {
    coordinator_dies(AA, mode(Mode::RegionalIsolation), 0, 1).await;
}
