//! What keeps trouble from spreading: budget, breaker, hedge, shedding.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::Mode;
use longhaul_gateway::breaker::{FAILURES_IN_A_ROW, OPEN_MIN};
use longhaul_gateway::config::{Hedging, Retries};
use longhaul_http::wire::gateway::{BreakerState, DEADLINE_MS};
use longhaul_http::wire::records::ATTEMPTS;
use tokio::time::Instant;

use crate::fake::{Edge, Reply, StallingNet, regime};

#[tokio::test]
async fn retries_end_with_the_budget() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        config.retries = Retries { burst: 2.0, per_request: 0.0 };
    })
    .await;
    edge.regions[0].otherwise(Reply::Problem(ErrorCode::NotReady));
    let first = edge.put("region-1").await;
    assert_eq!((first.code(), first.header(ATTEMPTS)), (ErrorCode::NotReady, "3"));
    let second = edge.put("region-1").await;
    assert_eq!((second.code(), second.header(ATTEMPTS)), (ErrorCode::NotReady, "1"), "the budget is empty");
    assert_eq!((edge.counter("retries").await, edge.counter("retries_denied").await), (2, 2));
    edge.stop().await;
}

#[tokio::test]
async fn a_breaker_opens_after_failures_and_one_trial_closes_it() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        config.retries = Retries { burst: 0.0, per_request: 0.0 };
    })
    .await;
    edge.regions[0].otherwise(Reply::Break);
    for _ in 0..FAILURES_IN_A_ROW {
        edge.until("it is asked again", |status| status.regions[0].healthy).await;
        assert_eq!(edge.put("region-1").await.code(), ErrorCode::UpstreamBroken);
    }
    let open = edge.status().await;
    let opened = Instant::now();
    assert_eq!(open.regions[0].breaker, BreakerState::Open);
    let refused = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "50")]).await;
    assert_eq!(refused.code(), ErrorCode::NoRegion);
    assert_eq!(edge.regions[0].seen().len() as u32, FAILURES_IN_A_ROW, "nothing is sent through an open breaker");

    edge.until("it is half open", |status| status.regions[0].breaker == BreakerState::HalfOpen).await;
    assert!(opened.elapsed() + Duration::from_millis(100) >= OPEN_MIN);
    edge.regions[0].otherwise(Reply::Ok);
    assert_eq!(edge.put("region-1").await.status(), 200);
    assert_eq!(edge.status().await.regions[0].breaker, BreakerState::Closed);
    edge.stop().await;
}

#[tokio::test]
async fn users_whose_time_is_up_before_a_connection_is_open_say_nothing_about_the_region() {
    let net = Arc::new(StallingNet::default());
    let edge = Edge::start_over(net.clone(), regime(1, Mode::ActivePassive, Some(1)), |config| {
        config.retries = Retries { burst: 0.0, per_request: 0.0 };
    })
    .await;
    edge.regions[0].otherwise(Reply::Gate);
    let patient = edge.put("region-1");
    let hurried = async {
        edge.regions[0].saw(1).await;
        net.stall(true);
        let short = [(DEADLINE_MS, "50")];
        let answers = join_all((0..8).map(|_| edge.ask(Method::PUT, "region-1", &short))).await;
        net.stall(false);
        edge.regions[0].open_gate();
        answers
    };
    let (patient, hurried) = tokio::join!(patient, hurried);
    let unconnected = hurried.iter().filter(|answer| answer.code() == ErrorCode::NoRegion).count();
    assert!(unconnected >= 5, "only {unconnected} of 8 wanted a connection");
    assert_eq!(patient.status(), 200, "the region was taken for dead");
    assert_eq!(edge.status().await.regions[0].breaker, BreakerState::Closed);
    edge.stop().await;
}

#[tokio::test]
async fn a_read_that_takes_unusually_long_is_answered_by_a_second_region() {
    let edge = Edge::start_with(regime(1, Mode::ActiveActive, None), |config| {
        config.hedging = Hedging { enabled: true, floor_ms: 20 };
    })
    .await;
    for _ in 0..24 {
        assert_eq!(edge.get("region-1").await.region(), "region-1");
    }
    edge.regions[0].script([Reply::Gate]);
    let answer = edge.get("region-1").await;
    assert_eq!((answer.status(), answer.region(), answer.header(ATTEMPTS)), (200, "region-2", "2"));
    assert_eq!((edge.counter("hedges").await, edge.counter("hedge_wins").await), (1, 1));

    edge.regions[0].script([Reply::Gate]);
    let write = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "200")]).await;
    assert_eq!(write.code(), ErrorCode::UpstreamTimeout, "a write is never hedged");
    assert_eq!(edge.regions[1].seen().len(), 1);
    edge.stop().await;
}

#[tokio::test]
async fn more_than_a_region_copes_with_is_refused_at_once_as_not_accepted() {
    const LIMIT: usize = 32;
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        config.concurrency = LIMIT as u32;
        config.retries = Retries { burst: 0.0, per_request: 0.0 };
    })
    .await;
    edge.regions[0].otherwise(Reply::Gate);
    let accepted = join_all((0..LIMIT).map(|_| edge.put("region-1")));
    let beyond = async {
        edge.regions[0].saw(LIMIT).await;
        let refused = edge.put("region-1").await;
        edge.regions[0].open_gate();
        refused
    };
    let (accepted, refused) = tokio::join!(accepted, beyond);
    assert_eq!((refused.status(), refused.code()), (429, ErrorCode::Overloaded));
    assert!(!refused.problem().outcome_unknown);
    assert!(accepted.iter().all(|answer| answer.status() == 200));
    assert_eq!(edge.counter("shed").await, 1);
    edge.stop().await;
}
