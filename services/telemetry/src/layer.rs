//! The layer that exports `tracing` spans with the ids that they say they have.
//!
//! The services draw trace and span ids themselves, from their seeds, and tell them to each other in `traceparent` and
//! in the operation log. A bridge that drew ids of its own would export spans that no other process has heard of; so
//! this one takes the ids from the span's fields (see [`crate::names::attribute`]) and hands finished spans to the
//! SDK's batch processor.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::context;
use crate::names::attribute;

/// Most events kept of one span.
const EVENTS_MAX: usize = 64;
/// Most links kept of one span.
const LINKS_MAX: usize = 128;

/// The layer.
pub(crate) struct ExportLayer {
    processor: Arc<dyn SpanProcessor>,
    scope: InstrumentationScope,
}

impl ExportLayer {
    pub(crate) fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        let scope = InstrumentationScope::builder("longhaul").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { processor, scope }
    }
}

/// What is known of an open span.
struct Open {
    context: SpanContext,
    parent: Option<SpanContext>,
    start: SystemTime,
    told: Told,
    events: Vec<Event>,
    events_dropped: u32,
}

/// What a span's fields say.
#[derive(Default)]
struct Told {
    name: Option<String>,
    kind: Option<SpanKind>,
    context: Option<SpanContext>,
    parent: Option<SpanContext>,
    links: Vec<Link>,
    links_dropped: u32,
    failed: bool,
    attributes: Vec<KeyValue>,
}

impl Told {
    fn text(&mut self, name: &'static str, text: &str) {
        match name {
            "otel.name" => self.name = Some(text.to_owned()),
            "otel.kind" => {
                self.kind = match text {
                    "server" => Some(SpanKind::Server),
                    "client" => Some(SpanKind::Client),
                    "producer" => Some(SpanKind::Producer),
                    "consumer" => Some(SpanKind::Consumer),
                    _ => Some(SpanKind::Internal),
                }
            }
            "otel.status_code" => self.failed |= text.eq_ignore_ascii_case("error"),
            attribute::CONTEXT => self.context = context::parse(text, false),
            attribute::PARENT => self.parent = context::parse(text, true),
            attribute::LINKS => {
                for context in text.split(',').filter_map(|text| context::parse(text, true)) {
                    if self.links.len() == LINKS_MAX {
                        self.links_dropped += 1;
                    } else {
                        self.links.push(Link::new(context, Vec::new(), 0));
                    }
                }
            }
            // The span's own ids say it already.
            "trace_id" => {}
            _ => self.attribute(KeyValue::new(name, text.to_owned())),
        }
    }

