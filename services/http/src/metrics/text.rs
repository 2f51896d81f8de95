//! Prometheus' text format, version 0.0.4, with the names that Prometheus gives to OpenTelemetry's metrics: what is
//! scraped and what is pushed by OTLP have the same names.

use std::fmt::Write;

use super::{Family, Kind, Page, Value};

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The page as text.
pub fn text(page: &Page) -> String {
    let mut text = String::with_capacity(8192);
    for family in page.families() {
        write_family(&mut text, family);
    }
    text
}

/// The name in Prometheus (its OTLP receiver's strategy `UnderscoreEscapingWithSuffixes`).
pub fn prometheus_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut text: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let suffix = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        "1" if kind == Kind::Gauge => "_ratio",
        _ => "",
    };
    if !text.ends_with(suffix) {
        text.push_str(suffix);
    }
    if kind == Kind::Counter && !text.ends_with("_total") {
        text.push_str("_total");
    }
    text
}

// Writing to a String cannot fail.
fn write_family(text: &mut String, family: &Family) {
    let name = prometheus_name(family.name, family.unit, family.kind);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
    for point in &family.points {
        match &point.value {
            Value::Number(value) => {
                let _ = writeln!(text, "{name}{} {value}", Braces(&point.labels, None));
            }
            Value::Counts(counts) => {
                let mut below = 0;
                let bounds = counts.bounds.iter().map(ToString::to_string).chain(std::iter::once("+Inf".to_owned()));
                for (bound, count) in bounds.zip(&counts.counts) {
                    below += count;
                    let _ = writeln!(text, "{name}_bucket{} {below}", Braces(&point.labels, Some(&bound)));
                }
                let _ = writeln!(text, "{name}_sum{} {}", Braces(&point.labels, None), counts.sum);
                let _ = writeln!(text, "{name}_count{} {below}", Braces(&point.labels, None));
            }
        }
    }
}

/// Labels in braces; nothing if there are none.
struct Braces<'a>(&'a [(&'static str, String)], Option<&'a str>);

impl std::fmt::Display for Braces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(labels, bound) = self;
        if labels.is_empty() && bound.is_none() {
            return Ok(());
        }
        let mut comma = "{";
        for (name, value) in labels.iter().map(|(name, value)| (*name, value.as_str())).chain(bound.map(|b| ("le", b)))
        {
            write!(f, "{comma}{name}=\"")?;
            for character in value.chars() {
                match character {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_char('"')?;
            comma = ",";
        }
        f.write_char('}')
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Histogram;
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_gives() {
        for (name, unit, kind, wanted) in [
            ("longhaul.replication.lag", "s", Kind::Gauge, "longhaul_replication_lag_seconds"),
            ("longhaul.link.io", "By", Kind::Counter, "longhaul_link_io_bytes_total"),
            ("longhaul.region.conflicts", "{conflict}", Kind::Counter, "longhaul_region_conflicts_total"),
            ("longhaul.region.epoch", "{epoch}", Kind::Gauge, "longhaul_region_epoch"),
            ("longhaul.availability", "1", Kind::Gauge, "longhaul_availability_ratio"),
            ("http.server.request.duration", "s", Kind::Histogram, "http_server_request_duration_seconds"),
        ] {
            assert_eq!(prometheus_name(name, unit, kind), wanted);
        }
    }

    #[test]
    fn a_page_is_written_with_labels_escaped_and_buckets_cumulative() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(1));
        histogram.record(Duration::from_secs(90));
        let mut page = Page::new([("region", "eu\"west".to_owned())]);
        page.counter("longhaul.x", "Some x.", "{x}", &[("peer", "us")], 3);
        page.histogram("longhaul.t", "Some t.", "s", &[], histogram.counts());
        let text = text(&page);
        assert!(text.contains("longhaul_x_total{region=\"eu\\\"west\",peer=\"us\"} 3\n"), "{text}");
        assert!(text.contains("longhaul_t_seconds_bucket{region=\"eu\\\"west\",le=\"0.001\"} 1\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 2\n") && text.contains("_count{region=\"eu\\\"west\"} 2\n"), "{text}");
    }
}
