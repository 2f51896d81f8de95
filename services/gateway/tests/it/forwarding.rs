//! Which region is asked, what passes, and what happens when it does not answer.

use std::time::Duration;

use http::Method;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::Mode;
use longhaul_http::trace;
use longhaul_http::wire::gateway::DEADLINE_MS;
use longhaul_http::wire::records::{ATTEMPTS, CONSISTENCY, IDEMPOTENCY_KEY};
use tokio::time::Instant;

use crate::fake::{Edge, Reply, regime};

const KEY: &str = "0191d3a0-0000-7000-8000-000000000001";

#[tokio::test]
async fn active_passive_writes_at_the_primary_and_reads_at_the_nearest_region() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(3))).await;
    let written = edge.put("region-2").await;
    assert_eq!((written.status(), written.region(), written.header(ATTEMPTS)), (200, "region-3", "1"));
    assert_eq!(edge.get("region-2").await.region(), "region-1");
    let primary = edge.ask(Method::GET, "region-2", &[(CONSISTENCY, "primary")]).await;
    assert_eq!(primary.region(), "region-3");
    edge.stop().await;
}

#[tokio::test]
async fn active_active_serves_everything_at_the_nearest_region() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    assert_eq!(edge.put("region-3").await.region(), "region-1");
    assert_eq!(edge.get("region-3").await.region(), "region-1");
    edge.stop().await;
}

#[tokio::test]
async fn isolation_answers_wrong_home_itself_and_asks_nobody() {
    let edge = Edge::start(regime(1, Mode::RegionalIsolation, None)).await;
    let refused = edge.put("region-2").await;
    assert_eq!((refused.status(), refused.code()), (421, ErrorCode::WrongHome));
    assert_eq!(refused.problem().home.as_deref(), Some("region-2"));
    assert_eq!(edge.put("region-1").await.region(), "region-1");
    for region in &edge.regions[1..] {
        assert!(region.seen().is_empty(), "nothing of a record crosses a border");
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_unknown_home_and_a_malformed_header_are_refused_without_asking() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    assert_eq!(edge.put("atlantis").await.code(), ErrorCode::UnknownHome);
    assert_eq!(edge.ask(Method::GET, "region-1", &[(CONSISTENCY, "strong")]).await.code(), ErrorCode::BadRequest);
    assert_eq!(edge.ask(Method::GET, "region-1", &[(DEADLINE_MS, "soon")]).await.code(), ErrorCode::BadRequest);
    assert!(edge.regions.iter().all(|region| region.seen().is_empty()));
    edge.stop().await;
}

#[tokio::test]
async fn headers_trace_and_body_pass_through() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    let user = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [(IDEMPOTENCY_KEY, KEY), ("if-match", "\"v\""), (trace::TRACEPARENT, user)];
    let answer = edge.ask(Method::DELETE, "region-1", &headers).await;
    let seen = &edge.regions[0].saw(1).await[0];
    assert_eq!(
        (seen.key().as_str(), &seen.headers["if-match"], &seen.method),
        (KEY, &"\"v\"".parse().unwrap(), &Method::DELETE)
    );
    let at_region = trace::extract(&seen.headers).unwrap();
    assert_eq!(trace::trace_id_text(at_region), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace::parse(answer.header(trace::TRACEPARENT)).unwrap().trace_id, at_region.trace_id);
    assert_eq!(&answer.0.body()[..], b"{}");
    edge.stop().await;
}

#[tokio::test]
async fn a_session_that_the_nearest_region_has_not_caught_up_with_is_served_by_the_primary() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(3))).await;
    edge.regions[0].script([Reply::Problem(ErrorCode::NotCaughtUp)]);
    let answer = edge.ask(Method::GET, "region-1", &[(CONSISTENCY, "session")]).await;
    assert_eq!((answer.region(), answer.header(ATTEMPTS)), ("region-3", "2"));
    edge.stop().await;
}

