//! A collector for a whole testbed: takes what its processes export by OTLP, over gRPC and HTTP, and writes it down as
//! testbeds write their own spans, so that the same judges read both.

use std::path::Path;
use std::process::Command;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

#[path = "../../services/telemetry/tests/sink/mod.rs"]
mod sink;

/// How processes are told to export.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

pub(crate) struct Collector {
    sink: sink::Sink,
    address: String,
    /// It ends with this.
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sink = sink::Sink::default();
        let address = runtime.block_on(sink.start());
        Self { sink, address, _runtime: runtime }
    }

    /// Has a command, and whatever it starts, export everything to here, by the standard's own variables.
    pub(crate) fn collect_from(&self, command: &mut Command, protocol: Protocol) {
        let protocol = match protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        };
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.address).env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    }

    /// Writes every span that arrived to `folder/spans`.
    pub(crate) fn write_to(&self, folder: &Path) {
        let request = ExportTraceServiceRequest { resource_spans: self.sink.received() };
        std::fs::create_dir_all(folder.join("spans")).unwrap();
        std::fs::write(folder.join("spans/received.json"), serde_json::to_string(&request).unwrap()).unwrap();
    }

    /// Which services told of which metrics: `service.name` and the metric's name.
    pub(crate) fn metrics(&self) -> std::collections::BTreeSet<(String, String)> {
        self.sink.metrics()
    }
}
