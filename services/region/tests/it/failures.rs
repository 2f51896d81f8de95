use std::time::Duration;

use http::{Method, Request};
use longhaul_core::error_code::ErrorCode;
use longhaul_region::RunError;
use longhaul_region::store::StoreError;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_region_and_acknowledges_nothing() {
    let mut world = World::active_active().await;
    let full = StoreError::Failed { path: "disk".to_owned(), reason: "no space left".to_owned() };
    world.stores[0].fail_next_commit(full);
    let answer = world.try_send(0, Method::PUT, "/v1/records/eu-west/lost", &[], "1").await;
    // A broken connection is an unknown outcome too.
    assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.status.is_success()));
    let error = world.ended(0).await.expect_err("the region ends with the error");
    assert!(matches!(&error, RunError::Store(StoreError::Failed { .. })), "{error}");
    assert_eq!(world.get(1, "/v1/records/eu-west/lost", &[]).await.status, 404);
    world.put(1, "/v1/records/eu-west/others", &[], "1").await.ok();
    world.shows(2, "/v1/records/eu-west/others", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_went_away_is_kept_and_shipped() {
    let mut world = World::active_active().await;
    world.stop(0).await.unwrap();
    world.stores[0] = world.stores[0].clone().with_flush_delay(Duration::from_millis(150));
    world.restart(0).await;
    world
        .until(|w| async move { w.put(0, "/v1/records/eu-west/warm", &[], "1").await.status.is_success() }, "writable")
        .await;
    let mut request = Request::new(bytes::Bytes::from_static(b"\"kept\""));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = "/v1/records/eu-west/orphan".parse().unwrap();
    // Shorter than the flush: the client is gone before the commit is.
    let gone = world.client.send(&world.addresses[0], request, Duration::from_millis(60)).await;
    assert!(gone.is_err());
    world.shows(1, "/v1/records/eu-west/orphan", "\"kept\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_corrected_is_believed_once_the_others_confirm_it_and_a_wrong_one_is_not() {
    let world = World::active_active().await;
    let (json, path) = ([("content-type", "application/json")], "/v1/records/eu-west/late");
    let skew = async |offset_ms: i64| {
        let body = serde_json::json!({"offset_ms": offset_ms}).to_string();
        world.send(0, Method::POST, "/internal/v1/clock", &json, body).await.ok();
    };
    let writes = async || world.put(0, path, &[], "1").await;
    skew(-300).await;
    world.until(|w| async move { w.put(0, path, &[], "1").await.status.is_success() }, "a late clock stamps").await;
    skew(0).await;
    assert_eq!(writes().await.problem().code, ErrorCode::ClockBehind, "it jumped forward");
    world.until(|w| async move { w.put(0, path, &[], "2").await.status.is_success() }, "the others confirm it").await;
    skew(5000).await;
    assert_eq!(writes().await.problem().code, ErrorCode::ClockBehind, "it jumped forward");
    // The others have said by now what they think of it.
    world
        .until(
            |w| async move { w.status(0).await.unwrap().clock_offset_ms.values().all(|offset| *offset < -4000.0) },
            "it hears the others' clocks",
        )
        .await;
    let version = &world.put(1, path, &[], "3").await.ok().header("etag");
    world
        .until(|w| async move { w.get(0, path, &[]).await.header("etag") >= *version }, "what others write comes")
        .await;
    assert_eq!(writes().await.problem().code, ErrorCode::ClockBehind, "and it is wrong");
    skew(0).await;
    world.until(|w| async move { w.put(0, path, &[], "4").await.status.is_success() }, "it is right again").await;
    world.shows(2, path, "4").await;
}
