//! What the gateway shows: health, metrics, resolving, its document, and who may see what.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{Mode, Regime};
use longhaul_gateway::config::Steering;
use longhaul_http::client::CallError;
use longhaul_http::wire::gateway::{GATEWAY_PATH, GatewayStatus, RESOLVE_PATH, Resolved};
use longhaul_http::wire::probe::PROBE_PATH;

use crate::fake::{Edge, PATIENCE, regime};

async fn text(edge: &Edge, path: &str) -> (u16, String) {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().unwrap();
    let answer = edge.client.send(&edge.address, request, PATIENCE).await.unwrap();
    (answer.status().as_u16(), String::from_utf8(answer.into_body().to_vec()).unwrap())
}

#[tokio::test]
async fn health_regime_and_probe_are_there() {
    let edge = Edge::start(regime(3, Mode::ActiveActive, None)).await;
    assert_eq!(text(&edge, "/healthz").await.0, 200);
    assert_eq!(text(&edge, "/readyz").await.0, 200);
    assert_eq!(text(&edge, PROBE_PATH).await.0, 204);
    let told: Regime = edge.client.get(&edge.address, "/v1/regime", PATIENCE).await.unwrap();
    assert_eq!(told, regime(3, Mode::ActiveActive, None));
    edge.stop().await;
}

#[tokio::test]
async fn metrics_count_and_never_name_a_record() {
    let edge = Edge::start(regime(1, Mode::ActiveActive, None)).await;
    assert_eq!(edge.put("region-1").await.status(), 200);
    let (status, metrics) = text(&edge, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("longhaul_gateway_served_total{edge=\"london\"} 1\n"), "{metrics}");
    assert!(metrics.contains("longhaul_gateway_region_healthy{edge=\"london\",region=\"region-2\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("secret-id"));
    edge.stop().await;
}

#[tokio::test]
async fn resolving_names_the_region_to_dial_and_for_how_long() {
    let edge = Edge::start_with(regime(1, Mode::ActivePassive, Some(3)), |config| {
        config.steering = Steering::Geodns { ttl_ms: 30_000 };
    })
    .await;
    let resolve = async |query: &str| {
        let path = format!("{RESOLVE_PATH}?{query}");
        edge.client.get::<Resolved>(&edge.address, &path, PATIENCE).await
    };
    let writer = resolve("home=region-2").await.unwrap();
    assert_eq!((writer.region.as_str(), writer.ttl_ms, writer.epoch), ("region-3", 30_000, 1));
    assert_eq!(writer.addresses, [edge.regions[2].address.clone()]);
    assert_eq!(resolve("home=region-2&access=read").await.unwrap().region, "region-1");
    edge.adopt(&regime(2, Mode::RegionalIsolation, None));
    edge.until("it follows", |status| status.epoch == 2).await;
    let Err(CallError::Problem { problem, .. }) = resolve("home=region-2").await else {
        panic!("a border is no place to send a user across")
    };
    assert_eq!((problem.code, problem.home.as_deref()), (ErrorCode::WrongHome, Some("region-2")));
    edge.stop().await;
}

#[tokio::test]
async fn internal_endpoints_need_the_token_and_records_do_not() {
    let edge = Edge::start_with(regime(1, Mode::ActiveActive, None), |config| {
        config.token = Some(crate::fake::TOKEN.to_owned());
    })
    .await;
    let Err(CallError::Problem { problem, .. }) =
        edge.client.get::<GatewayStatus>(&edge.address, GATEWAY_PATH, PATIENCE).await
    else {
        panic!("the status was told without the token")
    };
    assert_eq!(problem.code, ErrorCode::Unauthorized);
    let pushed = edge
        .client
        .json::<_, Option<()>>(
            Method::PUT,
            &edge.address,
            "/v1/regime",
            HeaderMap::new(),
            Some(&regime(9, Mode::ActiveActive, None)),
            PATIENCE,
        )
        .await;
    assert!(pushed.is_err());
    assert_eq!(edge.status().await.epoch, 1);
    assert_eq!(edge.put("region-1").await.status(), 200);
    edge.stop().await;
}

#[test]
fn the_document_names_every_path() {
    let document = serde_json::to_value(longhaul_gateway::openapi()).unwrap();
    let operations = [
        ("/v1/records/{home}/{id}", "put"),
        ("/v1/records/{home}/{id}", "get"),
        ("/v1/records/{home}/{id}", "delete"),
        ("/v1/resolve", "get"),
        ("/v1/regime", "get"),
        ("/v1/regime", "put"),
        (GATEWAY_PATH, "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    ];
    for (path, method) in operations {
        assert!(document["paths"][path][method].is_object(), "{method} {path} is missing");
    }
}
