//! Regions that lost their store, primaries that inherit writes, and regions that all wait for each other.

use longhaul_core::digest::bucket;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Dot, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::regime::{Durability, Mode, Regime};
use longhaul_http::wire::regime::ChangeState;
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::store::{BucketDigest, Commit, QuarantineReason, QuarantineRow, QuarantineState, Store};
use serde_json::Value;

use crate::steering::{id, mode, primary};
use crate::world::{NAMES, World};

const AP: Mode = Mode::ActivePassive;

/// Nobody suspects anybody: what happens is by command.
fn unsuspicious(config: &mut longhaul_region::RegionConfig) {
    config.timings.suspect_after_ms = 600_000;
}

/// A testbed whose regime has gone on since it was created.
async fn with_a_past(path: &str) -> World {
    let world = World::start(AP, Durability::Local, unsuspicious).await;
    world.until(|w| async move { w.put(0, path, &[], "1").await.status.is_success() }, "the primary has a lease").await;
    world.switch(0, primary(0, Durability::Semi(1))).await;
    world.put(0, path, &[], "2").await.ok();
    for n in 1..3 {
        world.shows(n, path, "2").await;
    }
    world
}

async fn has_no_vote(world: &World, n: usize) -> bool {
    world.get(n, "/internal/v1/voter", &[]).await.ok().json()["state"] == Value::Null
}

