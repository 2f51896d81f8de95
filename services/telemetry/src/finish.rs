//! The last touch: what a span's fields say about its links, its times and its outcome becomes part of the span, and the
//! span goes on to the exporters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanKind, Status};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};

use crate::context;
use crate::loss::Tally;
use crate::names::attribute;

/// One way out: a batch processor, and the count of what went in.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) batches: BatchSpanProcessor,
    pub(crate) tally: Arc<Tally>,
}

/// The processor.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) ways: Vec<Way>,
    /// The wall time of the host's boot.
    pub(crate) boot: SystemTime,
}

impl SpanProcessor for Finish {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        finish(&mut span, self.boot);
        let Some((last, others)) = self.ways.split_last() else { return };
        for way in others {
            way.tally.ended();
            way.batches.on_end(span.clone());
        }
        last.tally.ended();
        last.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.ways.iter().map(|way| way.batches.force_flush()).fold(Ok(()), Result::and)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.ways.iter().map(|way| way.batches.shutdown_with_timeout(timeout)).fold(Ok(()), Result::and)
    }

    fn set_resource(&mut self, resource: &Resource) {
        for way in &mut self.ways {
            way.batches.set_resource(resource);
        }
    }
}

/// Attributes that are integers. `tracing-opentelemetry` takes unsigned ones for text.
const INTEGERS: [&str; 9] = [
    "http.response.status_code",
    "http.request.resend_count",
    "db.operation.batch.size",
    "messaging.batch.message_count",
    attribute::ATTEMPTS,
    attribute::EPOCH,
    attribute::LINKS_LEFT_OUT,
    attribute::OPERATIONS,
    attribute::RPO_WRITES,
];

/// Makes an integer of its text.
fn integer(value: &mut Value) {
    if let Value::String(text) = &*value
        && let Ok(number) = text.as_str().parse::<i64>()
    {
        *value = Value::I64(number);
    }
}

fn finish(span: &mut SpanData, boot: SystemTime) {
    let mut links = Vec::new();
    let (mut from, mut to, mut lasted) = (None, None, None);
    let mut failed = false;
    let client = span.span_kind == SpanKind::Client;
    // A field that was recorded twice is there twice; the later one counts.
    let mut kept: Vec<KeyValue> = Vec::with_capacity(span.attributes.len());
    for mut known in std::mem::take(&mut span.attributes) {
        if INTEGERS.contains(&known.key.as_str()) {
            integer(&mut known.value);
        }
        match known.key.as_str() {
            attribute::LINKS => {
                let text = known.value.as_str().into_owned();
                links.extend(text.split(',').filter_map(|text| context::parse(text, true)));
            }
            attribute::FROM_NS => from = nanoseconds(&known.value),
            attribute::TO_NS => to = nanoseconds(&known.value),
            attribute::LASTED_NS => lasted = nanoseconds(&known.value),
            attribute::CONTEXT | attribute::PARENT => {}
            name => {
                if name == "http.response.status_code" {
                    // A server's span is an error from 500 on, a client's from 400 on (conventions for HTTP).
                    let least = if client { 400 } else { 500 };
                    failed |= matches!(&known.value, Value::I64(status) if *status >= least);
                }
                match kept.iter_mut().find(|other| other.key == known.key) {
                    Some(other) => *other = known,
                    None => kept.push(known),
                }
            }
        }
    }
    span.attributes = kept;
    for context in links {
        span.links.links.push(Link::new(context, Vec::new(), 0));
    }
    if let Some(to) = to {
        span.end_time = boot + to;
    }
    if let Some(from) = from {
        span.start_time = boot + from;
    } else if let Some(lasted) = lasted {
        span.start_time = span.end_time.checked_sub(lasted).unwrap_or(span.start_time);
    }
    span.end_time = span.end_time.max(span.start_time);
    if failed && span.status == Status::Unset {
        span.status = Status::error("");
    }
}

fn nanoseconds(value: &Value) -> Option<Duration> {
    match value {
        Value::I64(ns) => Some(Duration::from_nanos(u64::try_from(*ns).ok()?)),
        other => other.as_str().parse().ok().map(Duration::from_nanos),
    }
}
