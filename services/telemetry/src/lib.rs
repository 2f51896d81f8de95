//! Telemetry: one subscriber per process. Logs go to standard error; spans and metrics go where the standard `OTEL_*`
//! variables say, and spans to a file if there is one. Without an endpoint nothing is connected to.
//!
//! **Invariant: nothing else knows about exporters.** The services make `tracing` spans with the names and attributes in
//! [`names`], say in a span's fields which trace context it has, and publish metrics through `longhaul_http::metrics`.
//! From here on it is `tracing-opentelemetry` that makes OpenTelemetry spans of them:
//!
//! ```text
//! tracing span ─► tracing-opentelemetry ─► tracer (ids from the fields) ─► SDK ─► finish (links, times, status)
//!                                                                                   ├─► batches ─► OTLP, gRPC or HTTP
//!                                                                                   └─► batches ─► file of JSON lines
//! ```

pub mod archive;
mod config;
mod context;
mod file;
mod finish;
mod logs;
mod loss;
pub mod names;
mod otlp;
mod tracer;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanExporter};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use config::{Endpoint, LogFormat, METRIC_INTERVAL, Otlp, Protocol, TelemetryConfig};
pub use file::{SPAN_FILE_BYTES_MAX, SpanFile};
pub use loss::{Tally, tallies};

use crate::finish::{Finish, Way};
use crate::logs::Lines;
use crate::loss::Counted;
use crate::names::attribute;
use crate::tracer::{GivenIds, GivenTracer};

/// The log filter if none is given.
pub const FILTER_DEFAULT: &str = "warn,longhaul=info";
/// Most finished spans that wait for their export; more are dropped, and counted.
pub const SPANS_WAITING_MAX: usize = 32_768;
/// Most spans of one export.
pub const SPANS_EXPORTED_MAX: usize = 1024;
/// How often finished spans are exported.
pub const EXPORT_INTERVAL: Duration = Duration::from_millis(500);
/// How long the end of a process waits for the last export.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is malformed.
    #[error("log filter {filter:?} cannot be read: {reason}; write it like {FILTER_DEFAULT:?}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The endpoint is malformed.
    #[error("nothing can be exported to {endpoint}: {reason}; give an address like http://127.0.0.1:4318")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is one already.
    #[error("telemetry is set up already: set it up once per process, before anything else")]
    Twice,
}

/// What must happen at the end of the process.
#[derive(Debug)]
#[must_use = "without a shutdown the last spans are lost"]
pub struct Guard {
    spans: Option<SdkTracerProvider>,
    metrics: Option<otlp::MetricPush>,
}

impl Guard {
    /// Whether spans go anywhere.
    pub const fn records(&self) -> bool {
        self.spans.is_some()
    }

    /// Exports before the end, from anywhere in the process; `None` if spans go nowhere.
    pub fn flusher(&self) -> Option<Flusher> {
        self.spans.clone().map(Flusher)
    }

    /// Exports what is left, within [`FLUSH_DEADLINE`], on a thread of its own: the runtime's threads may be what the
    /// export needs. What was lost is told in one line.
    pub async fn shutdown(self) {
        if let Some(push) = self.metrics {
            push.stop().await;
        }
        let Some(provider) = self.spans else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_DEADLINE)).await;
        if let Err(error) = flushed {
            tracing::warn!(%error, "the export of the last spans broke off");
        }
        for (way, tally) in tallies() {
            let lost = tally.failed() + tally.outstanding();
            if lost > 0 {
                tracing::warn!(way, lost, of = tally.spans(), "spans were lost");
            }
        }
    }
}

/// Exports what has ended so far.
#[derive(Debug, Clone)]
pub struct Flusher(SdkTracerProvider);

impl Flusher {
    /// Returns once it is exported, or the exporter gave up; on a thread of its own.
    pub async fn flush(&self) {
        let provider = self.0.clone();
        let flushed = tokio::task::spawn_blocking(move || provider.force_flush()).await;
        if let Ok(Err(error)) = flushed {
            tracing::debug!(%error, "spans could not be flushed");
        }
    }
}

