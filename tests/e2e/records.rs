//! The thin line: a write through one gateway is read at every edge, after the links' delay.

use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, until};

const EDGES: [&str; 3] = ["new-york", "london", "singapore"];

fn written_is_read(mode: &str) {
    let cluster = Cluster::up(&["--topology", "three-continents", "--mode", mode]);
    for (number, edge) in EDGES.into_iter().enumerate() {
        let path = format!("/v1/records/eu-west-1/from-{edge}");
        let written = cluster.json(Method::PUT, edge, &path, Some(&json!({"n": number})));
        assert_eq!(written["repeated"], false, "{written}");
        for reader in EDGES {
            until(&format!("{reader} reads what {edge} wrote"), || {
                let answer = cluster.send(Method::GET, reader, &path, None);
                answer.status() == 200
                    && serde_json::from_slice(answer.body()).is_ok_and(|v: serde_json::Value| v == json!({"n": number}))
            });
        }
    }
    assert!(cluster.stop().success());
}

#[test]
fn a_write_at_any_edge_is_read_at_every_edge_in_active_passive() {
    written_is_read("active-passive");
}

#[test]
fn a_write_at_any_edge_is_read_at_every_edge_in_active_active() {
    written_is_read("active-active");
}

#[test]
fn in_isolation_a_foreign_record_is_a_clear_error_that_names_the_home() {
    let cluster = Cluster::up(&["--topology", "three-continents", "--mode", "regional-isolation"]);
    cluster.json(Method::PUT, "london", "/v1/records/eu-west-1/own", Some(&json!(1)));
    let foreign = cluster.send(Method::GET, "singapore", "/v1/records/eu-west-1/own", None);
    let problem: serde_json::Value = serde_json::from_slice(foreign.body()).unwrap();
    assert_eq!(
        (foreign.status().as_u16(), &problem["code"], &problem["home"]),
        (421, &json!("wrong_home"), &json!("eu-west-1"))
    );
}
