//! Spans over gRPC: a burst just before the end of the process arrives whole.

mod sink;

use longhaul_http::trace::{Text, TraceIds};
use longhaul_telemetry::{Endpoint, Otlp, Protocol, TelemetryConfig, init};
use sink::Sink;

/// Fewer than may wait, more than one export carries.
const BURST: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_before_the_end_is_exported_whole_over_grpc() {
    let sink = Sink::default();
    let url = sink.start().await;
    let config = TelemetryConfig {
        service_name: "longhaul-region".to_owned(),
        otlp: Otlp { traces: Some(Endpoint { url, protocol: Protocol::Grpc }), ..Otlp::default() },
        ..TelemetryConfig::default()
    };
    let guard = tokio::task::spawn_blocking(move || init(&config)).await.unwrap().unwrap();
    let ids = TraceIds::new(7);
    let root = ids.root();
    for _ in 0..BURST {
        tracing::debug_span!(
            target: "longhaul_region",
            "region.commit",
            longhaul.context = %Text(ids.child(root)),
            longhaul.parent = %Text(root),
        );
    }
    guard.shutdown().await;
    let spans = sink.spans();
    assert_eq!(spans.len(), BURST);
    assert!(spans.iter().all(|(_, span)| span.parent_span_id == root.span_id && span.trace_id == root.trace_id));
}
