//! Trace context (W3C `traceparent`) in requests, answers and operations, and what is recorded of a trace.
//!
//! Every request has a context: the caller's, or a new one drawn from the process's seeded generator. It is put into the
//! request's extensions for handlers, on the server span, and into the answer.
//!
//! Whether spans of a trace are recorded is decided where the trace begins ([`policy`]) and travels in the flags of the
//! context, so that a trace is kept whole or not at all. A request that was not chosen and turns out to be slow or to
//! fail is kept after all: whoever notices records its span late and says so in the flags of its answer, and every
//! caller up to the user does the same.

mod ids;
pub mod policy;
mod server;
mod timed;

use http::{HeaderMap, HeaderValue};
use longhaul_core::operation::TraceContext;

pub use ids::{TraceIds, anchored, derived};
pub use server::{Kept, server_span};
pub use timed::{LINKS_MAX, Links, links_text};

/// The header that carries the context.
pub const TRACEPARENT: &str = "traceparent";
/// The flag of a trace that is kept.
pub const SAMPLED: u8 = 1;

/// Hexadecimal digits of a trace id.
pub fn trace_id_text(context: TraceContext) -> String {
    format!("{:032x}", u128::from_be_bytes(context.trace_id))
}

/// The header value for a context.
pub fn format(context: TraceContext) -> String {
    Text(context).to_string()
}

/// Whether spans of this context are to be made: its trace is kept, and this process records.
pub fn records(context: TraceContext) -> bool {
    context.flags & SAMPLED == SAMPLED && policy::is_recording()
}

/// The context of the same span in a trace that is kept.
pub const fn kept(context: TraceContext) -> TraceContext {
    TraceContext { flags: context.flags | SAMPLED, ..context }
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

/// Reads the 32 hexadecimal digits of a trace id.
pub fn parse_trace_id(text: &str) -> Option<[u8; 16]> {
    unhex(text).filter(|id| *id != [0; 16])
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
        assert_eq!(parse_trace_id(&trace_id_text(context)), Some(context.trace_id));
    }

    #[test]
    fn a_malformed_header_is_no_context() {
        for text in ["", "00-0-0-0", "00-00000000000000000000000000000000-0000000000000001-01", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
