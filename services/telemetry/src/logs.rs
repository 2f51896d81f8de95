//! Logs on standard error: a line for people, or a JSON object, with the trace that a line belongs to.

use std::fmt::{self, Debug, Write};

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Writes one event.
pub(crate) struct Lines(pub(crate) LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        match self.0 {
            LogFormat::Human => {
                let mut said = Said::default();
                event.record(&mut said);
                write!(writer, "{time} {:>5} {}: {}", metadata.level(), metadata.target(), said.message)?;
                writer.write_str(&said.fields)?;
                if let Some((trace, _)) = ids() {
                    write!(writer, " trace={trace}")?;
                }
                writeln!(writer)
            }
            LogFormat::Json => {
                let mut object = Object::default();
                event.record(&mut object);
                let Object(mut object) = object;
                object.insert("timestamp".to_owned(), time.into());
                object.insert("level".to_owned(), metadata.level().as_str().into());
                object.insert("target".to_owned(), metadata.target().into());
                if let Some((trace, span)) = ids() {
                    object.insert("trace_id".to_owned(), trace.into());
                    object.insert("span_id".to_owned(), span.into());
                }
                writeln!(writer, "{}", Value::Object(object))
            }
        }
    }
}

/// Trace and span that the present thread works for, if they are recorded.
fn ids() -> Option<(String, String)> {
    let span = tracing::Span::current();
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| (context.trace_id().to_string(), context.span_id().to_string()))
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.record_debug(field, &value),
        }
    }
}

#[derive(Default)]
struct Object(Map<String, Value>);

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