    fn attribute(&mut self, attribute: KeyValue) {
        if let Some(known) = self.attributes.iter_mut().find(|known| known.key == attribute.key) {
            *known = attribute;
        } else {
            self.attributes.push(attribute);
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attribute(KeyValue::new(field.name(), value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(KeyValue::new(field.name(), value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "http.response.status_code" {
            // A server's span is an error from 500 on, a client's from 400 on (semantic conventions for HTTP).
            self.failed |= value >= if self.kind == Some(SpanKind::Client) { 400 } else { 500 };
        }
        self.attribute(KeyValue::new(field.name(), value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// The text of an event and its other fields.
#[derive(Default)]
struct Said {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.attributes.push(KeyValue::new(field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.attributes.push(KeyValue::new(field.name(), format!("{value:?}")));
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ExportLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut told = Told::default();
        attributes.record(&mut told);
        let enclosing =
            span.parent().and_then(|parent| parent.extensions().get::<Open>().map(|open| open.context.clone()));
        let (context, parent) = identity(told.context.take(), told.parent.take(), enclosing);
        let open = Open { context, parent, start: now(), told, events: Vec::new(), events_dropped: 0 };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.told);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.event_span(event) else { return };
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.get_mut::<Open>() else { return };
        if open.events.len() == EVENTS_MAX {
            open.events_dropped += 1;
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        said.attributes.push(KeyValue::new("level", event.metadata().level().as_str()));
        open.events.push(Event::new(said.message, now(), said.attributes, 0));
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        if !open.context.is_sampled() {
            return;
        }
        let mut events = SpanEvents::default();
        events.events = open.events;
        events.dropped_count = open.events_dropped;
        let mut links = SpanLinks::default();
        links.links = open.told.links;
        links.dropped_count = open.told.links_dropped;
        self.processor.on_end(SpanData {
            span_context: open.context,
            parent_span_id: open.parent.as_ref().map_or(SpanId::INVALID, SpanContext::span_id),
            parent_span_is_remote: open.parent.as_ref().is_some_and(SpanContext::is_remote),
            span_kind: open.told.kind.unwrap_or(SpanKind::Internal),
            name: open.told.name.map_or_else(|| span.name().into(), Into::into),
            start_time: open.start,
            end_time: now(),
            attributes: open.told.attributes,
            dropped_attributes_count: 0,
            events,
            links,
            status: if open.told.failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// A span's ids and parent. What it says itself comes first; otherwise it belongs to the trace of its parent, and
/// without a parent it begins one.
fn identity(
    own: Option<SpanContext>,
    remote: Option<SpanContext>,
    enclosing: Option<SpanContext>,
) -> (SpanContext, Option<SpanContext>) {
    let ids = RandomIdGenerator::default();
    let of_trace = |parent: &SpanContext| own.as_ref().is_none_or(|own| own.trace_id() == parent.trace_id());
    let parent = remote.or(enclosing).filter(of_trace);
    let context = own.unwrap_or_else(|| {
        let trace = parent.as_ref().map_or_else(|| ids.new_trace_id(), SpanContext::trace_id);
        let flags = parent.as_ref().map_or(TraceFlags::SAMPLED, SpanContext::trace_flags);
        SpanContext::new(trace, ids.new_span_id(), flags, false, TraceState::NONE)
    });
    (context, parent)
}

#[expect(clippy::disallowed_methods, reason = "spans are stamped by the host's clock, never by a skewed one")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use opentelemetry_sdk::error::OTelSdkResult;
    use tracing::field;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<SpanData>>);

    impl SpanProcessor for Kept {
        fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}
        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-00000000000000a1-01";
    const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-00000000000000b2-01";
    const ELSEWHERE: &str = "00-11111111111111111111111111111111-00000000000000c3-01";

    /// The spans that `work` made, in the order in which they closed.
    fn exported(work: impl FnOnce()) -> Vec<SpanData> {
        let kept = Arc::new(Kept::default());
        let subscriber = tracing_subscriber::registry().with(ExportLayer::new(kept.clone()));
        tracing::subscriber::with_default(subscriber, work);
        std::mem::take(&mut *kept.0.lock().unwrap())
    }

    #[test]
    fn a_span_has_the_ids_that_it_says_and_its_children_follow() {
        let spans = exported(|| {
            let server = tracing::info_span!(
                "http.server",
                otel.name = "PUT /v1",
                otel.kind = "server",
                longhaul.context = OWN,
                longhaul.parent = REMOTE
            );
            server.in_scope(|| tracing::info_span!("gateway.request", longhaul.home = "eu-west").in_scope(|| ()));
        });
        let [request, server] = spans.as_slice() else { panic!("two spans, got {}", spans.len()) };
        assert_eq!(server.span_context.span_id().to_string(), "00000000000000a1");
        assert_eq!(server.parent_span_id.to_string(), "00000000000000b2");
        assert!(server.parent_span_is_remote);
        assert_eq!((server.name.as_ref(), &server.span_kind), ("PUT /v1", &SpanKind::Server));
        assert!(server.attributes.is_empty(), "ids are no attributes");
        assert_eq!(request.parent_span_id, server.span_context.span_id());
        assert_eq!(request.span_context.trace_id(), server.span_context.trace_id());
        assert_eq!(request.attributes, [KeyValue::new("longhaul.home", "eu-west")]);
    }

    #[test]
    fn a_span_of_another_trace_is_no_child_of_the_one_around_it() {
        let spans = exported(|| {
            tracing::info_span!("batch", longhaul.context = OWN)
                .in_scope(|| tracing::info_span!("apply", longhaul.context = ELSEWHERE).in_scope(|| ()));
        });
        assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
        assert_eq!(spans[0].span_context.span_id().to_string(), "00000000000000c3");
    }

    #[test]
    fn links_late_fields_events_and_failures_are_kept() {
        let spans = exported(|| {
            let span = tracing::info_span!(
                "commit",
                longhaul.links = field::Empty,
                http.response.status_code = field::Empty,
                longhaul.code = "first"
            );
            span.record("longhaul.links", format!("{REMOTE},{ELSEWHERE},nonsense"));
            span.record("longhaul.code", "second");
            span.record("http.response.status_code", 503_u16);
            span.in_scope(|| tracing::info!(region = "eu-west", "suspected"));
        });
        let span = &spans[0];
        assert_eq!(span.links.iter().count(), 2);
        assert_eq!(span.status, Status::error(""));
        assert!(span.attributes.contains(&KeyValue::new("longhaul.code", "second")));
        assert_eq!(span.attributes.len(), 2);
        assert_eq!(span.events[0].name, "suspected");
        assert_eq!(span.events[0].attributes[0], KeyValue::new("region", "eu-west"));
    }

    #[test]
    fn what_is_not_sampled_is_not_exported() {
        let not_sampled = OWN.replace("-01", "-00");
        assert!(exported(|| drop(tracing::info_span!("quiet", longhaul.context = not_sampled))).is_empty());
    }
}
