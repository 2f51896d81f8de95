//! Telemetry: one subscriber per process. Logs go to standard error; spans go to an OTLP endpoint if there is one.
//!
//! **Invariant: nothing else knows about exporters.** The services make `tracing` spans with the names and attributes in
//! [`names`], and say in a span's fields which trace context it has.

mod context;
mod layer;
pub mod names;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanProcessor};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::layer::ExportLayer;
use crate::names::attribute;

/// The log filter if none is given.
pub const FILTER_DEFAULT: &str = "warn,longhaul=info";
/// Most finished spans that wait for their export; more are dropped.
pub const SPANS_WAITING_MAX: usize = 16_384;
/// How often finished spans are exported.
pub const EXPORT_INTERVAL: Duration = Duration::from_millis(500);
/// How long the end of a process waits for the last export.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("log format {text:?} is not one of human, json")),
        }
    }
}

/// What to set up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TelemetryConfig {
    /// The service's name in traces, for example `longhaul-region`.
    pub service_name: String,
    /// The role of the process.
    pub role: String,
    /// The location that it stands for, if it stands for one.
    pub location: Option<String>,
    /// How logs are written.
    pub format: LogFormat,
    /// Which logs: directives of `tracing`, such as [`FILTER_DEFAULT`].
    pub filter: Option<String>,
    /// Base address of an OTLP/HTTP endpoint, as in `OTEL_EXPORTER_OTLP_ENDPOINT`. Without one nothing is connected to.
    pub otlp_endpoint: Option<String>,
}

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
    #[error("no spans can be exported to {endpoint}: {reason}; give a base address like http://127.0.0.1:4318")]
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
    processor: Option<Arc<dyn SpanProcessor>>,
}

impl Guard {
    /// Exports what is left, within [`FLUSH_DEADLINE`], on a thread of its own: the runtime's threads may be what the
    /// export needs.
    pub async fn shutdown(self) {
        let Some(processor) = self.processor else { return };
        let flushed = tokio::task::spawn_blocking(move || processor.shutdown_with_timeout(FLUSH_DEADLINE)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans could not be exported"),
            Err(error) => tracing::warn!(%error, "the export of the last spans broke off"),
        }
    }
}

/// Sets up logs and, with an endpoint, traces for the whole process.
pub fn init(config: &TelemetryConfig) -> Result<Guard, InitError> {
    let logs = logs(config.format, config.filter.as_deref().unwrap_or(FILTER_DEFAULT))?;
    let processor = config.otlp_endpoint.as_deref().map(|endpoint| exporter(config, endpoint)).transpose()?;
    let spans = processor.clone().map(|processor| {
        // Our own spans only, or exporting would be traced, too.
        ExportLayer::new(processor).with_filter(Targets::new().with_target("longhaul", LevelFilter::DEBUG))
    });
    tracing_subscriber::registry().with(logs).with(spans).try_init().map_err(|_| InitError::Twice)?;
    Ok(Guard { processor })
}

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

fn logs<S>(format: LogFormat, filter: &str) -> Result<Boxed<S>, InitError>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| InitError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    Ok(match format {
        LogFormat::Human => fmt::layer().with_writer(std::io::stderr).with_filter(parsed).boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_filter(parsed).boxed()
        }
    })
}

fn exporter(config: &TelemetryConfig, endpoint: &str) -> Result<Arc<dyn SpanProcessor>, InitError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        // Taken as it is by the exporter; only the environment variable is a base address.
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| InitError::Endpoint { endpoint: endpoint.to_owned(), reason: error.to_string() })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_WAITING_MAX)
        .with_scheduled_delay(EXPORT_INTERVAL)
        .build();
    let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    processor.set_resource(&resource(config));
    Ok(Arc::new(processor))
}

fn resource(config: &TelemetryConfig) -> Resource {
    let instance = config.location.clone().unwrap_or_else(|| config.role.clone());
    let mut attributes = vec![
        KeyValue::new("service.namespace", "longhaul"),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("deployment.environment.name", "testbed"),
        KeyValue::new(attribute::ROLE, config.role.clone()),
    ];
    attributes.extend(config.location.clone().map(|location| KeyValue::new("cloud.region", location)));
    Resource::builder_empty().with_service_name(config.service_name.clone()).with_attributes(attributes).build()
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
        let config = TelemetryConfig { otlp_endpoint: Some("not an address".to_owned()), ..TelemetryConfig::default() };
        let error = init(&config).unwrap_err().to_string();
        assert!(error.contains("not an address") && error.contains("http://127.0.0.1:4318"), "{error}");
    }

    #[test]
    fn the_resource_names_the_location_as_its_region() {
        let config = TelemetryConfig {
            service_name: "longhaul-gateway".to_owned(),
            role: "gateway".to_owned(),
            location: Some("london".to_owned()),
            ..TelemetryConfig::default()
        };
        let resource = resource(&config);
        let get = |key: &'static str| resource.get(&opentelemetry::Key::new(key)).map(|value| value.to_string());
        assert_eq!(get("service.name").as_deref(), Some("longhaul-gateway"));
        assert_eq!(get("cloud.region").as_deref(), Some("london"));
        assert_eq!(get("longhaul.role").as_deref(), Some("gateway"));
    }

    #[test]
    fn formats_are_read_by_name() {
        assert_eq!(("human".parse(), "json".parse()), (Ok(LogFormat::Human), Ok(LogFormat::Json)));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
