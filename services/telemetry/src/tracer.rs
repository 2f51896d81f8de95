//! The tracer below `tracing-opentelemetry`: it gives spans the ids that they say they have.
//!
//! The services draw trace and span ids themselves, from their seeds, and tell them to each other in `traceparent` and
//! in the operation log. A tracer that drew ids of its own would export spans that no other process has heard of; so
//! this one takes the ids out of the span's fields (see [`crate::names::attribute`]) before the SDK builds it, and the
//! SDK's id generator hands them over.

use std::cell::Cell;

use opentelemetry::trace::{SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, Span};

use crate::context;
use crate::names::attribute;

thread_local! {
    /// The ids of the span that is being built on this thread.
    static GIVEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Hands out the ids that a span says it has, and random ones to spans that say nothing.
#[derive(Debug, Default)]
pub(crate) struct GivenIds(RandomIdGenerator);

impl IdGenerator for GivenIds {
    fn new_trace_id(&self) -> TraceId {
        GIVEN.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        GIVEN.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// The tracer.
#[derive(Debug, Clone)]
pub(crate) struct GivenTracer(pub(crate) SdkTracer);

impl Tracer for GivenTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, enclosing: &Context) -> Span {
        let mut own = None;
        let mut parent = None;
        if let Some(attributes) = &mut builder.attributes {
            own = take(attributes, attribute::CONTEXT, false);
            parent = take(attributes, attribute::PARENT, true);
        }
        let Some(own) = own else {
            return self.0.build_with_context(builder, enclosing);
        };
        // What it says itself comes first; a span of another trace is no child of the one around it.
        let parent = parent.or_else(|| Some(enclosing.span().span_context().clone()));
        let parent = parent.filter(|parent| parent.is_valid() && parent.trace_id() == own.trace_id());
        let around = match parent {
            // The flags are those of the span itself: a trace that is kept late has parents that do not know it yet.
            Some(parent) => Context::new().with_remote_span_context(SpanContext::new(
                parent.trace_id(),
                parent.span_id(),
                own.trace_flags(),
                parent.is_remote(),
                parent.trace_state().clone(),
            )),
            None if own.is_sampled() => Context::new(),
            // A root that is not kept: with itself around it, the sampler sees its flags.
            None => Context::new().with_remote_span_context(own.clone()),
        };
        GIVEN.set(Some((own.trace_id(), own.span_id())));
        let span = self.0.build_with_context(builder, &around);
        GIVEN.set(None);
        span
    }
}

/// Takes a context out of the attributes.
fn take(attributes: &mut Vec<KeyValue>, name: &str, is_remote: bool) -> Option<SpanContext> {
    let index = attributes.iter().position(|known| known.key.as_str() == name)?;
    context::parse(&attributes.swap_remove(index).value.as_str(), is_remote)
}
