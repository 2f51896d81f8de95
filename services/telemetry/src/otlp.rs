//! OTLP: spans through the SDK's exporter, metrics as a periodic push of what the process's sources tell.
//!
//! Metrics do not pass through the SDK: its instruments would have to be held by every service, and its data types
//! cannot be filled from outside. What the sources tell is turned into the protocol's own messages here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longhaul_http::metrics::{self, Counts, Family, Kind, Page, Point, Source, Value};
use longhaul_http::watch;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};

use crate::InitError;
use crate::config::{Endpoint, Protocol};

/// Deadline of one push.
const PUSH_DEADLINE: Duration = Duration::from_secs(3);

/// The SDK's exporter for spans.
pub(crate) fn span_exporter(endpoint: &Endpoint) -> Result<SpanExporter, InitError> {
    let refuse = |error: ExporterBuildError| refused(endpoint, &error.to_string());
    match endpoint.protocol {
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&endpoint.url)
            .build()
            .map_err(refuse),
        Protocol::Grpc => SpanExporter::builder().with_tonic().with_endpoint(&endpoint.url).build().map_err(refuse),
    }
}

fn refused(endpoint: &Endpoint, reason: &str) -> InitError {
    InitError::Endpoint { endpoint: endpoint.url.clone(), reason: reason.to_owned() }
}

/// What the exporters themselves tell: the loss of spans.
struct OwnFigures;

impl Source for OwnFigures {
    fn collect(&self, page: &mut Page) {
        for (way, tally) in crate::loss::tallies() {
            let labels = [("way", way)];
            page.counter("longhaul.telemetry.spans", "Spans that ended.", "{span}", &labels, tally.spans());
            page.counter("longhaul.telemetry.exported", "Spans exported.", "{span}", &labels, tally.exported());
            page.counter("longhaul.telemetry.failed", "Spans lost in exports.", "{span}", &labels, tally.failed());
        }
    }
}

/// The periodic push.
#[derive(Debug)]
pub(crate) struct MetricPush {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl MetricPush {
    /// Starts it, within a runtime.
    pub(crate) fn start(endpoint: &Endpoint, resource: Resource, interval: Duration) -> Result<Self, InitError> {
        let own = std::sync::Arc::new(OwnFigures);
        metrics::publish(&own);
        let out = Out::new(endpoint)?;
        let (stop, mut stopped) = watch::channel(false);
        let url = endpoint.url.clone();
        let started = now();
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and awaited at the end of the process")]
        let task = tokio::spawn(async move {
            let resource = resource_of(&resource);
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut told = false;
            loop {
                let last = tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stop| *stop) => true,
                    _ = tick.tick() => false,
                };
                let request = request(&metrics::collect(), resource.clone(), started, now());
                match tokio::time::timeout(PUSH_DEADLINE, out.send(request)).await {
                    Ok(Ok(())) => told = false,
                    failed => {
                        let reason = failed.map_or_else(
                            |_| "it did not answer in time".to_owned(),
                            |result| result.err().unwrap_or_default(),
                        );
                        if !told {
                            told = true;
                            tracing::warn!(reason, to = url, "metrics cannot be pushed");
                        }
                    }
                }
                if last {
                    // Published for as long as there is a push that tells it.
                    drop(own);
                    return;
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Pushes once more and ends.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the push of metrics broke off");
        }
    }
}

/// How a request leaves.
enum Out {
    Http { client: reqwest::Client, url: String },
    Grpc(MetricsServiceClient<Channel>),
}

impl Out {
    fn new(endpoint: &Endpoint) -> Result<Self, InitError> {
        match endpoint.protocol {
            Protocol::Http => {
                reqwest::Url::parse(&endpoint.url).map_err(|error| refused(endpoint, &error.to_string()))?;
                let client = reqwest::Client::builder()
                    .timeout(PUSH_DEADLINE)
                    .build()
                    .map_err(|error| refused(endpoint, &error.to_string()))?;
                Ok(Self::Http { client, url: endpoint.url.clone() })
            }
            Protocol::Grpc => {
                let channel = TonicEndpoint::from_shared(endpoint.url.clone())
                    .map_err(|error| refused(endpoint, &error.to_string()))?
                    .connect_timeout(PUSH_DEADLINE)
                    .connect_lazy();
                Ok(Self::Grpc(MetricsServiceClient::new(channel)))
            }
        }
    }

    async fn send(&self, request: ExportMetricsServiceRequest) -> Result<(), String> {
        match self {
            Self::Http { client, url } => {
                let sending = client
                    .post(url)
                    .header("content-type", "application/x-protobuf")
                    .body(request.encode_to_vec())
                    .send();
                let answer = sending.await.map_err(|error| longhaul_http::client::root_cause(&error))?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                let why = answer.text().await.unwrap_or_default();
                Err(format!("{status}: {}", why.lines().next().unwrap_or_default()))
            }
            Self::Grpc(client) => {
                let answer = client.clone().export(request).await;
                answer.map(|_| ()).map_err(|status| status.message().to_owned())
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "metrics are stamped by the host's clock, never by a skewed one")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn resource_of(resource: &Resource) -> ProtoResource {
    let attributes = ResourceAttributesWithSchema::from(resource).attributes.0;
    ProtoResource { attributes, ..ProtoResource::default() }
}

fn request(page: &Page, resource: ProtoResource, started: u64, now: u64) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: "longhaul".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = page.families().iter().map(|family| metric(family, started, now)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![proto::ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![proto::ScopeMetrics { scope: Some(scope), metrics, ..proto::ScopeMetrics::default() }],
            ..proto::ResourceMetrics::default()
        }],
    }
}

fn metric(family: &Family, started: u64, now: u64) -> proto::Metric {
    let cumulative = proto::AggregationTemporality::Cumulative as i32;
    let numbers = || family.points.iter().filter_map(|point| number(point, started, now)).collect();
    let data = match family.kind {
        Kind::Counter => proto::metric::Data::Sum(proto::Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge => proto::metric::Data::Gauge(proto::Gauge { data_points: numbers() }),
        Kind::Histogram => proto::metric::Data::Histogram(proto::Histogram {
            data_points: family.points.iter().filter_map(|point| distribution(point, started, now)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    proto::Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: family.unit.to_owned(),
        data: Some(data),
        ..proto::Metric::default()
    }
}

fn number(point: &Point, started: u64, now: u64) -> Option<proto::NumberDataPoint> {
    let Value::Number(value) = point.value else { return None };
    Some(proto::NumberDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(proto::number_data_point::Value::AsDouble(value)),
        ..proto::NumberDataPoint::default()
    })
}

fn distribution(point: &Point, started: u64, now: u64) -> Option<proto::HistogramDataPoint> {
    let Value::Counts(counts) = &point.value else { return None };
    let Counts { bounds, counts: buckets, sum } = counts;
    Some(proto::HistogramDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: counts.count(),
        sum: Some(*sum),
        bucket_counts: buckets.clone(),
        explicit_bounds: bounds.to_vec(),
        ..proto::HistogramDataPoint::default()
    })
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    let text = |value: &str| AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    let pair = |(name, value): &(&str, String)| KeyValue {
        key: (*name).to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    };
    point.labels.iter().map(pair).collect()
}
