//! What people write into files: topologies, tables, drills, and the files of the roles.

use longhaul_core::plan::{self, DrillPlan};
use longhaul_core::rtt::{self, RttTable};
use longhaul_core::topology::Topology;
use longhaul_gateway::GatewayConfig;
use longhaul_netem::relay::RelayConfig;
use longhaul_region::RegionConfig;
use longhaul_traffic::TrafficConfig;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fuzz;

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

fn builtin(table: &str) -> Option<String> {
    rtt::builtin(table).map(str::to_owned)
}

/// A refusal is always one line.
fn one_line<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| assert_eq!(error.to_string().lines().count(), 1, "{error}")).ok()
}

#[test]
fn topologies() {
    let corpus: Vec<Vec<u8>> =
        longhaul_core::topology::SHIPPED.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    fuzz(&corpus, |input| one_line(Topology::parse("fuzz.toml", &text(input), &builtin)).is_some());
}

#[test]
fn tables_of_round_trips() {
    let head = |table: &str, lines: usize| {
        let text = rtt::builtin(table).unwrap();
        text.lines().take(lines).fold(String::new(), |text, line| text + line + "\n").into_bytes()
    };
    fuzz(&[head("aws", 12), head("azure", 40)], |input| one_line(RttTable::parse(&text(input))).is_some());
    fuzz(&[head("aws_jitter", 12)], |input| one_line(RttTable::parse_jitter(&text(input))).is_some());
}

/// A table that the user cites, inside a topology that makes use of it.
#[test]
fn topologies_over_damaged_tables() {
    let topology = "name='t'\n[rtt]\ntable='mine'\nsource='me'\n[[region]]\nname='a'\n[[region]]\nname='b'\n\
                    [[region]]\nname='c'";
    let corpus = [b"from,to,rtt_ms\na,b,10\nb,a,12\na,c,20\nb,c,30.5\n".to_vec()];
    fuzz(&corpus, |input| {
        one_line(Topology::parse("fuzz.toml", topology, &|name| (name == "mine").then(|| text(input)))).is_some()
    });
}

#[test]
fn drills() {
    let topology = Topology::shipped("three-continents").unwrap().unwrap();
    let corpus: Vec<Vec<u8>> = plan::SHIPPED.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let reads = |plan: Option<DrillPlan>| plan.map(|plan| one_line(plan.validate(&topology))).is_some();
    fuzz(&corpus, |input| reads(one_line(DrillPlan::parse("fuzz.toml", &text(input)))));
    let corpus: Vec<Vec<u8>> = corpus
        .iter()
        .map(|text| serde_json::to_vec(&toml::from_slice::<toml::Value>(text).unwrap()).unwrap())
        .collect();
    fuzz(&corpus, |input| reads(one_line(DrillPlan::parse_json("fuzz.json", &text(input)))));
}

fn json<T: DeserializeOwned>(valid: &serde_json::Value, check: impl Fn(T)) {
    fuzz(&[valid.to_string().into_bytes()], |input| serde_json::from_slice::<T>(input).map(&check).is_ok());
}

#[test]
fn files_of_roles() {
    let region = json!({
        "region": 1,
        "regions": {"1": "eu-west", "2": "us-east"},
        "listen": "127.0.0.1:0",
        "advertise": "127.0.0.1:1",
        "store": {"kind": "postgres", "url": "postgres://me@127.0.0.1/db", "schema": "mine"},
        "topology_fingerprint": "t",
        "peers": {"2": ["127.0.0.1:9", "127.0.0.1:10"]},
        "genesis": {"mode": "active-passive", "primary": 1, "durability": "semi(1)"},
        "seed": 1,
        "session_secret": "s",
        "timings": {"heartbeat_ms": 250},
    });
    json(&region, |config: RegionConfig| {
        if one_line(config.check()).is_some() {
            config.genesis_regime();
        }
    });
    let gateway = json!({
        "edge": "london", "home": 1, "listen": "127.0.0.1:0", "seed": 1,
        "regions": [{"id": 1, "name": "eu-west", "addresses": ["127.0.0.1:1"], "rtt_ms": 10.0}],
    });
    json(&gateway, |_: GatewayConfig| {});
    let relay = json!({
        "seed": 1,
        "links": [{"from": "a", "to": "b", "profile": {"delay_ms": 10.0}}],
        "routes": [{"from": "a", "to": "b", "listen": "127.0.0.1:1", "target": "127.0.0.1:2"}],
    });
    json(&relay, |_: RelayConfig| {});
    json(&json!({"seed": 1, "ledger_dir": "/nowhere"}), |_: TrafficConfig| {});
}
