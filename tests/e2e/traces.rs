//! Traces as the processes wrote them: whole from the user to the last replica, silent about records in isolation, and
//! with the figures of the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::collector::{Collector, Protocol};

/// A span, of what a test looks at.
#[derive(Debug)]
pub(crate) struct Span {
    trace: String,
    id: String,
    parent: String,
    pub(crate) name: String,
    /// `service.name` and `service.instance.id` of who recorded it.
    by: (String, String),
    began_ns: u64,
    ended_ns: u64,
    attributes: BTreeMap<String, Value>,
    /// The spans that it is linked to.
    links: Vec<String>,
}

impl Span {
    fn millis(&self) -> f64 {
        (self.ended_ns - self.began_ns) as f64 / 1e6
    }

    fn number(&self, name: &str) -> f64 {
        let value = self.attributes.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        let number = |kind: &str| value[kind].as_f64().or_else(|| value[kind].as_str()?.parse().ok());
        number("doubleValue").or_else(|| number("intValue")).unwrap_or_else(|| panic!("{name} is no number: {value}"))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let list = of["attributes"].as_array().cloned().unwrap_or_default();
    list.into_iter().map(|pair| (text(&pair["key"]), pair["value"].clone())).collect()
}

/// Every span in the files of a testbed's data folder, or of a report's.
pub(crate) fn spans(folder: &Path) -> Vec<Span> {
    let mut spans = Vec::new();
    for line in lines(folder) {
        let document: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for resource in document["resourceSpans"].as_array().unwrap() {
            let who = attributes(&resource["resource"]);
            let by = (text(&who["service.name"]["stringValue"]), text(&who["service.instance.id"]["stringValue"]));
            let scopes = resource["scopeSpans"].as_array().unwrap();
            for span in scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap()) {
                let links = span["links"].as_array().cloned().unwrap_or_default();
                let nanos = |name: &str| text(&span[name]).parse().unwrap();
                spans.push(Span {
                    trace: text(&span["traceId"]),
                    id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                    name: text(&span["name"]),
                    by: by.clone(),
                    began_ns: nanos("startTimeUnixNano"),
                    ended_ns: nanos("endTimeUnixNano"),
                    attributes: attributes(span),
                    links: links.iter().map(|link| text(&link["spanId"])).collect(),
                });
            }
        }
    }
    spans
}

fn lines(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("spans")).unwrap().map(|entry| entry.unwrap().path());
    files
        .flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Operations of all edges so far: begun, and ended.
fn counts(cluster: &Cluster) -> (u64, u64) {
    let status = cluster.control("/v1/traffic");
    let edges = status["edges"].as_object().unwrap();
    let sum = |names: &[&str]| {
        edges.values().flat_map(|edge| names.iter().filter_map(|name| edge[*name].as_u64())).sum::<u64>()
    };
    (sum(&["sent"]), sum(&["ok", "failed", "unknown"]))
}

#[test]
fn a_write_is_one_trace_from_its_user_to_every_region_and_no_span_is_lost_at_the_end() {
    let collector = Collector::start();
    let cluster = Cluster::up_with(tempfile::tempdir().unwrap(), &[], |command| {
        collector.collect_from(command, Protocol::Http);
    });
    let workload = json!({"workload": {"rate_per_s": 40.0, "read_share": 0.3}, "seed": 3});
    cluster.json(Method::POST, "control", "/v1/traffic", Some(&workload));
    until("users are served", || counts(&cluster).1 > 120);
    cluster.json(Method::DELETE, "control", "/v1/traffic", None);
    until("the last answers are there", || {
        let (begun, ended) = counts(&cluster);
        begun == ended
    });
    // Regions apply the primary's writes in order: who has the last one has them all.
    cluster.json(Method::PUT, "london", "/v1/records/eu-west-1/last", Some(&json!(1)));
    for region in ["us-east-1", "eu-west-1", "ap-southeast-1"] {
        let has_it = || cluster.send(Method::GET, region, "/v1/records/eu-west-1/last", None).status() == 200;
        until(&format!("{region} has the last write"), has_it);
    }
    let (status, folder) = cluster.stop_and_keep();
    assert!(status.success());

    let written = spans(&folder.path().join("data"));
    collector.write_to(folder.path());
    let received = spans(folder.path());
    whole_traces(&written);
    whole_traces(&received);
    let ids = |spans: &[Span]| spans.iter().map(|span| span.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&written), ids(&received), "what is written and what is exported are the same");
    let metrics = collector.metrics();
    let of = |service: &str| metrics.iter().filter(|(by, _)| by == service).count();
    for service in ["longhaul-control", "longhaul-gateway", "longhaul-link", "longhaul-region", "longhaul-traffic"] {
        assert!(of(service) > 0, "{service} told nothing; told was {metrics:?}");
    }
}

