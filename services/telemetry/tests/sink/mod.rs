//! An OTLP receiver on one loopback port, gRPC and HTTP: keeps every span that arrives, and which metrics were told.

#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tonic::{Request, Response, Status};

/// What arrived.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    spans: Arc<Mutex<Vec<ResourceSpans>>>,
    metrics: Arc<Mutex<BTreeSet<(String, String)>>>,
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take_metrics(&request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// A body of OTLP over HTTP, for whoever takes it.
fn over_http<Q: Message + Default, A: Message>(body: Bytes, take: impl FnOnce(Q), answer: &A) -> (StatusCode, Vec<u8>) {
    match Q::decode(body) {
        Ok(request) => {
            take(request);
            (StatusCode::OK, answer.encode_to_vec())
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string().into_bytes()),
    }
}

fn service_of(resource: Option<&Resource>) -> String {
    let mut attributes = resource.into_iter().flat_map(|resource| &resource.attributes);
    let service = attributes.find(|pair| pair.key == "service.name").and_then(|pair| pair.value.as_ref());
    match service.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

impl Sink {
    /// Listens on a free port until the runtime ends; answers with the base address.
    #[expect(clippy::disallowed_types, reason = "the receiver is no service of ours")]
    pub(crate) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (spans, metrics) = (self.clone(), self.clone());
        let traces = post(async move |body: Bytes| {
            over_http(body, |request| spans.take_spans(request), &ExportTraceServiceResponse::default())
        });
        let figures = post(async move |body: Bytes| {
            over_http(body, |request| metrics.take_metrics(&request), &ExportMetricsServiceResponse::default())
        });
        let over_grpc = tonic::service::Routes::new(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()))
            .prepare()
            .into_axum_router();
        let router = Router::new().route("/v1/traces", traces).route("/v1/metrics", figures).merge(over_grpc);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        self.spans.lock().unwrap().extend(request.resource_spans);
    }

    fn take_metrics(&self, request: &ExportMetricsServiceRequest) {
        let mut told = self.metrics.lock().unwrap();
        for resource in &request.resource_metrics {
            let service = service_of(resource.resource.as_ref());
            let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            told.extend(metrics.map(|metric| (service.clone(), metric.name.clone())));
        }
    }

    /// Everything about spans that arrived.
    pub(crate) fn received(&self) -> Vec<ResourceSpans> {
        self.spans.lock().unwrap().clone()
    }

    /// Which services told of which metrics: `service.name` and the metric's name.
    pub(crate) fn metrics(&self) -> BTreeSet<(String, String)> {
        self.metrics.lock().unwrap().clone()
    }

    /// Every span, with its service's name.
    pub(crate) fn spans(&self) -> Vec<(String, Span)> {
        let all = self.received();
        let spans = all.iter().flat_map(|resource| {
            let service = service_of(resource.resource.as_ref());
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| (service.clone(), span.clone()))
        });
        spans.collect()
    }

    /// The span of this name; exactly one must have arrived.
    pub(crate) fn one(&self, name: &str) -> Span {
        let mut found: Vec<Span> =
            self.spans().into_iter().filter(|(_, span)| span.name == name).map(|(_, span)| span).collect();
        assert_eq!(found.len(), 1, "spans named {name}");
        found.remove(0)
    }
}

/// An id's bytes.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
}