/// Sets up logs, and, where they go somewhere, spans and metrics for the whole process. Must be called within a runtime
/// and on a thread that may block, such as one of `spawn_blocking`.
pub fn init(config: &TelemetryConfig) -> Result<Guard, InitError> {
    let filter = config.filter.as_deref().unwrap_or(FILTER_DEFAULT);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| InitError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let logs = fmt::layer().with_writer(std::io::stderr).event_format(Lines(config.format)).with_filter(filter);
    let spans = provider(config)?;
    let layer = spans.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(GivenTracer(provider.tracer("longhaul")))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            // Our own spans only, or exporting would be traced, too.
            .with_filter(Targets::new().with_target("longhaul", LevelFilter::DEBUG))
    });
    let metrics = config
        .otlp
        .metrics
        .as_ref()
        .map(|endpoint| {
            let interval = config.otlp.metric_interval.unwrap_or(METRIC_INTERVAL);
            otlp::MetricPush::start(endpoint, resource(config), interval)
        })
        .transpose()?;
    tracing_subscriber::registry().with(layer).with(logs).try_init().map_err(|_| InitError::Twice)?;
    Ok(Guard { spans, metrics })
}

fn provider(config: &TelemetryConfig) -> Result<Option<SdkTracerProvider>, InitError> {
    let mut ways = Vec::new();
    if let Some(endpoint) = &config.otlp.traces {
        ways.push(way(otlp::span_exporter(endpoint)?, "otlp", &endpoint.url));
    }
    if let Some(file) = &config.span_file {
        ways.push(way(file::FileExporter::new(file.clone(), SPAN_FILE_BYTES_MAX), "file", "the file of spans"));
    }
    if ways.is_empty() {
        return Ok(None);
    }
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(config))
        .with_id_generator(GivenIds::default())
        // Whether a trace is kept is decided where it begins (`longhaul_http::trace::policy`) and travels in its flags.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_span_processor(Finish { ways, boot: config.boot })
        .build();
    Ok(Some(provider))
}

fn way<E: SpanExporter + 'static>(exporter: E, name: &'static str, to: &str) -> Way {
    let (exporter, tally) = Counted::new(exporter, name, to);
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_WAITING_MAX)
        .with_max_export_batch_size(SPANS_EXPORTED_MAX)
        .with_scheduled_delay(EXPORT_INTERVAL)
        .build();
    Way { batches: BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(), tally }
}

fn resource(config: &TelemetryConfig) -> Resource {
    let instance = config.location.clone().unwrap_or_else(|| config.role.clone());
    let mut attributes: Vec<_> =
        config.otlp.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    attributes.extend([
        KeyValue::new("service.namespace", "longhaul"),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("deployment.environment.name", "testbed"),
        KeyValue::new(attribute::ROLE, config.role.clone()),
    ]);
    attributes.extend(config.location.clone().map(|location| KeyValue::new("cloud.region", location)));
    let name = config.otlp.service_name.clone().unwrap_or_else(|| config.service_name.clone());
    Resource::builder_empty().with_service_name(name).with_attributes(attributes).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_filter_is_refused_with_an_example() {
        let config = TelemetryConfig { filter: Some("longhaul=loud=1".to_owned()), ..TelemetryConfig::default() };
        let error = init(&config).unwrap_err().to_string();
        assert!(error.contains("longhaul=loud=1") && error.contains(FILTER_DEFAULT), "{error}");
    }

    #[test]
    fn a_malformed_endpoint_is_refused_with_an_example() {
        let endpoint = Endpoint { url: "not an address".to_owned(), protocol: Protocol::Http };
        let otlp = Otlp { traces: Some(endpoint), ..Otlp::default() };
        let error = init(&TelemetryConfig { otlp, ..TelemetryConfig::default() }).unwrap_err().to_string();
        assert!(error.contains("not an address") && error.contains("http://127.0.0.1:4318"), "{error}");
    }

    #[test]
    fn the_resource_names_the_location_as_its_region_and_takes_what_the_user_adds() {
        let config = TelemetryConfig {
            service_name: "longhaul-gateway".to_owned(),
            role: "gateway".to_owned(),
            location: Some("london".to_owned()),
            otlp: Otlp { resource: vec![("team".to_owned(), "edge".to_owned())], ..Otlp::default() },
            ..TelemetryConfig::default()
        };
        let resource = resource(&config);
        let get = |key: &'static str| resource.get(&opentelemetry::Key::new(key)).map(|value| value.to_string());
        assert_eq!(get("service.name").as_deref(), Some("longhaul-gateway"));
        assert_eq!(get("cloud.region").as_deref(), Some("london"));
        assert_eq!(get("longhaul.role").as_deref(), Some("gateway"));
        assert_eq!(get("team").as_deref(), Some("edge"));
    }
}
