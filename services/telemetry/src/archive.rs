//! Reading spans back from files: whole traces, put together from the files of all processes of a testbed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// A span, as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent's; absent for a root.
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// Beginning, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// The service that recorded it.
    pub service: String,
    /// The location that the service stands for.
    pub location: Option<String>,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    /// Whether its status is an error.
    pub failed: bool,
}

/// The files of a folder.
#[derive(Debug)]
pub struct Archive(Vec<PathBuf>);

impl Archive {
    /// The span files of a folder (`*.jsonl`, and `*.jsonl.old` before them); none if there is no such folder.
    pub fn open(folder: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(folder) else { return Self(Vec::new()) };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| {
            let name = path.to_string_lossy();
            name.ends_with(".jsonl") || name.ends_with(".jsonl.old")
        });
        files.sort();
        Self(files)
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans of these traces (32 hexadecimal digits each), in the order of their beginnings.
    pub fn traces(&self, ids: &BTreeSet<String>) -> io::Result<Vec<SpanRecord>> {
        let mut spans = Vec::new();
        self.each(
            |line| ids.iter().any(|id| line.contains(id.as_str())),
            |request| {
                let all = records(&request);
                spans.extend(all.filter(|span| ids.contains(&span.trace_id)));
                Ok(())
            },
        )?;
        spans.sort_by(|a, b| (a.start_ns, &a.span_id).cmp(&(b.start_ns, &b.span_id)));
        Ok(spans)
    }

    /// The trace that began last among those whose root has this span name (before it was named for people: see
    /// [`crate::names::span`]) or this attribute.
    pub fn last_with(&self, attribute: &str) -> io::Result<Option<String>> {
        let mut last: Option<(u64, String)> = None;
        self.each(
            |line| line.contains(attribute),
            |request| {
                for span in records(&request).filter(|span| span.parent_id.is_none()) {
                    let newer = last.as_ref().is_none_or(|(at, _)| *at < span.start_ns);
                    if newer && span.attributes.contains_key(attribute) {
                        last = Some((span.start_ns, span.trace_id));
                    }
                }
                Ok(())
            },
        )?;
        Ok(last.map(|(_, id)| id))
    }

    /// Copies the spans of these traces to a file of the same format.
    pub fn extract(&self, ids: &BTreeSet<String>, to: &Path) -> io::Result<()> {
        let wanted: BTreeSet<Vec<u8>> = ids.iter().filter_map(|id| unhex(id)).collect();
        let mut file = File::create(to)?;
        self.each(
            |line| ids.iter().any(|id| line.contains(id.as_str())),
            |mut request| {
                for resource in &mut request.resource_spans {
                    for scope in &mut resource.scope_spans {
                        scope.spans.retain(|span| wanted.contains(&span.trace_id));
                    }
                    resource.scope_spans.retain(|scope| !scope.spans.is_empty());
                }
                request.resource_spans.retain(|resource| !resource.scope_spans.is_empty());
                let mut line = serde_json::to_vec(&request)?;
                line.push(b'\n');
                file.write_all(&line)
            },
        )
    }

    /// Hands over every line that `wanted` lets through. A line that cannot be read (a process was killed within it) is
    /// passed over.
    fn each(
        &self,
        wanted: impl Fn(&str) -> bool,
        mut take: impl FnMut(ExportTraceServiceRequest) -> io::Result<()>,
    ) -> io::Result<()> {
        for path in &self.0 {
            let mut reader = BufReader::new(File::open(path)?);
            let mut line = String::new();
            loop {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    break;
                }
                if wanted(&line)
                    && let Ok(request) = serde_json::from_str(&line)
                {
                    take(request)?;
                }
            }
        }
        Ok(())
    }
}

fn records(request: &ExportTraceServiceRequest) -> impl Iterator<Item = SpanRecord> + '_ {
    request.resource_spans.iter().flat_map(|resource| {
        let of = resource.resource.as_ref().map(|resource| texts(&resource.attributes)).unwrap_or_default();
        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        spans.map(move |span| record(span, &of))
    })
}

fn record(span: &Span, resource: &BTreeMap<String, String>) -> SpanRecord {
    SpanRecord {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        name: span.name.clone(),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        service: resource.get("service.name").cloned().unwrap_or_default(),
        location: resource.get("cloud.region").cloned(),
        attributes: texts(&span.attributes),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &AnyValue| match &value.value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        _ => String::new(),
    };
    attributes.iter().filter_map(|pair| Some((pair.key.clone(), text(pair.value.as_ref()?)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()).collect()
}
