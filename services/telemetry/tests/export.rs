//! One process, one subscriber: spans reach an OTLP endpoint over HTTP with the ids, times, links and outcome that their
//! fields say.

mod sink;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longhaul_telemetry::{InitError, Otlp, SpanFile, TelemetryConfig, init};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use sink::{Sink, bytes};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-00000000000000a1-01";
const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-00000000000000b2-01";
const ELSEWHERE: &str = "00-11111111111111111111111111111111-00000000000000c3-01";

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_exported_as_their_fields_say_before_the_process_ends() {
    let sink = Sink::default();
    let base = sink.start().await;
    let folder = tempfile::tempdir().unwrap();
    let boot = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let config = TelemetryConfig {
        service_name: "longhaul-gateway".to_owned(),
        role: "gateway".to_owned(),
        otlp: Otlp::read(Some(&base), |_| None).unwrap(),
        span_file: Some(SpanFile::at(folder.path().join("gateway.jsonl"))),
        boot,
        ..TelemetryConfig::default()
    };
    let otlp = Otlp { metrics: None, ..config.otlp.clone() };
    let config = TelemetryConfig { otlp, ..config };
    let guard = tokio::task::spawn_blocking(move || init(&config)).await.unwrap().unwrap();
    let again = TelemetryConfig::default();
    let again = tokio::task::spawn_blocking(move || init(&again)).await.unwrap();
    assert!(matches!(again, Err(InitError::Twice)));

    let server = tracing::debug_span!(
        target: "longhaul_http",
        "http.server",
        otel.name = "PUT /v1",
        otel.kind = "server",
        longhaul.context = OWN,
        longhaul.parent = REMOTE,
        http.response.status_code = tracing::field::Empty,
    );
    server.in_scope(|| {
        tracing::debug_span!(target: "longhaul_gateway", "gateway.request", longhaul.home = "eu-west").in_scope(|| {
            tracing::info!(target: "longhaul_gateway", region = "eu-west", "suspected");
        });
        // Of another trace: no child of the one around it.
        tracing::debug_span!(target: "longhaul_region", "replication.batch", longhaul.context = ELSEWHERE)
            .in_scope(|| ());
    });
    server.record("http.response.status_code", 503_u16);
    drop(server);
    tracing::debug_span!(
        target: "longhaul_region",
        "region.commit",
        longhaul.context = "00-0af7651916cd43dd8448eb211c80319c-00000000000000d4-01",
        longhaul.parent = OWN,
        longhaul.links = format!("{ELSEWHERE},nonsense,{REMOTE}"),
        longhaul.from_ns = 5_000_000_000_u64,
        longhaul.to_ns = 5_250_000_000_u64,
    );
    tracing::debug_span!(
        target: "longhaul_region",
        "late",
        longhaul.context = "00-0af7651916cd43dd8448eb211c80319c-00000000000000e5-01",
        longhaul.lasted_ns = 2_000_000_000_u64,
    );
    let not_kept = OWN.replace("-01", "-00");
    tracing::debug_span!(target: "longhaul_region", "not.kept", longhaul.context = not_kept);
    tracing::debug_span!(target: "hyper_util", "foreign.span").in_scope(|| ());
    guard.shutdown().await;

    let server = sink.one("PUT /v1");
    assert_eq!((server.trace_id.clone(), server.span_id.clone()), (bytes(TRACE), bytes("00000000000000a1")));
    assert_eq!(server.parent_span_id, bytes("00000000000000b2"));
    assert_eq!(server.kind(), SpanKind::Server);
    assert_eq!(server.status.as_ref().unwrap().code(), StatusCode::Error, "a server's 503 is an error");
    assert_eq!(
        server.attributes.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(),
        ["http.response.status_code"]
    );

    let request = sink.one("gateway.request");
    assert_eq!((&request.trace_id, &request.parent_span_id), (&server.trace_id, &server.span_id));
    assert_eq!(request.events[0].name, "suspected");
    assert!(sink.one("replication.batch").parent_span_id.is_empty());

    let commit = sink.one("region.commit");
    assert_eq!(commit.parent_span_id, server.span_id);
    let at = |seconds: f64| boot.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 + (seconds * 1e9) as u64;
    assert_eq!((commit.start_time_unix_nano, commit.end_time_unix_nano), (at(5.0), at(5.25)));
    let links: Vec<_> = commit.links.iter().map(|link| link.span_id.clone()).collect();
    assert_eq!(links, [bytes("00000000000000c3"), bytes("00000000000000b2")]);
    let late = sink.one("late");
    assert_eq!(late.end_time_unix_nano - late.start_time_unix_nano, 2_000_000_000);
    #[expect(clippy::disallowed_methods, reason = "compared with the exporter's own clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(late.end_time_unix_nano <= now);

    let names: Vec<_> = sink.spans().into_iter().map(|(service, span)| (service, span.name)).collect();
    assert_eq!(names.len(), 5, "what is not kept and what libraries make is not exported: {names:?}");
    assert!(names.iter().all(|(service, _)| service == "longhaul-gateway"));
    for (way, tally) in longhaul_telemetry::tallies() {
        assert_eq!((tally.spans(), tally.exported(), tally.failed()), (5, 5, 0), "{way}");
    }

    // The file beside it has the same spans.
    let archive = longhaul_telemetry::archive::Archive::open(folder.path());
    let spans = archive.traces(&[TRACE.to_owned()].into()).unwrap();
    assert_eq!(spans.len(), 4);
    let read = spans.iter().find(|span| span.name == "region.commit").unwrap();
    assert_eq!((read.start_ns, read.end_ns), (at(5.0), at(5.25)));
    assert_eq!((read.parent_id.as_deref(), read.links.len()), (Some("00000000000000a1"), 2));
    let copy = folder.path().join("copy.jsonl");
    archive.extract(&["11111111111111111111111111111111".to_owned()].into(), &copy).unwrap();
    assert_eq!(std::fs::read_to_string(&copy).unwrap().matches("replication.batch").count(), 1);
    assert!(!std::fs::read_to_string(&copy).unwrap().contains("region.commit"));
}
