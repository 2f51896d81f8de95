//! Trace contexts in the fields of spans.

use longhaul_http::trace;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Reads a `traceparent`; `None` if it is not valid.
pub(crate) fn parse(text: &str, is_remote: bool) -> Option<SpanContext> {
    let context = trace::parse(text)?;
    Some(SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        TraceFlags::new(context.flags),
        is_remote,
        TraceState::NONE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_context_is_read_and_others_are_not() {
        let context = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(parse("00-00000000000000000000000000000000-b7ad6b7169203331-01", true).is_none());
    }
}
