//! The server span of a request.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use longhaul_core::operation::TraceContext;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::{Text, TraceIds, extract, inject, kept, policy, records};
use crate::metrics::requests;

/// Put into an answer's extensions by a handler that has recorded something of a request that was not chosen: its whole
/// trace is to be kept, up to the user.
#[derive(Debug, Clone, Copy)]
pub struct Kept;

/// Middleware: the server span of a request, with the caller's context or a new one in its extensions and its answer. The
/// duration is counted, too (`http.server.request.duration`).
pub async fn server_span(State(ids): State<TraceIds>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("", MatchedPath::as_str);
    let parent = extract(request.headers());
    let concerns = parent.is_some() || concerns_users(&method, route);
    let context = match parent {
        Some(parent) => ids.child(parent),
        None if concerns => ids.request(),
        None => TraceContext { flags: 0, ..ids.root() },
    };
    request.extensions_mut().insert(context);
    let (mut response, told) = if records(context) {
        let span = span(&method, route, context, parent);
        let response = next.run(request).instrument(span.clone()).await;
        record(&span, &response);
        (response, context)
    } else {
        let response = next.run(request).await;
        let matters = response.status().is_server_error() || response.extensions().get::<Kept>().is_some();
        if concerns && (policy::is_slow(began.elapsed()) || (matters && policy::is_recording())) {
            let span = span(&method, route, kept(context), parent.map(kept));
            span.record("longhaul.lasted_ns", began.elapsed().as_nanos() as u64);
            span.record("longhaul.late", true);
            record(&span, &response);
            (response, kept(context))
        } else {
            (response, context)
        }
    };
    inject(response.headers_mut(), told);
    requests().record(route, &method, response.status(), began.elapsed());
    response
}

/// Whether a request that no trace brought may begin one: a record's, or one that asks for a change. The questions that
/// roles ask each other several times a second would bury the others.
fn concerns_users(method: &Method, route: &str) -> bool {
    route.starts_with("/v1/") && (method != Method::GET || route.starts_with("/v1/records/"))
}

fn span(method: &Method, route: &str, context: TraceContext, parent: Option<TraceContext>) -> tracing::Span {
    tracing::debug_span!(
        "http.server",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        longhaul.context = %Text(context),
        longhaul.parent = parent.map(Text).map(tracing::field::display),
        longhaul.lasted_ns = Empty,
        longhaul.late = Empty,
        http.request.method = %method,
        http.route = route,
        url.scheme = "http",
        http.response.status_code = Empty,
        error.type = Empty,
    )
}

fn record(span: &tracing::Span, response: &Response) {
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
    }
}
