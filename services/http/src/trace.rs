//! Trace context (W3C `traceparent`) in requests, answers and operations.
//!
//! Every request has one: the caller's, or a new one drawn from the process's seeded generator. It is put into the
//! request's extensions for handlers, on the server span, and into the answer.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use longhaul_core::operation::TraceContext;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tracing::Instrument;

/// The header that carries the context.
pub const TRACEPARENT: &str = "traceparent";

/// Draws trace and span ids from a seed.
#[derive(Clone)]
pub struct TraceIds(Arc<Mutex<SmallRng>>);

impl TraceIds {
    /// A generator; two processes need different seeds.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// A new root context, sampled.
    pub fn root(&self) -> TraceContext {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        rng.fill_bytes(&mut trace_id);
        rng.fill_bytes(&mut span_id);
        // All zero is not a valid id.
        trace_id[15] |= 1;
        span_id[7] |= 1;
        TraceContext { trace_id, span_id, flags: 1 }
    }

    /// A child of `parent`: the same trace, a new span.
    pub fn child(&self, parent: TraceContext) -> TraceContext {
        TraceContext { trace_id: parent.trace_id, flags: parent.flags, ..self.root() }
    }
}

/// Hexadecimal digits of a trace id.
pub fn trace_id_text(context: TraceContext) -> String {
    hex(&context.trace_id)
}

/// The header value for a context.
pub fn format(context: TraceContext) -> String {
    Text(context).to_string()
}

/// A context as the header value, written without an allocation of its own.
///
/// Given to a span as its field `longhaul.context`, it makes the exported span carry exactly these ids: the ones that
/// other processes were told in `traceparent`. The field `longhaul.parent` (a context, too) names a parent in another
/// process; without it the parent is the enclosing span.
#[derive(Debug, Clone, Copy)]
pub struct Text(pub TraceContext);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(context) = self;
        let (trace, span) = (u128::from_be_bytes(context.trace_id), u64::from_be_bytes(context.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", context.flags)
    }
}

/// Reads a header value; `None` if it is not a valid version-00 context.
pub fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let context = TraceContext { trace_id: unhex(trace)?, span_id: unhex(span)?, flags: unhex::<1>(flags)?[0] };
    (context.trace_id != [0; 16] && context.span_id != [0; 8]).then_some(context)
}

/// The context in the headers, if there is a valid one.
pub fn extract(headers: &HeaderMap) -> Option<TraceContext> {
    parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// Puts a context into headers.
pub fn inject(headers: &mut HeaderMap, context: TraceContext) {
    if let Ok(value) = HeaderValue::from_str(&format(context)) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Middleware: the server span of a request, with the caller's context or a new one in its extensions and its answer.
pub async fn server_span(State(ids): State<TraceIds>, mut request: Request, next: Next) -> Response {
    let parent = extract(request.headers());
    let context = parent.map_or_else(|| ids.root(), |parent| ids.child(parent));
    request.extensions_mut().insert(context);
    let route = request.extensions().get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let span = tracing::debug_span!(
        "http.server",
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        trace_id = %trace_id_text(context),
        longhaul.context = %Text(context),
        longhaul.parent = parent.map(Text).map(tracing::field::display),
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    inject(response.headers_mut(), context);
    response
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_the_header() {
        let context = TraceIds::new(7).root();
        assert_eq!(parse(&format(context)), Some(context));
    }

    #[test]
    fn a_malformed_header_is_no_context() {
        for text in ["", "00-0-0-0", "00-00000000000000000000000000000000-0000000000000001-01", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
