use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::Epoch;
use longhaul_core::token::{SessionToken, TokenKey};

use crate::world::World;

const KEY: &str = "idempotency-key";
const SESSION: &str = "longhaul-session";
const CONSISTENCY: &str = "longhaul-consistency";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_anywhere_is_read_everywhere() {
    let world = World::active_active().await;
    for n in 0..3 {
        let path = format!("/v1/records/us-east/from-{n}");
        let value = format!("{{\"from\": {n}}}");
        let answer = world.put(n, &path, &[], &value).await.ok();
        assert_eq!(answer.header("longhaul-region"), crate::world::NAMES[n]);
        assert_eq!(answer.header("longhaul-epoch"), "1");
        assert_eq!(answer.header("longhaul-durability-achieved"), "local");
        assert_eq!(answer.header("etag"), format!("\"{}\"", answer.json()["version"].as_str().unwrap()));
        for reader in 0..3 {
            world.shows(reader, &path, &value).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_overwrites_that_had_not_seen_each_other_are_conflicts() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/contended";
    world.put(0, path, &[], "\"first\"").await.ok();
    world.shows(1, path, "\"first\"").await;
    // Another region writes last, having seen the first value: no conflict.
    world.put(1, path, &[], "\"second\"").await.ok();
    world.shows(0, path, "\"second\"").await;
    world.shows(2, path, "\"second\"").await;
    for n in 0..3 {
        assert_eq!(world.status(n).await.unwrap().conflicts, 0);
    }
    world.isolate(0);
    let left = world.put(0, path, &[], "\"left\"").await.ok();
    let right = world.put(1, path, &[], "\"right\"").await.ok();
    world.heal_all();
    let (left, right) = (left.json(), right.json());
    let left_wins = left["version"].as_str() > right["version"].as_str();
    for n in 0..3 {
        world.shows(n, path, if left_wins { "\"left\"" } else { "\"right\"" }).await;
        world.until(|w| async move { w.status(n).await.unwrap().conflicts == 1 }, "one conflict").await;
        let conflicts = world.get(n, "/internal/v1/conflicts", &[]).await.ok().json();
        let loser = if left_wins { &right } else { &left };
        assert_eq!(conflicts[0]["loser_op_id"], loser["op_id"]);
        assert_eq!(conflicts[0]["kind"], "concurrent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_answered_from_memory_and_a_reused_key_is_refused() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/once";
    let key = "6d0c0f0e-6d7b-4b9e-9a5c-0d8f6f1f2a33";
    let first = world.put(0, path, &[(KEY, key)], "1").await.ok().json();
    assert_eq!(first["repeated"], false);
    let again = world.put(0, path, &[(KEY, key)], "1").await.ok().json();
    assert_eq!(again["repeated"], true);
    assert_eq!(again["dot"], first["dot"]);
    let other = world.put(0, path, &[(KEY, key)], "2").await;
    assert_eq!(other.problem().code, ErrorCode::KeyReused);
    // The id travels with the operation.
    world.shows(2, path, "1").await;
    let elsewhere = world.put(2, path, &[(KEY, key)], "1").await.ok().json();
    assert_eq!((&elsewhere["repeated"], &elsewhere["dot"]), (&true.into(), &first["dot"]));
    world.put(2, path, &[], "3").await.ok();
    assert_eq!(world.put(2, path, &[(KEY, key)], "1").await.ok().json()["repeated"], true);
    world.shows(0, path, "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_never_reads_less_than_it_has_written() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/mine";
    let mut token = String::new();
    for round in 0..20 {
        let value = round.to_string();
        let written = world.put(round % 3, path, &[(SESSION, &token)], &value).await.ok();
        token = written.header(SESSION);
        let reader = (round + 1) % 3;
        let read = world.get(reader, path, &[(SESSION, &token), (CONSISTENCY, "session")]).await.ok();
        assert_eq!(read.body, value.as_bytes());
        token = read.header(SESSION);
    }
    world.isolate(2);
    let written = world.put(0, path, &[(SESSION, &token)], "\"far\"").await.ok();
    let token = written.header(SESSION);
    let behind = world.get(2, path, &[(SESSION, &token), (CONSISTENCY, "session")]).await;
    assert_eq!(behind.problem().code, ErrorCode::NotCaughtUp);
    assert_eq!(world.get(2, path, &[(SESSION, &token)]).await.ok().body, "19");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_met_a_newer_regime_is_not_answered_under_an_older_one() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/mine";
    world.put(1, path, &[], "1").await.ok();
    let ahead = SessionToken { epoch: Epoch(2), ..SessionToken::default() };
    let token = ahead.encode(&TokenKey::new(b"secret")).unwrap();
    for consistency in ["session", "primary"] {
        let behind = world.get(1, path, &[(SESSION, &token), (CONSISTENCY, consistency)]).await;
        assert_eq!(behind.problem().code, ErrorCode::NotCaughtUp, "{consistency}");
    }
    assert_eq!(world.get(1, path, &[(SESSION, &token)]).await.ok().body, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_records_of_one_home_are_no_snapshot_where_everybody_writes_for_everybody() {
    let world = World::active_active().await;
    let page = "/internal/v1/snapshot?limit=10&by=2";
    assert_eq!(world.get(0, page, &[]).await.status, StatusCode::OK);
    // Asked by a region that has not heard yet of the end of isolation.
    assert_eq!(world.get(0, &format!("{page}&home=1"), &[]).await.problem().code, ErrorCode::NotReady);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_record_stays_deleted_and_its_tombstone_goes() {
    let world = World::active_active().await;
    let path = "/v1/records/ap-south/short-lived";
    world.put(0, path, &[], "1").await.ok();
    world.shows(2, path, "1").await;
    world.delete(2, path, &[]).await.ok();
    for n in 0..3 {
        world.until(|w| async move { w.get(n, path, &[]).await.status == StatusCode::NOT_FOUND }, "deleted").await;
    }
    for n in 0..3 {
        world.until(|w| async move { w.status(n).await.unwrap().tombstones == 0 }, "collected").await;
        assert_eq!(world.get(n, path, &[]).await.status, StatusCode::NOT_FOUND);
        assert_eq!(world.status(n).await.unwrap().divergence_alarms, 0);
    }
    assert_eq!(world.delete(1, path, &[]).await.problem().code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_in_the_region_that_checks_them() {
    let world = World::active_active().await;
    let path = "/v1/records/eu-west/conditional";
    let created = world.put(0, path, &[("if-none-match", "*")], "1").await.ok();
    assert_eq!(created.header("longhaul-guarantee"), "regional");
    let refused = world.put(0, path, &[("if-none-match", "*")], "2").await;
    assert_eq!(refused.problem().code, ErrorCode::PreconditionFailed);
    assert_eq!(refused.header("etag"), created.header("etag"));
    let updated = world.put(0, path, &[("if-match", &created.header("etag"))], "2").await.ok();
    assert_eq!(
        world.put(0, path, &[("if-match", &created.header("etag"))], "3").await.problem().code,
        ErrorCode::PreconditionFailed
    );
    let unchanged = world.get(0, path, &[("if-none-match", &updated.header("etag"))]).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    world.delete(0, path, &[("if-match", "*")]).await.ok();
    assert_eq!(world.put(0, path, &[("if-match", "*")], "4").await.problem().code, ErrorCode::PreconditionFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_arrive_together_are_all_kept_and_converge() {
    let world = World::active_active().await;
    let writes = (0..300).map(|i| {
        let world = &world;
        async move {
            let path = format!("/v1/records/us-east/r{}", i % 40);
            world.put(i % 3, &path, &[], &i.to_string()).await.ok().json()["op_id"].as_str().unwrap().to_owned()
        }
    });
    let ids = futures::future::join_all(writes).await;
    world
        .until(
            |w| async move {
                let mut views = Vec::new();
                for n in 0..3 {
                    views.push(w.get(n, "/internal/v1/digest", &[]).await.json()["homes"].clone());
                }
                views[0].is_object() && views.iter().all(|view| *view == views[0])
            },
            "equal digests",
        )
        .await;
    for n in 0..3 {
        let operations = world.get(n, "/internal/v1/operations?limit=10000", &[]).await.ok().json();
        let known: std::collections::BTreeSet<&str> =
            operations.as_array().unwrap().iter().map(|row| row["op_id"].as_str().unwrap()).collect();
        assert!(ids.iter().all(|id| known.contains(id.as_str())), "every operation is in the history of region {n}");
        assert_eq!(world.metric(n, "born_dead_total").await, 0);
        assert_eq!(world.metric(n, "divergence_alarms_total").await, 0);
        let visible = world.get(n, "/internal/v1/visibility", &[]).await.ok().json();
        assert_eq!(visible["visible"].as_array().unwrap().len(), 300);
    }
}
