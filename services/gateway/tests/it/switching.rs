//! Regimes that change while requests are under way.

use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use http::Method;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::Mode;
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::serve::serve;
use longhaul_http::wire::control::KNOWN_REGIME_PATH;
use longhaul_http::wire::gateway::DEADLINE_MS;
use longhaul_http::wire::records::ATTEMPTS;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake::{Edge, Reply, regime};

#[tokio::test]
async fn the_gateway_follows_a_failover_and_remembers_when() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    // Only one region has heard of it.
    edge.regions[2].adopt(regime(4, Mode::ActivePassive, Some(2)));
    let status = edge.until("it follows", |status| status.epoch == 4).await;
    assert_eq!(edge.put("region-1").await.region(), "region-2");
    let adopted: Vec<_> = status.adopted.iter().map(|entry| (entry.epoch, entry.primary.clone().unwrap())).collect();
    assert_eq!(adopted, [(1, "region-1".to_owned()), (4, "region-2".to_owned())]);
    assert!(status.adopted[0].boot_ns < status.adopted[1].boot_ns);
    edge.stop().await;
}

#[tokio::test]
async fn a_higher_epoch_in_an_answer_is_fetched_at_once() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    edge.adopt(&regime(2, Mode::ActivePassive, Some(2)));
    edge.regions[0].otherwise(Reply::Problem(ErrorCode::NotPrimary));
    let answer = edge.put("region-1").await;
    assert_eq!((answer.status(), answer.region(), answer.header(ATTEMPTS)), (200, "region-2", "2"));
    edge.stop().await;
}

#[tokio::test]
async fn a_regime_may_be_pushed_and_an_older_one_changes_nothing() {
    let edge = Edge::start(regime(5, Mode::ActivePassive, Some(1))).await;
    for (epoch, expected) in [(7, 7), (6, 7)] {
        let body = regime(epoch, Mode::ActivePassive, Some(2));
        let headers = http::HeaderMap::new();
        let deadline = crate::fake::PATIENCE;
        edge.client
            .json::<_, Option<()>>(Method::PUT, &edge.address, "/v1/regime", headers, Some(&body), deadline)
            .await
            .unwrap();
        assert_eq!(edge.status().await.epoch, expected);
    }
    edge.stop().await;
}

#[tokio::test]
async fn no_request_fails_through_a_planned_switchover() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        // Waiting for a switchover costs no retry.
        config.retries.burst = 0.0;
    })
    .await;
    edge.regions[0].otherwise(Reply::Problem(ErrorCode::Switching));
    let writes = join_all((0..40).map(|_| edge.put("region-1")));
    let flip = async {
        edge.regions[0].saw(40).await;
        edge.until("all wait", |status| status.holding == 40).await;
        edge.regions[0].otherwise(Reply::Problem(ErrorCode::NotPrimary));
        edge.adopt(&regime(2, Mode::ActivePassive, Some(2)));
    };
    let (answers, ()) = tokio::join!(writes, flip);
    for answer in answers {
        assert_eq!((answer.status(), answer.region()), (200, "region-2"), "{answer:?}");
        assert!(answer.header(ATTEMPTS).parse::<u32>().unwrap() > 1);
    }
    assert_eq!(edge.regions[1].seen().len(), 40, "each write exactly once");
    edge.stop().await;
}

#[tokio::test]
async fn a_hold_ends_with_the_deadline_and_the_reason() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    edge.regions[0].otherwise(Reply::Problem(ErrorCode::NoLease));
    let answer = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "250")]).await;
    assert_eq!((answer.status(), answer.code()), (503, ErrorCode::NoLease));
    assert!(!answer.problem().outcome_unknown, "the region said that nothing was accepted");
    edge.stop().await;
}

#[tokio::test]
async fn a_write_at_a_primary_that_falls_silent_is_finished_at_the_next_one() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    edge.regions[0].otherwise(Reply::Gate);
    let failover = async {
        edge.regions[0].saw(1).await;
        edge.regions[0].fail_polls();
        edge.until("it is seen to be ill", |status| !status.regions[0].healthy).await;
        for region in &edge.regions[1..] {
            region.adopt(regime(2, Mode::ActivePassive, Some(3)));
        }
    };
    let (answer, ()) = tokio::join!(edge.put("region-1"), failover);
    assert_eq!((answer.status(), answer.region()), (200, "region-3"));
    assert_eq!(edge.regions[0].seen()[0].key(), edge.regions[2].seen()[0].key(), "one operation, one id");
    assert_eq!(edge.counter("abandoned").await, 1);
    edge.stop().await;
}

#[tokio::test]
async fn control_tells_the_regime_that_regions_do_not() {
    let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.address().unwrap().to_string(), CancellationToken::new());
    let known = || async { Json(regime(7, Mode::ActivePassive, Some(2))) };
    let tasks = TaskTracker::new();
    tasks.spawn(serve(listener, Router::new().route(KNOWN_REGIME_PATH, get(known)), stop.clone()));
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| config.control = Some(address)).await;
    edge.until("it knows what control knows", |status| status.epoch == 7).await;
    edge.stop().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_dead_control_stops_nothing() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        config.control = Some("127.0.0.1:1".to_owned());
    })
    .await;
    assert_eq!(edge.put("region-1").await.status(), 200);
    edge.adopt(&regime(2, Mode::ActivePassive, Some(2)));
    edge.until("it follows", |status| status.epoch == 2).await;
    assert_eq!(edge.put("region-1").await.region(), "region-2");
    edge.stop().await;
}
