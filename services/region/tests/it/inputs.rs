use http::Method;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::VALUE_BYTES_MAX;

use crate::world::World;

type Row<'a> = (&'a Method, &'a str, Vec<(&'a str, &'a str)>, &'a str, ErrorCode);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_their_code_and_change_nothing() {
    let world = World::active_active().await;
    let good = "/v1/records/eu-west/x";
    let long = format!("/v1/records/eu-west/{}", "x".repeat(129));
    let large = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
    // Within what a region still reads: beyond it, it hangs up on whoever goes on sending.
    let huge = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX * 32));
    let put = Method::PUT;
    let table: Vec<Row<'_>> = vec![
        (&put, good, vec![], "{", ErrorCode::BadJson),
        (&put, good, vec![], "", ErrorCode::BadJson),
        (&put, good, vec![], "1 2", ErrorCode::BadJson),
        (&put, good, vec![], &large, ErrorCode::TooLarge),
        (&put, good, vec![], &huge, ErrorCode::TooLarge),
        (&put, "/v1/records/nowhere/x", vec![], "1", ErrorCode::UnknownHome),
        (&put, &long, vec![], "1", ErrorCode::BadRequest),
        (&put, "/v1/records/eu-west/a%20b", vec![], "1", ErrorCode::BadRequest),
        (&put, good, vec![("idempotency-key", "7")], "1", ErrorCode::BadRequest),
        (&put, good, vec![("if-match", "7")], "1", ErrorCode::BadRequest),
        (&put, good, vec![("if-match", "\"zz\"")], "1", ErrorCode::BadRequest),
        (&put, good, vec![("if-none-match", "\"7\"")], "1", ErrorCode::BadRequest),
        (&put, good, vec![("if-match", "*"), ("if-none-match", "*")], "1", ErrorCode::BadRequest),
        (&put, good, vec![("longhaul-session", "forged")], "1", ErrorCode::BadToken),
        (&Method::GET, good, vec![("longhaul-consistency", "strong")], "", ErrorCode::BadRequest),
        (&Method::GET, good, vec![("longhaul-session", "AAAA")], "", ErrorCode::BadToken),
        (&Method::GET, good, vec![], "", ErrorCode::NotFound),
        (&Method::GET, "/nothing/here", vec![], "", ErrorCode::NotFound),
        (&Method::POST, good, vec![], "1", ErrorCode::BadRequest),
        (&Method::GET, "/internal/v1/conflicts?limit=many", vec![], "", ErrorCode::BadRequest),
        (
            &Method::POST,
            "/internal/v1/quarantine/decide",
            vec![("content-type", "application/json")],
            "{\"decision\":\"maybe\"}",
            ErrorCode::BadRequest,
        ),
        (&Method::GET, "/internal/v1/replicate", vec![], "", ErrorCode::BadRequest),
    ];
    for (method, path, headers, body, code) in table {
        let answer = world.send(0, method.clone(), path, &headers, body.to_owned()).await;
        let problem = answer.problem();
        assert_eq!(problem.code, code, "{method} {path} {headers:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        assert!(!problem.outcome_unknown, "{method} {path}");
    }
    assert_eq!(world.status(0).await.unwrap().records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_carries_the_trace_of_its_request() {
    let world = World::active_active().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = world.put(0, "/v1/records/eu-west/traced", &[("traceparent", parent)], "1").await.ok();
    assert!(answer.header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    let refused = world.put(0, "/v1/records/nowhere/x", &[("traceparent", parent)], "1").await;
    assert_eq!(refused.problem().trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
}
