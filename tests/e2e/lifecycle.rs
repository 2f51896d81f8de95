//! Starting and stopping: nothing is left behind, however the testbed ends.

use std::net::TcpListener;

use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, lives, signal, until};

#[test]
fn a_testbed_that_is_told_to_stop_leaves_no_process_and_no_port() {
    let cluster = Cluster::up(&["--topology", "two-regions"]);
    let (children, addresses) = (cluster.children(), cluster.addresses());
    assert_eq!(children.len(), 5, "two regions, one gateway, links, users");
    assert!(cluster.stop().success());
    assert!(!children.iter().any(|child| lives(*child)), "a child outlived its parent");
    for address in addresses {
        TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address} is still taken: {error}"));
    }
}

#[test]
fn children_end_with_a_parent_that_is_killed_even_when_one_is_stopped() {
    let cluster = Cluster::up(&["--topology", "two-regions"]);
    let children = cluster.children();
    let fault = json!({"do": "pause", "target": "eu-central-1"});
    cluster.json(Method::POST, "control", "/v1/faults", Some(&fault));
    signal(cluster.parent(), "KILL");
    until("every child ends", || !children.iter().any(|child| lives(*child)));
}

#[test]
fn a_killed_region_is_a_killed_process_and_returns_on_its_data() {
    let cluster = Cluster::up(&["--topology", "two-regions", "--mode", "active-active"]);
    let before = cluster.children().len();
    let loss = json!({"do": "region-loss", "region": "eu-central-1"});
    let fault = cluster.json(Method::POST, "control", "/v1/faults", Some(&loss));
    assert_eq!(fault["state"], "active");
    assert_eq!(cluster.children().len(), before - 1);
    for link in cluster.control("/v1/links").as_array().unwrap() {
        let touches = link["from"] == "eu-central-1" || link["to"] == "eu-central-1";
        assert_eq!(link["current"]["state"], if touches { "cut" } else { "up" }, "{link}");
    }
    let healed = cluster.json(Method::DELETE, "control", "/v1/faults", None);
    assert_eq!(healed["trouble"], json!([]));
    until("the region serves again", || cluster.control("/v1/regions/eu-central-1")["status"]["ready"] == true);
    assert_eq!(cluster.children().len(), before);
}

#[test]
fn two_testbeds_run_side_by_side() {
    let one = Cluster::up(&["--topology", "two-regions"]);
    let two = Cluster::up(&["--topology", "two-regions"]);
    for address in one.addresses() {
        assert!(!two.addresses().contains(&address), "{address} is in both");
    }
    assert!(one.stop().success());
    assert_eq!(two.control("/v1/regime")["epoch"], 1, "the other one goes on");
}

#[test]
fn control_shows_what_runs_and_answers_problems() {
    let cluster = Cluster::up(&["--topology", "two-regions"]);
    let topology = cluster.control("/v1/topology");
    assert_eq!((topology["name"].as_str(), topology["world"].as_str()), (Some("two-regions"), Some("embedded")));
    assert_eq!(cluster.control("/openapi.json")["openapi"], "3.1.0");
    let docs = cluster.send(Method::GET, "control", "/docs/", None);
    assert!(String::from_utf8_lossy(docs.body()).contains("swagger-ui"));
    let lost = cluster.send(Method::GET, "control", "/v1/nothing", None);
    assert_eq!(
        (lost.status().as_u16(), lost.headers()["content-type"].to_str().unwrap()),
        (404, "application/problem+json")
    );
    let body = json!({"do": "region-loss", "region": "atlantis"});
    let unknown = cluster.send(Method::POST, "control", "/v1/faults", Some(&body));
    let problem: serde_json::Value = serde_json::from_slice(unknown.body()).unwrap();
    assert_eq!(problem["code"], "unknown_name");
    assert!(problem["detail"].as_str().unwrap().contains("eu-west-1"), "{problem}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(cluster.send(Method::GET, "control", path, None).status(), 200, "{path}");
    }
}

#[test]
fn the_program_has_no_place_to_die_on_command() {
    let cluster = Cluster::up(&["--topology", "two-regions"]);
    let armed = json!({"point": "before_commit"});
    let answer = cluster.send(Method::PUT, "eu-west-1", "/internal/v1/fail-point", Some(&armed));
    assert_eq!(answer.status(), 404);
    until("the region takes writes", || {
        let answer = cluster.send(Method::PUT, "eu-west-1", "/v1/records/eu-west-1/alive", Some(&json!(1)));
        answer.status().is_success()
    });
}