/// Every span has its parent, every link leads somewhere, and each write is one trace to every region.
fn whole_traces(spans: &[Span]) {
    let known: BTreeSet<(&str, &str)> = spans.iter().map(|span| (span.trace.as_str(), span.id.as_str())).collect();
    let orphan =
        |span: &&Span| !span.parent.is_empty() && !known.contains(&(span.trace.as_str(), span.parent.as_str()));
    let orphans: Vec<&Span> = spans.iter().filter(orphan).collect();
    assert!(orphans.is_empty(), "{} spans without their parents, first {:?}", orphans.len(), orphans[0]);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let lost_link = spans.iter().find(|span| span.links.iter().any(|link| !ids.contains(link.as_str())));
    assert!(lost_link.is_none(), "a link to nowhere: {lost_link:?}");

    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    let has = |trace: &[&Span], name: &str| trace.iter().any(|span| span.name == name);
    let written: Vec<_> =
        traces.values().filter(|trace| has(trace, "user write") && has(trace, "COMMIT operations")).collect();
    assert!(written.len() > 50, "{} writes were traced", written.len());
    let services = ["longhaul-traffic", "longhaul-gateway", "longhaul-region"];
    for trace in &written {
        let by: BTreeSet<&str> = trace.iter().map(|span| span.by.0.as_str()).collect();
        assert!(services.iter().all(|service| by.contains(service)), "{trace:?}");
        let commit = trace.iter().find(|span| span.name == "COMMIT operations").unwrap();
        let applied = trace.iter().filter(|span| span.name.starts_with("apply at "));
        let regions: BTreeSet<&str> = applied.clone().map(|span| span.by.1.as_str()).collect();
        assert!(
            applied.clone().all(|apply| apply.began_ns > commit.began_ns),
            "applied before it was written: {trace:?}"
        );
        assert!(!regions.contains(commit.by.1.as_str()), "a region ships nothing to itself: {trace:?}");
        assert_eq!(regions.len(), 2, "when did each region have it? {trace:#?}");
    }
}

#[test]
fn telemetry_of_regional_isolation_is_silent_about_records() {
    let collector = Collector::start();
    let cluster = Cluster::up_with(tempfile::tempdir().unwrap(), &["--mode", "regional-isolation"], |command| {
        collector.collect_from(command, Protocol::Grpc);
    });
    let canary = "a-record-nobody-else-may-know";
    let home = "eu-west-1";
    let path = format!("/v1/records/{home}/{canary}");
    let value = json!({"secret": "a-value-nobody-else-may-know"});
    until("the home writes", || cluster.send(Method::PUT, "london", &path, Some(&value)).status().is_success());
    assert_eq!(cluster.send(Method::GET, "london", &path, None).status(), 200);
    // Asked for where it may not be: the refusal is traced, too.
    cluster.send(Method::GET, "us-east-1", &path, None);
    let (status, folder) = cluster.stop_and_keep();
    assert!(status.success());
    collector.write_to(folder.path());
    for told in [folder.path().join("data"), folder.path().to_owned()] {
        let lines = lines(&told);
        assert!(
            lines.iter().any(|line| line.contains("/v1/records/{home}/{id}")),
            "the requests themselves are traced"
        );
        let secret = lines.iter().find(|line| line.contains("nobody-else-may-know"));
        assert!(secret.is_none(), "{secret:?}");
        let spans = spans(&told);
        let travelled =
            spans.iter().find(|span| span.name.starts_with("apply at ") || span.name == "send longhaul.replication");
        assert!(travelled.is_none(), "{travelled:?}");
    }
}

/// The failover's trace in a report's folder has the verdict's figures.
pub(crate) fn failover_has_the_figures_of(report: &Value, folder: &Path) {
    let trace = report["traces"]["failover"]["trace_id"].as_str().expect("the failover has a trace");
    let spans: Vec<Span> = spans(folder).into_iter().filter(|span| span.trace == trace).collect();
    let root = spans.iter().find(|span| span.parent.is_empty()).expect("the trace has a root");
    let worst =
        report["rto_ms"].as_object().unwrap().values().filter_map(|rto| rto["write"].as_f64()).fold(0.0, f64::max);
    assert!((root.number("longhaul.rto_ms") - worst).abs() < 0.01, "{root:?}: the verdict says {worst} ms");
    assert!((root.number("longhaul.rpo.writes") - report["rpo"]["writes"].as_f64().unwrap()).abs() < 0.5, "{root:?}");
    for (edge, phases) in report["rto_phases_ms"].as_object().unwrap() {
        let recovery = spans.iter().find(|span| span.name == format!("recovery of writes at {edge}"));
        let recovery = recovery.unwrap_or_else(|| panic!("{edge} has no recovery"));
        let parts: Vec<&Span> = spans.iter().filter(|span| span.parent == recovery.id).collect();
        let sum: f64 = parts.iter().map(|part| part.millis()).sum();
        let total = phases["total"].as_f64().unwrap();
        assert!(
            parts.len() == 6 && (sum - total).abs() < 0.1,
            "{edge}: {sum} ms in {parts:?}, the verdict says {total}"
        );
        assert!(!recovery.links.is_empty(), "{edge}: which request failed first?");
    }
}
