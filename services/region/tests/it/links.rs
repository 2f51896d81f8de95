use crate::world::{NAMES, World};
use longhaul_core::regime::{Durability, Mode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_grows_on_a_dead_link_and_ends_after_it_heals() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/lagging";
    world.isolate(0);
    world.put(0, path, &[], "1").await.ok();
    world.until(|w| async move { w.status(1).await.unwrap().lag[NAMES[0]].ms > 200.0 }, "lag grows").await;
    world.heal_all();
    world.shows(1, path, "1").await;
    world
        .until(
            |w| async move {
                let lag = w.status(1).await.unwrap().lag[NAMES[0]];
                lag.operations == 0 && lag.ms < 100.0
            },
            "lag ends",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_take_the_detour_when_the_direct_link_is_cut() {
    let world = World::active_active().await;
    world.cut(0, 1);
    let path = "/v1/records/eu-west/detour";
    world.put(0, path, &[], "\"around\"").await.ok();
    world.shows(1, path, "\"around\"").await;
    world.put(1, path, &[], "\"back\"").await.ok();
    world.shows(0, path, "\"back\"").await;
    assert_eq!(world.status(0).await.unwrap().conflicts, 0);
    world.heal(0, 1);
    world.put(0, path, &[], "\"direct\"").await.ok();
    world.shows(1, path, "\"direct\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_kept_for_a_member_that_is_away_is_shown_and_goes_once_that_has_it() {
    let mut world = World::start(Mode::ActiveActive, Durability::Local, |config| config.timings.log_retained = 0).await;
    world.stop(2).await.unwrap();
    for i in 0..50 {
        world.put(i % 2, &format!("/v1/records/eu-west/s{i}"), &[], "1").await.ok();
    }
    // Idle regions go on writing no-ops, one for each round in which logs are trimmed, and these are kept as well.
    for n in 0..2 {
        world.until(|w| async move { w.status(n).await.unwrap().operations >= 70 }, "the log grows").await;
    }
    world.restart(2).await;
    for n in 0..3 {
        world
            .until(|w| async move { w.status(n).await.is_some_and(|s| s.ready && s.operations < 30) }, "it is trimmed")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_lost_its_disk_starts_from_a_snapshot() {
    let mut world = World::start(Mode::ActiveActive, Durability::Local, |config| config.timings.log_retained = 0).await;
    for i in 0..50 {
        world.put(i % 2, &format!("/v1/records/eu-west/s{i}"), &[], &i.to_string()).await.ok();
    }
    world.delete(0, "/v1/records/eu-west/s0", &[]).await.ok();
    // The first operations leave the log once everybody has them.
    for n in 0..2 {
        world.until(|w| async move { w.status(n).await.unwrap().operations < 30 }, "the log is trimmed").await;
    }
    world.stop(2).await.unwrap();
    // The others forget what they kept of their logs in memory.
    for n in 0..2 {
        world.stop(n).await.unwrap();
        world.restart(n).await;
        world.until(|w| async move { w.status(n).await.is_some_and(|status| status.ready) }, "ready again").await;
    }
    world.stores[2] = longhaul_region::store::memory::MemoryStore::new();
    world.restart(2).await;
    for i in 1..50 {
        world.shows(2, &format!("/v1/records/eu-west/s{i}"), &i.to_string()).await;
    }
    world.until(|w| async move { w.metric(2, "snapshots_merged_total").await >= 1 }, "a snapshot was merged").await;
    assert_eq!(world.get(2, "/v1/records/eu-west/s0", &[]).await.status, 404);
    // What comes afterwards comes from the log.
    world.put(0, "/v1/records/eu-west/after", &[], "1").await.ok();
    world.shows(2, "/v1/records/eu-west/after", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_goes_on_after_a_restart_where_it_was() {
    let mut world = World::active_active().await;
    let path = "/v1/records/eu-west/kept";
    let before = world.put(0, path, &[], "1").await.ok();
    world.stop(0).await.unwrap();
    world.put(1, "/v1/records/eu-west/meanwhile", &[], "2").await.ok();
    world.restart(0).await;
    world.shows(0, path, "1").await;
    world.shows(0, "/v1/records/eu-west/meanwhile", "2").await;
    world.until(|w| async move { w.put(0, path, &[], "3").await.status.is_success() }, "writable again").await;
    let after = world.get(0, path, &[]).await.ok();
    assert!(after.header("etag") > before.header("etag"));
    world.shows(2, path, "3").await;
}
