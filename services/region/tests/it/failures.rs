use std::time::Duration;

use http::{Method, Request};
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
