//! Modes and primaries change while traffic flows, and users hardly notice.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};

/// Changes the regime and waits for the end of the change.
fn change(cluster: &Cluster, body: &Value) {
    let mut started = Value::Null;
    // A region that has just driven one change may refuse the next for a moment.
    until(&format!("{body} is accepted"), || {
        let answer = cluster.send(Method::PUT, "control", "/v1/regime", Some(body));
        started = serde_json::from_slice(answer.body()).unwrap();
        assert!(answer.status() == 202 || started["code"] == "conflict", "{body}: {started}");
        answer.status() == 202
    });
    let path = format!("/v1/failovers/{}", started["id"].as_str().unwrap());
    until(&format!("{body} is done"), || {
        let answer = cluster.send(Method::GET, "control", &path, None);
        let status: Value = serde_json::from_slice(answer.body()).unwrap();
        assert!(!matches!(status["state"].as_str(), Some("aborted" | "refused")), "{body}: {status}");
        status["state"] == "done"
    });
}

/// Operations of all edges so far: ended, and of those succeeded or refused by design.
fn counts(cluster: &Cluster) -> (f64, f64) {
    let status = cluster.control("/v1/traffic");
    let edges = status["edges"].as_object().unwrap();
    let sum = |name: &str| edges.values().map(|edge| edge[name].as_f64().unwrap()).sum::<f64>();
    (sum("ok") + sum("failed") + sum("unknown"), sum("ok"))
}

#[test]
fn every_regime_follows_the_other_while_traffic_flows() {
    let cluster = Cluster::up(&["--topology", "three-continents"]);
    let workload = json!({"workload": {"rate_per_s": 60.0, "foreign_share": 0.0}, "seed": 5});
    cluster.json(Method::POST, "control", "/v1/traffic", Some(&workload));
    until("traffic flows", || counts(&cluster).0 > 60.0);
    for body in [
        json!({"durability": "semi(1)"}),
        json!({"primary": "eu-west-1"}),
        json!({"mode": "active-active"}),
        json!({"mode": "regional-isolation"}),
        json!({"mode": "active-active"}),
        json!({"mode": "active-passive", "primary": "us-east-1", "durability": "local"}),
    ] {
        let (before, _) = counts(&cluster);
        change(&cluster, &body);
        until("traffic goes on", || counts(&cluster).0 > before + 60.0);
    }
    let (ended, ok) = counts(&cluster);
    assert!(ok / ended > 0.95, "{ok} of {ended} succeeded");
    let regime = cluster.control("/v1/regime");
    assert_eq!((regime["mode"].as_str(), regime["primary"].as_str()), (Some("active-passive"), Some("us-east-1")));
    cluster.json(Method::DELETE, "control", "/v1/traffic", None);
}

#[test]
fn what_the_regime_is_already_is_a_conflict() {
    let cluster = Cluster::up(&["--topology", "two-regions"]);
    let answer = cluster.send(Method::PUT, "control", "/v1/regime", Some(&json!({"mode": "active-passive"})));
    assert_eq!(answer.status(), 409);
}
