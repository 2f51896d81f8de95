//! What to set up, and what the standard `OTEL_*` variables say about it.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::file::SpanFile;

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

/// How OTLP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// gRPC, usually port 4317.
    Grpc,
    /// Protocol buffers over HTTP, usually port 4318. The standard's default.
    #[default]
    Http,
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::Http),
            _ => Err(format!("OTLP protocol {text:?} is not one of grpc, http/protobuf")),
        }
    }
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// For [`Protocol::Http`] the address itself (`…/v1/traces`), for gRPC the server's.
    pub url: String,
    /// How it travels.
    pub protocol: Protocol,
}

/// Where telemetry goes. Nowhere is the default: then nothing is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Otlp {
    /// Spans.
    pub traces: Option<Endpoint>,
    /// Metrics.
    pub metrics: Option<Endpoint>,
    /// How often metrics are pushed; [`METRIC_INTERVAL`] if absent.
    pub metric_interval: Option<Duration>,
    /// Attributes of the resource besides our own, in the order given.
    pub resource: Vec<(String, String)>,
    /// The service's name instead of our own.
    pub service_name: Option<String>,
}

/// How often metrics are pushed. The standard's minute is too coarse for outages that last seconds.
pub const METRIC_INTERVAL: Duration = Duration::from_secs(5);

impl Otlp {
    /// Reads the standard variables through `get`; `base`, where given, stands in for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    /// Understood are the endpoints and protocols (general and per signal), `OTEL_TRACES_EXPORTER` and
    /// `OTEL_METRICS_EXPORTER` (`otlp`, `none`), `OTEL_SDK_DISABLED`, `OTEL_METRIC_EXPORT_INTERVAL`,
    /// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`. Headers and timeouts are read by the exporter itself.
    pub fn read(base: Option<&str>, get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let mut resource = Vec::new();
        for pair in get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                format!("OTEL_RESOURCE_ATTRIBUTES: {pair:?} is no pair; write it like team=storage,rack=7")
            })?;
            resource.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        let metric_interval = get("OTEL_METRIC_EXPORT_INTERVAL")
            .map(|text| match text.parse::<u64>() {
                Ok(ms) if ms >= 100 => Ok(Duration::from_millis(ms)),
                _ => Err(format!("OTEL_METRIC_EXPORT_INTERVAL: {text:?} is no number of milliseconds from 100")),
            })
            .transpose()?;
        let mut otlp = Self { metric_interval, resource, service_name: get("OTEL_SERVICE_NAME"), ..Self::default() };
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(otlp);
        }
        let signal = |signal: &str, path: &str| -> Result<Option<Endpoint>, String> {
            if get(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|exporter| exporter == "none") {
                return Ok(None);
            }
            let named = format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL");
            let (name, text) = match get(&named) {
                Some(text) => (named.as_str(), Some(text)),
                None => ("OTEL_EXPORTER_OTLP_PROTOCOL", get("OTEL_EXPORTER_OTLP_PROTOCOL")),
            };
            let protocol = text.map_or(Ok(Protocol::default()), |text| text.parse());
            let protocol = protocol.map_err(|error| format!("{name}: {error}"))?;
            // An address of one signal is taken as it is; the general one is a base.
            if let Some(url) = get(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")) {
                return Ok(Some(Endpoint { url, protocol }));
            }
            let base = base.map(str::to_owned).or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
            Ok(base.map(|base| Endpoint {
                url: match protocol {
                    Protocol::Grpc => base,
                    Protocol::Http => format!("{}/v1/{path}", base.trim_end_matches('/')),
                },
                protocol,
            }))
        };
        otlp.traces = signal("TRACES", "traces")?;
        otlp.metrics = signal("METRICS", "metrics")?;
        Ok(otlp)
    }
}

/// What to set up.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// The service's name in traces, for example `longhaul-region`.
    pub service_name: String,
    /// The role of the process.
    pub role: String,
    /// The location that it stands for, if it stands for one.
    pub location: Option<String>,
    /// How logs are written.
    pub format: LogFormat,
    /// Which logs: directives of `tracing`, such as [`crate::FILTER_DEFAULT`].
    pub filter: Option<String>,
    /// Where spans and metrics are sent.
    pub otlp: Otlp,
    /// The file that spans are written to, as OTLP JSON lines.
    pub span_file: Option<SpanFile>,
    /// The wall time of the host's boot: moments on the boot clock are exported as wall times after it.
    pub boot: SystemTime,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: String::new(),
            role: String::new(),
            location: None,
            format: LogFormat::Human,
            filter: None,
            otlp: Otlp::default(),
            span_file: None,
            boot: SystemTime::UNIX_EPOCH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(base: Option<&str>, variables: &[(&str, &str)]) -> Result<Otlp, String> {
        Otlp::read(base, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_endpoint_nothing_goes_anywhere() {
        assert_eq!(read(None, &[]).unwrap(), Otlp::default());
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "true")];
        assert_eq!(read(None, &disabled).unwrap(), Otlp::default());
    }

    #[test]
    fn the_base_address_gets_a_path_for_each_signal_over_http_and_none_over_grpc() {
        let otlp = read(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")]).unwrap();
        assert_eq!(otlp.traces.unwrap().url, "http://c:4318/v1/traces");
        assert_eq!(otlp.metrics.unwrap().url, "http://c:4318/v1/metrics");
        let grpc = read(Some("http://c:4317"), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap();
        assert_eq!(grpc.traces, Some(Endpoint { url: "http://c:4317".to_owned(), protocol: Protocol::Grpc }));
    }

    #[test]
    fn each_signal_may_go_its_own_way() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://prometheus:9090/api/v1/otlp/v1/metrics"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=storage,rack=7"),
        ];
        let otlp = read(None, &variables).unwrap();
        assert_eq!(otlp.traces.unwrap().protocol, Protocol::Grpc);
        let metrics = otlp.metrics.unwrap();
        assert_eq!(metrics.url, "http://prometheus:9090/api/v1/otlp/v1/metrics");
        assert_eq!(metrics.protocol, Protocol::Http);
        assert_eq!(otlp.metric_interval, Some(Duration::from_secs(1)));
        assert_eq!(otlp.resource[1], ("rack".to_owned(), "7".to_owned()));
        let none = read(Some("http://c:4318"), &[("OTEL_METRICS_EXPORTER", "none")]).unwrap();
        assert!(none.metrics.is_none() && none.traces.is_some());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
        ] {
            let error = read(Some("http://c:4318"), &[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn formats_are_read_by_name() {
        assert_eq!(("human".parse(), "json".parse()), (Ok(LogFormat::Human), Ok(LogFormat::Json)));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
