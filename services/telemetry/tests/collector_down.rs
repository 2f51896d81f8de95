//! A collector that is down costs a warning and a counted loss, and does not hold up the end of the process.

use std::time::Duration;

use longhaul_telemetry::{FLUSH_DEADLINE, Otlp, TelemetryConfig, init, tallies};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_is_a_counted_loss() {
    // Bound and dropped: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = TelemetryConfig {
        otlp: Otlp::read(Some(&format!("http://{address}")), |_| None).unwrap(),
        ..TelemetryConfig::default()
    };
    let guard = tokio::task::spawn_blocking(move || init(&config)).await.unwrap().unwrap();
    for _ in 0..10 {
        tracing::debug_span!(target: "longhaul_region", "region.commit").in_scope(|| ());
    }
    let began = Instant::now();
    guard.shutdown().await;
    // Spans and the last push of metrics each have their deadline.
    assert!(began.elapsed() < 2 * FLUSH_DEADLINE + Duration::from_secs(1), "{:?}", began.elapsed());
    let (way, tally) = &tallies()[0];
    assert_eq!((*way, tally.spans(), tally.exported()), ("otlp", 10, 0));
    assert_eq!(tally.failed() + tally.outstanding(), 10);
}
