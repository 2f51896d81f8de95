//! An OTLP receiver on one loopback port, gRPC and HTTP: keeps every span that arrives.

#![allow(dead_code, reason = "each test uses its own part")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tonic::{Request, Response, Status};

/// What arrived.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    /// Listens on a free port until the runtime ends; answers with the base address.
    #[expect(clippy::disallowed_types, reason = "the receiver is no service of ours")]
    pub(crate) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let kept = self.clone();
        let over_http = post(async move |body: Bytes| match ExportTraceServiceRequest::decode(body) {
            Ok(request) => {
                kept.0.lock().unwrap().extend(request.resource_spans);
                (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
            }
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string().into_bytes()),
        });
        let over_grpc = tonic::service::Routes::new(TraceServiceServer::new(self.clone())).prepare().into_axum_router();
        let router = Router::new().route("/v1/traces", over_http).merge(over_grpc);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    /// Every span, with its service's name.
    pub(crate) fn spans(&self) -> Vec<(String, Span)> {
        let all = self.0.lock().unwrap();
        let spans = all.iter().flat_map(|resource| {
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let service = attributes.filter(|pair| pair.key == "service.name").find_map(|pair| pair.value.as_ref());
            let service = match service.and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => text.clone(),
                _ => String::new(),
            };
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