async fn serves(world: &World, n: usize) {
    world
        .until(|w| async move { w.status(n).await.is_some_and(|s| s.ready && s.trouble.is_none()) }, "it serves")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_lost_its_store_votes_only_with_what_the_others_remember_and_lives_anew() {
    let path = "/v1/records/us-east/kept";
    let mut world = with_a_past(path).await;
    let before = world.status(2).await.unwrap().incarnation;
    world.stop(1).await.unwrap();
    world.stop(2).await.unwrap();
    world.stores[2] = MemoryStore::new();
    world.restart(2).await;
    // One other region is not enough to know what it may have promised: the primary loses its lease.
    let refused = |code| matches!(code, ErrorCode::NoLease | ErrorCode::FencedAfterAccept);
    world
        .until(
            |w| async move {
                let answer = w.put(0, path, &[], "3").await;
                !answer.status.is_success() && refused(answer.problem().code)
            },
            "the primary has no lease",
        )
        .await;
    assert!(has_no_vote(&world, 2).await);
    world.restart(1).await;
    world.until(|w| async move { w.status(2).await.is_some_and(|s| s.incarnation > before) }, "it lives anew").await;
    for n in 0..3 {
        serves(&world, n).await;
    }
    assert!(!has_no_vote(&world, 2).await);
    world.until(|w| async move { w.put(0, path, &[], "4").await.status.is_success() }, "writes go on").await;
    world.shows(2, path, "4").await;
    // As a full member it may lead.
    world.regime_becomes(2, |regime| regime.is_active(id(2)), "it is a full member").await;
    world.stop(0).await.unwrap();
    let change = world.begin_failover(2, Some(2), false).await;
    let change = world.end_of(2, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    world.until(|w| async move { w.put(2, path, &[], "5").await.status.is_success() }, "it leads").await;
    world.shows(1, path, "5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_lost_its_store_before_the_regime_ever_changed_does_not_number_its_writes_twice() {
    // In isolation nobody else has what it wrote, and after a restart nobody has heard of it.
    let path = format!("/v1/records/{}/mine", NAMES[2]);
    let mut world = World::start(Mode::RegionalIsolation, Durability::Local, unsuspicious).await;
    world.put(2, &path, &[], "1").await.ok();
    for n in 0..3 {
        world.stop(n).await.unwrap();
    }
    world.stores[2] = MemoryStore::new();
    for n in [0, 2] {
        world.restart(n).await;
        world.until(|w| async move { w.status(n).await.is_some() }, "it answers").await;
    }
    // One other region is not enough: the one that remembers may be the other.
    let refused = world.put(2, &path, &[], "2").await;
    assert_eq!(refused.problem().code, ErrorCode::NotReady);
    let trouble = world.status(2).await.unwrap().trouble.unwrap();
    assert!(trouble.contains("what this region wrote before"), "{trouble}");
    world.restart(1).await;
    world.until(|w| async move { w.status(2).await.is_some_and(|s| s.incarnation == 2) }, "it lives anew").await;
    for n in 0..3 {
        serves(&world, n).await;
    }
    let writes = |w| async move { World::put(w, 2, &format!("/v1/records/{}/mine", NAMES[2]), &[], "3").await };
    world.until(|w| async move { writes(w).await.status.is_success() }, "writes go on").await;
    let written = writes(&world).await.ok().json();
    assert!(written["dot"].as_str().unwrap().starts_with("3.2:"), "{written}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_the_in_sync_set_that_lost_its_store_lives_anew_although_it_is_heard() {
    let path = "/v1/records/us-east/kept";
    let mut world = with_a_past(path).await;
    world.switch(0, primary(0, Durability::Sync)).await;
    let before = world.status(2).await.unwrap().incarnation;
    // Back before anybody misses it: the primary leaves nobody out for being silent.
    world.stop(2).await.unwrap();
    world.stores[2] = MemoryStore::new();
    world.restart(2).await;
    world.until(|w| async move { w.status(2).await.is_some_and(|s| s.incarnation > before) }, "it lives anew").await;
    let whole = |regime: &Regime| regime.in_sync.len() == 2 && regime.is_active(id(2));
    world.regime_becomes(0, whole, "it is let in again").await;
    world.until(|w| async move { w.put(0, path, &[], "3").await.status.is_success() }, "writes go on").await;
    // It vouches for what was acknowledged, with its vote and its copy.
    world.stop(0).await.unwrap();
    let change = world.begin_failover(2, Some(2), false).await;
    let change = world.end_of(2, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    world.shows(2, path, "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_regions_that_lost_their_stores_do_not_vouch_for_each_other() {
    let path = "/v1/records/us-east/kept";
    let mut world = with_a_past(path).await;
    for n in 1..3 {
        world.stop(n).await.unwrap();
        world.stores[n] = MemoryStore::new();
    }
    for n in 1..3 {
        world.restart(n).await;
        world.until(|w| async move { w.status(n).await.is_some() }, "it answers").await;
    }
    world
        .until(
            |w| async move {
                let answer = w.put(0, path, &[], "3").await;
                !answer.status.is_success() && answer.problem().code == ErrorCode::NoLease
            },
            "the primary has no lease",
        )
        .await;
    for n in 1..3 {
        assert!(has_no_vote(&world, n).await, "{n}");
        assert!(!world.put(n, path, &[], "3").await.status.is_success(), "{n}");
    }
    // The last writes may have been acknowledged before the lease ended: the empty stores took them like any other.
    let read = world.get(0, path, &[]).await.ok().body;
    assert!(read == "2" || read == "3", "what is left is read: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_write_is_answered_only_once_it_is_as_durable_as_promised() {
    let mut world = World::start(AP, Durability::Semi(1), |config| {
        unsuspicious(config);
        config.timings.ack_deadline_ms = 500;
    })
    .await;
    let path = "/v1/records/us-east/twice";
    world.until(|w| async move { w.put(0, path, &[], "0").await.status.is_success() }, "the primary has a lease").await;
    for n in 1..3 {
        world.shows(n, path, "0").await;
    }
    world.starve(2);
    let id = [("idempotency-key", "0198f0a8-7c3e-7d4b-8a6f-0123456789ab")];
    let first = world.put(0, path, &id, "1").await.ok().json();
    world.stop(0).await.unwrap();
    let change = world.begin_failover(1, Some(1), false).await;
    let change = world.end_of(1, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    // The write is part of history, and nobody but the new primary has it.
    let undecided = |code| matches!(code, ErrorCode::NoLease | ErrorCode::NotReady);
    world
        .until(|w| async move { !undecided(w.put(1, path, &id, "1").await.problem().code) }, "the new primary leads")
        .await;
    let again = world.put(1, path, &id, "1").await.problem();
    assert_eq!(again.code, ErrorCode::AckTimeout, "{again:?}");
    world.feed(2);
    world.until(|w| async move { w.put(1, path, &id, "1").await.status.is_success() }, "a follower has it").await;
    let again = world.put(1, path, &id, "1").await.ok();
    assert_eq!(
        (again.header("longhaul-durability-achieved").as_str(), &again.json()["dot"]),
        ("semi(1)", &first["dot"])
    );
    assert_eq!(again.json()["repeated"], true);
    assert_eq!(world.get(2, path, &[]).await.ok().body, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_that_all_repair_the_same_record_take_it_from_the_log() {
    let mut world = World::active_active().await;
    let (path, other) = ("/v1/records/us-east/hurt", "/v1/records/us-east/whole");
    world.put(0, path, &[], "\"history\"").await.ok();
    world.put(1, other, &[], "1").await.ok();
    for n in 0..3 {
        world.shows(n, path, "\"history\"").await;
        world.shows(n, other, "1").await;
    }
    let key = RecordKey { home: RegionId(2), id: RecordId::new("hurt").unwrap() };
    cut_a_tail_off_everywhere(&mut world, &key).await;
    for n in 0..3 {
        serves(&world, n).await;
        world.shows(n, path, "\"history\"").await;
        world.shows(n, other, "1").await;
    }
    world.put(2, path, &[], "\"on\"").await.ok();
    for n in 0..3 {
        world.shows(n, path, "\"on\"").await;
        assert_eq!(world.status(n).await.unwrap().divergence_alarms, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_frozen_home_is_repaired_from_the_log() {
    let mut world = World::active_active().await;
    let (path, key) =
        ("/v1/records/ap-south/hurt", RecordKey { home: RegionId(3), id: RecordId::new("hurt").unwrap() });
    world.put(2, path, &[], "\"history\"").await.ok();
    for n in 0..2 {
        world.shows(n, path, "\"history\"").await;
    }
    world.isolate(2);
    let (at, change) = world.begin_transition(0, mode(Mode::RegionalIsolation), true).await;
    assert_eq!(world.end_of(at, &change).await.state, ChangeState::Done);
    world.until(|w| async move { w.regime(1).await.mode == Mode::RegionalIsolation }, "isolated").await;
    // The home's tail had reached everybody, and was cut off everywhere.
    cut_a_tail_off_everywhere(&mut world, &key).await;
    for n in 0..2 {
        serves(&world, n).await;
    }
    world.heal_all();
    serves(&world, 2).await;
    world.shows(2, path, "\"history\"").await;
}

/// Restarts every region on what a crash leaves that follows the removal of a tail which had overwritten the record.
async fn cut_a_tail_off_everywhere(world: &mut World, key: &RecordKey) {
    for n in 0..world.count() {
        world.stop(n).await.unwrap();
    }
    for store in &world.stores {
        remove_as_a_tail_would(store, key).await;
    }
    for n in 0..world.count() {
        world.restart(n).await;
    }
}

/// Leaves a store as a crash does that follows the removal of a tail: the tail had overwritten the record.
async fn remove_as_a_tail_would(store: &MemoryStore, key: &RecordKey) {
    let place = (key.home, bucket(&key.id));
    let record = store.records(std::slice::from_ref(key)).await.unwrap().remove(0).unwrap();
    let mut operation = store.log(record.dot.timeline, record.dot.seq - 1, 1, 1).await.unwrap().remove(0);
    operation.dot = Dot { timeline: Timeline::new(3, 99), seq: 7 };
    let row = QuarantineRow {
        operation,
        reason: QuarantineReason::PastCut,
        epoch: record.epoch,
        found_ns: 0,
        state: QuarantineState::Open,
        repaired: false,
    };
    let mut digest = store.load().await.unwrap().digests[&place];
    digest.replace(Some(&record), None);
    let digests: Vec<((RegionId, u16), BucketDigest)> = vec![(place, digest)];
    let commit = Commit { removed_records: vec![key.clone()], quarantine: vec![row], digests, ..Commit::default() };
    store.commit(commit).await.unwrap();
}
