//! A trace as a waterfall: every span a bar, below its parent. Drawn in the terminal and on the report's page.

mod svg;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use longhaul_telemetry::archive::SpanRecord;
use serde::Serialize;

pub(crate) use svg::svg;
pub(crate) use text::text;

/// Most spans that are drawn; the rest are counted.
const ROWS_MAX: usize = 300;

/// One bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// How deep below the root.
    pub(crate) depth: usize,
    /// The span's name.
    pub(crate) name: String,
    /// Who recorded it.
    pub(crate) service: String,
    /// Where.
    pub(crate) location: Option<String>,
    /// Beginning after the first span's, milliseconds.
    pub(crate) start_ms: f64,
    /// Length, milliseconds.
    pub(crate) took_ms: f64,
    /// Whether it failed.
    pub(crate) failed: bool,
    /// Its attributes.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Traces that it is linked to.
    pub(crate) links: Vec<String>,
}

/// A trace, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Waterfall {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// Length of the whole, milliseconds.
    pub(crate) took_ms: f64,
    /// The bars, parents before children, children in the order of their beginnings.
    pub(crate) rows: Vec<Row>,
    /// Spans that were left out.
    pub(crate) left_out: usize,
}

impl Waterfall {
    /// The waterfall of a trace; `None` if there is no span of it.
    pub(crate) fn of(trace_id: &str, spans: &[SpanRecord]) -> Option<Self> {
        let spans: Vec<&SpanRecord> = spans.iter().filter(|span| span.trace_id == trace_id).collect();
        let start_ns = spans.iter().map(|span| span.start_ns).min()?;
        let end_ns = spans.iter().map(|span| span.end_ns).max()?;
        let known: BTreeSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
        let mut children: BTreeMap<Option<&str>, Vec<&SpanRecord>> = BTreeMap::new();
        for span in &spans {
            // A parent that nobody recorded (its process was killed) makes its child a root.
            let parent = span.parent_id.as_deref().filter(|id| known.contains(id) && *id != span.span_id);
            children.entry(parent).or_default().push(span);
        }
        for siblings in children.values_mut() {
            siblings.sort_by_key(|span| (span.start_ns, std::cmp::Reverse(span.end_ns), span.span_id.as_str()));
        }
        let mut rows = Vec::new();
        let mut stack: Vec<(usize, &SpanRecord)> = Vec::new();
        stack.extend(children.remove(&None).unwrap_or_default().into_iter().rev().map(|span| (0, span)));
        while let Some((depth, span)) = stack.pop() {
            rows.push(Row {
                depth,
                name: span.name.clone(),
                service: span.service.clone(),
                location: span.location.clone(),
                start_ms: (span.start_ns - start_ns) as f64 / 1e6,
                took_ms: span.end_ns.saturating_sub(span.start_ns) as f64 / 1e6,
                failed: span.failed,
                attributes: span.attributes.clone(),
                links: span.links.iter().map(|(trace, _)| trace.clone()).collect(),
            });
            let below = children.remove(&Some(span.span_id.as_str())).unwrap_or_default();
            stack.extend(below.into_iter().rev().map(|span| (depth + 1, span)));
        }
        let left_out = rows.len().saturating_sub(ROWS_MAX);
        rows.truncate(ROWS_MAX);
        Some(Self { trace_id: trace_id.to_owned(), took_ms: (end_ns - start_ns) as f64 / 1e6, rows, left_out })
    }
}

impl Row {
    /// Who recorded it, and where, for people.
    fn place(&self) -> String {
        let service = self.service.strip_prefix("longhaul-").unwrap_or(&self.service);
        match &self.location {
            Some(location) if location != service => format!("{service} {location}"),
            _ => service.to_owned(),
        }
    }

    /// What is worth reading beside the bar.
    fn remarks(&self) -> String {
        const SHOWN: [(&str, &str); 10] = [
            ("longhaul.rto_ms", "RTO ms"),
            ("longhaul.rpo.writes", "lost writes"),
            ("longhaul.rpo.seconds", "lost seconds"),
            ("longhaul.epoch", "epoch"),
            ("longhaul.from", "from"),
            ("longhaul.to", "to"),
            ("longhaul.peer", "peer"),
            ("longhaul.durability", "durability"),
            ("longhaul.code", "code"),
            ("http.response.status_code", "status"),
        ];
        let shown = SHOWN.iter().filter_map(|(name, label)| Some(format!("{label} {}", self.attributes.get(*name)?)));
        shown.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn span(id: &str, parent: Option<&str>, name: &str, from_ms: u64, to_ms: u64) -> SpanRecord {
        SpanRecord {
            trace_id: "ab".to_owned(),
            span_id: id.to_owned(),
            parent_id: parent.map(str::to_owned),
            name: name.to_owned(),
            start_ns: 1_000_000_000 + from_ms * 1_000_000,
            end_ns: 1_000_000_000 + to_ms * 1_000_000,
            service: "longhaul-region".to_owned(),
            location: Some("eu-west".to_owned()),
            attributes: BTreeMap::new(),
            links: Vec::new(),
            failed: false,
        }
    }

    #[test]
    fn children_come_below_their_parents_in_the_order_of_their_beginnings() {
        let spans = [
            span("3", Some("1"), "late", 20, 30),
            span("4", Some("2"), "inner", 6, 8),
            span("1", None, "root", 0, 40),
            span("2", Some("1"), "early", 5, 10),
        ];
        let waterfall = Waterfall::of("ab", &spans).unwrap();
        let rows: Vec<_> = waterfall.rows.iter().map(|row| (row.depth, row.name.as_str())).collect();
        assert_eq!(rows, [(0, "root"), (1, "early"), (2, "inner"), (1, "late")]);
        assert!((waterfall.took_ms - 40.0).abs() < 1e-9 && (waterfall.rows[3].start_ms - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_span_whose_parent_was_lost_is_drawn_all_the_same() {
        let spans = [span("1", None, "root", 0, 40), span("2", Some("gone"), "orphan", 5, 10)];
        assert_eq!(Waterfall::of("ab", &spans).unwrap().rows.len(), 2);
        assert_eq!(Waterfall::of("cd", &spans), None);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let spans: Vec<_> = (0..ROWS_MAX as u64 + 5).map(|n| span(&n.to_string(), None, "many", n, n + 1)).collect();
        assert_eq!(Waterfall::of("ab", &spans).unwrap().left_out, 5);
    }
}
