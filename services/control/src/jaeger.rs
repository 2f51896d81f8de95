//! Addresses in Jaeger: of a trace, and of ready searches.

use std::collections::BTreeMap;

use longhaul_core::report::TraceLink;

/// Something to look for: its name, the service, the operation, the tags, the least duration.
type Search = (&'static str, &'static str, Option<&'static str>, &'static str, Option<&'static str>);

/// What is looked for after a drill.
const SEARCHES: [Search; 4] = [
    ("slow cross-region writes", "longhaul-traffic", Some("user write"), "{}", Some("500ms")),
    ("lost writes", "longhaul-control", None, r#"{"longhaul.lost":"true"}"#, None),
    ("retries", "longhaul-gateway", None, r#"{"http.request.resend_count":"1"}"#, None),
    ("failed requests", "longhaul-traffic", None, r#"{"longhaul.outcome":"failed"}"#, None),
];

/// A trace with its address, where Jaeger has one.
pub(crate) fn link(base: Option<&str>, trace_id: impl Into<String>) -> TraceLink {
    let trace_id = trace_id.into();
    let url = base.map(|base| format!("{}/trace/{trace_id}", base.trim_end_matches('/')));
    TraceLink { trace_id, url }
}

/// Ready searches within a span of time (nanoseconds since the Unix epoch); none without a Jaeger.
pub(crate) fn searches(base: Option<&str>, from_ns: u64, to_ns: u64) -> BTreeMap<String, String> {
    let Some(base) = base else { return BTreeMap::new() };
    let base = base.trim_end_matches('/');
    let search = |(name, service, operation, tags, least): &Search| {
        let mut url =
            format!("{base}/search?service={service}&start={}&end={}&limit=100", from_ns / 1000, to_ns / 1000);
        for (key, value) in [("operation", *operation), ("tags", Some(*tags)), ("minDuration", *least)] {
            if let Some(value) = value {
                url.push_str(&format!("&{key}={}", encoded(value)));
            }
        }
        ((*name).to_owned(), url)
    };
    SEARCHES.iter().map(search).collect()
}

/// Percent-encodes a query's value (RFC 3986: all but unreserved characters).
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_jaeger_there_is_no_address() {
        assert_eq!(link(None, "ab").url, None);
        assert!(searches(None, 0, 1).is_empty());
    }

    #[test]
    fn addresses_are_those_of_jaegers_pages() {
        let base = Some("http://127.0.0.1:16686/");
        assert_eq!(link(base, "ab").url.as_deref(), Some("http://127.0.0.1:16686/trace/ab"));
        let searches = searches(base, 1_000_000, 9_000_000);
        assert_eq!(
            searches["lost writes"],
            "http://127.0.0.1:16686/search?service=longhaul-control&start=1000&end=9000&limit=100\
             &tags=%7B%22longhaul.lost%22%3A%22true%22%7D"
        );
        assert!(searches["slow cross-region writes"].contains("operation=user%20write"));
        assert!(searches["slow cross-region writes"].ends_with("minDuration=500ms"));
    }
}
