//! Another primary, unplanned.

use std::time::Duration;

use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{ChangeKind, Durability, Mode};
use longhaul_http::wire::regime::ChangeState;

use tokio::time::Instant;

use crate::steering::{id, milestone, primary};
use crate::traffic::{Entry, Traffic};
use crate::world::{NAMES, World};

const AP: Mode = Mode::ActivePassive;
/// The longest that a lease lasts.
const LEASE: Duration = longhaul_core::limits::LEASE;

/// Nobody suspects anybody: what happens is by command.
fn unsuspicious(config: &mut longhaul_region::RegionConfig) {
    config.timings.suspect_after_ms = 600_000;
}

async fn has_a_primary(world: &World) {
    let path = "/v1/records/eu-west/first";
    world.until(|w| async move { w.put(0, path, &[], "1").await.status.is_success() }, "the primary has a lease").await;
}

/// The primary is lost for good, under traffic.
async fn loses_nothing(durability: Durability) {
    let mut world = World::start(AP, durability, |_| {}).await;
    has_a_primary(&world).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 80).await;
    world.stop(0).await.unwrap();
    let after = world.regime_becomes(1, |r| r.primary != Some(id(0)), "a survivor takes over").await;
    assert_eq!(after.change.kind, ChangeKind::Failover);
    let by_survivor = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by != 0 && epoch >= after.epoch.0);
    traffic.flows_where(&world, 40, by_survivor).await;
    let ledger = traffic.end().await;
    ledger.reads_were_right();
    world.restart(0).await;
    world
        .until(|w| async move { w.status(0).await.is_some_and(|s| s.ready && s.role == "follower") }, "it follows")
        .await;
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_under_semi_loses_nothing_acknowledged() {
    loses_nothing(Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_under_sync_loses_nothing_acknowledged() {
    loses_nothing(Durability::Sync).await;
}

/// The primary is cut off from the other regions, not from its users.
async fn never_two(durability: Durability) {
    let world = World::start(AP, durability, |_| {}).await;
    has_a_primary(&world).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 60).await;
    let cut = Instant::now();
    world.isolate(0);
    let after = world.regime_becomes(1, |r| r.primary != Some(id(0)), "a survivor takes over").await;
    let by_new = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by != 0 && epoch >= after.epoch.0);
    traffic.flows_where(&world, 40, by_new).await;
    // Its users still reach it.
    let refused = world.put(0, "/v1/records/eu-west/split", &[], "1").await.problem();
    assert!(matches!(refused.code, ErrorCode::NoLease | ErrorCode::FencedAfterAccept), "{refused:?}");
    let ledger = traffic.end().await;
    let ends = |of: &dyn Fn(&Entry) -> bool| -> Vec<Instant> {
        ledger.acknowledged().filter(|entry| of(entry)).map(|entry| entry.ended).collect()
    };
    let last_old = ends(&|entry| entry.by().unwrap().0 == 0).into_iter().max().unwrap();
    let first_new = ends(&by_new).into_iter().min().unwrap();
    assert!(last_old < first_new, "two primaries acknowledged at once");
    assert!(last_old < cut + LEASE, "the old primary acknowledged {:?} after the cut", last_old - cut);
    // Semi and sync need the others, so that nothing is acknowledged after the cut at all.
    if durability != Durability::Local {
        ledger.reads_were_right();
        world.heal_all();
        world
            .until(|w| async move { w.status(0).await.is_some_and(|s| s.ready && s.role == "follower") }, "it follows")
            .await;
        ledger.holds_everywhere(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_primary_that_is_cut_off_stops_within_its_lease() {
    never_two(Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_whose_machine_was_suspended_wakes_without_its_lease() {
    let world = World::start(AP, Durability::Local, |_| {}).await;
    has_a_primary(&world).await;
    // Nobody can renew it, so that what is left of it is what the clock says.
    world.isolate(0);
    world.put(0, "/v1/records/eu-west/before", &[], "1").await.ok();
    world.clocks[0].sleep(Duration::from_secs(3));
    let answer = world.put(0, "/v1/records/eu-west/awake", &[], "1").await;
    assert_eq!(answer.problem().code, ErrorCode::NoLease);
    world.heal_all();
    has_a_primary(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_semi_primary_that_is_cut_off_acknowledges_nothing_that_is_lost() {
    never_two(Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_primary_that_is_cut_off_acknowledges_nothing_that_is_lost() {
    never_two(Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_partition_is_no_reason_to_fail_over() {
    let world = World::start(AP, Durability::Semi(1), |_| {}).await;
    has_a_primary(&world).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 30).await;
    world.cut(0, 1);
    // Region 1 suspects the primary for longer than any failover takes; the detour brings it every write meanwhile.
    world
        .until(|w| async move { w.status(1).await.unwrap().lag[NAMES[0]].knowledge_age_ms > 4000.0 }, "long silence")
        .await;
    traffic.flows(&world, 30).await;
    let ledger = traffic.end().await;
    ledger.only_refused_with(&[ErrorCode::NotPrimary]);
    ledger.reads_were_right();
    ledger.holds_everywhere(&world).await;
    for n in 0..3 {
        let regime = world.regime(n).await;
        assert_eq!((regime.epoch.0, regime.primary), (1, Some(id(0))), "{regime:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_by_command_moves_the_primary_and_failback_returns_it() {
    let mut world = World::start(AP, Durability::Semi(1), unsuspicious).await;
    has_a_primary(&world).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 40).await;
    world.stop(0).await.unwrap();
    let change = world.begin_failover(1, Some(2), false).await;
    let change = world.end_of(1, &change).await;
    assert_eq!((change.state, change.kind.as_str()), (ChangeState::Done, "failover"), "{change:?}");
    assert_eq!(change.to.as_deref(), Some(NAMES[2]));
    let moments = ["decided", "fenced", "chosen", "promoted"].map(|name| milestone(&change, name));
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{change:?}");
    traffic.flows_where(&world, 40, |entry| entry.by().is_some_and(|(by, _)| by == 2)).await;
    world.restart(0).await;
    world
        .until(
            |w| async move {
                let caught_up = |s: longhaul_http::wire::status::RegionStatus| {
                    s.ready && s.role == "follower" && s.trouble.is_none() && s.lag[NAMES[2]].operations == 0
                };
                w.status(0).await.is_some_and(caught_up)
            },
            "the old primary follows",
        )
        .await;
    // What the old primary alone had is quarantined: a person decides before it may lead again.
    let json = [("content-type", "application/json")];
    let decision = "{\"decision\":\"discard\"}";
    world.send(0, http::Method::POST, "/internal/v1/quarantine/decide", &json, decision).await.ok();
    let back = world.switch(2, primary(0, Durability::Semi(1))).await;
    assert_eq!(back.kind, "switchover");
    let by_old = |entry: &Entry| entry.by().is_some_and(|(by, epoch)| by == 0 && epoch >= back.epoch_to);
    traffic.flows_where(&world, 40, by_old).await;
    let ledger = traffic.end().await;
    ledger.reads_were_right();
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn semi_does_not_fail_over_when_too_few_were_heard_unless_loss_is_allowed() {
    let mut world = World::start_with(5, AP, Durability::Semi(1), unsuspicious).await;
    has_a_primary(&world).await;
    world.stop(1).await.unwrap();
    world.stop(0).await.unwrap();
    let change = world.begin_failover(2, None, false).await;
    let change = world.end_of(2, &change).await;
    assert_eq!(change.state, ChangeState::Aborted, "{change:?}");
    assert!(change.reason.contains("3 of the 4 followers were heard"), "{change:?}");
    assert!(change.reason.contains("missing: regions 2"), "{change:?}");
    assert_eq!(world.regime(2).await.primary, Some(id(0)));
    let done = world.begin_failover(2, Some(3), true).await;
    let done = world.end_of(2, &done).await;
    assert_eq!(done.state, ChangeState::Done, "{done:?}");
    assert_eq!(done.to.as_deref(), Some(NAMES[3]));
    assert!(done.missing.iter().any(|line| line.starts_with("given up")), "{done:?}");
    let path = "/v1/records/eu-west/after";
    world.until(|w| async move { w.put(3, path, &[], "1").await.status.is_success() }, "it takes writes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_nothing_to_fail_over_without_a_primary() {
    let world = World::active_active().await;
    let body = "{\"to\":null,\"allow_data_loss\":false}";
    let json = [("content-type", "application/json")];
    let problem = world.send(0, http::Method::POST, "/internal/v1/failovers", &json, body).await.problem();
    assert_eq!(problem.code, ErrorCode::Conflict);
}