#[tokio::test]
async fn a_read_that_a_region_cannot_serve_is_served_by_the_next() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(3))).await;
    for reply in [Reply::Break, Reply::Problem(ErrorCode::NotReady), Reply::Problem(ErrorCode::Overloaded)] {
        edge.regions[0].script([reply]);
        let answer = edge.get("region-1").await;
        assert_eq!((answer.status(), answer.region()), (200, "region-2"), "{reply:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_definite_answer_is_passed_on_as_it_is() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    for code in [ErrorCode::NotFound, ErrorCode::PreconditionFailed, ErrorCode::KeyReused, ErrorCode::HistoryTruncated]
    {
        edge.regions[0].script([Reply::Problem(code)]);
        let answer = edge.put("region-1").await;
        assert_eq!((answer.code(), answer.status(), answer.header(ATTEMPTS)), (code, code.status(), "1"));
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_broken_write_is_sent_again_under_the_same_id() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    edge.regions[0].script([Reply::Break, Reply::Ok]);
    let answer = edge.put("region-1").await;
    assert_eq!((answer.status(), answer.header(ATTEMPTS)), (200, "2"));
    let seen = edge.regions[0].saw(2).await;
    assert_eq!(seen[0].key(), seen[1].key());
    edge.stop().await;
}

#[tokio::test]
async fn an_unknown_write_never_becomes_a_failure() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    for later in [ErrorCode::PreconditionFailed, ErrorCode::WrongHome, ErrorCode::NotFound, ErrorCode::Conflict] {
        edge.regions[0].script([Reply::Break, Reply::Problem(later)]);
        let answer = edge.put("region-1").await;
        assert_eq!(answer.code(), ErrorCode::UpstreamBroken, "after {later:?}");
        assert!(answer.problem().outcome_unknown);
    }
    // What is wrong with the request itself was wrong the first time, too.
    edge.regions[0].script([Reply::Break, Reply::Problem(ErrorCode::BadJson)]);
    assert_eq!(edge.put("region-1").await.code(), ErrorCode::BadJson);
    assert_eq!(edge.counter("unknown").await, 4);
    edge.stop().await;
}

#[tokio::test]
async fn an_unknown_write_of_active_active_stays_in_its_region() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    edge.regions[0].otherwise(Reply::Break);
    let answer = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "400"), (IDEMPOTENCY_KEY, KEY)]).await;
    assert_eq!(answer.code(), ErrorCode::UpstreamBroken);
    assert!(answer.problem().outcome_unknown);
    assert!(edge.regions[1..].iter().all(|region| region.seen().is_empty()), "a second region means a second write");
    edge.stop().await;
}

#[tokio::test]
async fn a_definitely_refused_write_of_active_active_may_go_to_another_region() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    edge.regions[0].script([Reply::Problem(ErrorCode::NotReady)]);
    assert_eq!(edge.put("region-1").await.region(), "region-2");
    edge.stop().await;
}

#[tokio::test]
async fn the_deadline_ends_a_write_as_unknown_and_a_read_as_known() {
    let edge = Edge::start(regime(1, Mode::ActivePassive, Some(1))).await;
    for region in &edge.regions {
        region.otherwise(Reply::Gate);
    }
    let start = Instant::now();
    let write = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "200")]).await;
    assert_eq!((write.code(), write.problem().outcome_unknown), (ErrorCode::UpstreamTimeout, true));
    let read = edge.ask(Method::GET, "region-1", &[(DEADLINE_MS, "200")]).await;
    assert_eq!((read.status(), read.problem().outcome_unknown), (504, false), "a read has no effect to be unknown");
    assert!(start.elapsed() < Duration::from_secs(2), "the user's deadline, not the gateway's own");
    edge.stop().await;
}

#[tokio::test]
async fn a_write_that_was_never_sent_is_a_definite_failure() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(1)), |config| {
        // Nobody listens there.
        config.regions[0].addresses = vec!["127.0.0.1:1".to_owned()];
    })
    .await;
    let answer = edge.ask(Method::PUT, "region-1", &[(DEADLINE_MS, "300")]).await;
    assert_eq!((answer.status(), answer.code()), (503, ErrorCode::NoRegion));
    assert!(!answer.problem().outcome_unknown);
    edge.stop().await;
}
