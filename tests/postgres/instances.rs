//! Several API instances of a region over one store: one writes, all answer, and another one takes over.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::fixture::PostgresServer;
use crate::instance::{Answer, Api, Instance, free_address, lone_region};
use crate::ledger::{Entry, Users, judge, uuid};

/// Within this time another instance writes (`limits::STORE_TAKEOVER`).
const TAKEOVER: Duration = longhaul_core::limits::STORE_TAKEOVER;

/// Instances over one server; the first one holds the store.
async fn pair(server: &PostgresServer, api: &Api) -> [Instance; 2] {
    let first = Instance::region(&lone_region(&server.url(), &free_address()));
    api.ready(&first.address).await;
    assert!(matches!(api.put(&first.address, "first", &uuid(1), &json!(1)).await, Answer::Ok(_)));
    let second = Instance::region(&lone_region(&server.url(), &free_address()));
    api.ready(&second.address).await;
    [first, second]
}

fn longest_pause(entries: &[Entry]) -> Duration {
    let times: Vec<Instant> = entries.iter().filter(|entry| entry.is_ok()).map(|entry| entry.at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[tokio::test]
async fn every_instance_takes_writes_and_shows_what_was_acknowledged_by_any() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let [first, second] = pair(&server, &api).await;
    for round in 0..40_u64 {
        let (writer, reader) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let written = api.put(&writer.address, "shared", &uuid(100 + u128::from(round)), &json!(round)).await;
        assert!(matches!(written, Answer::Ok(_)), "{written:?}");
        // No session, no pause: what was acknowledged is there, whoever is asked.
        let read = api.get(&reader.address, "/v1/records/eu-west/shared").await;
        assert_eq!(read, Answer::Ok(json!(round)));
    }
    // The one that does not write forwards what it does not answer itself.
    let Answer::Ok(status) = api.get(&second.address, "/internal/v1/status").await else { panic!("no status") };
    assert_eq!(status["region"], "eu-west");
    let deleted = api.send(&second.address, Method::DELETE, "/v1/records/eu-west/shared", &[], None).await;
    assert!(matches!(deleted, Answer::Ok(_)), "{deleted:?}");
    let gone = api.get(&first.address, "/v1/records/eu-west/shared").await;
    assert!(matches!(gone, Answer::Refused(longhaul_core::error_code::ErrorCode::NotFound, _)), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::disallowed_methods, reason = "a test outside of the program looks at a real clock")]
async fn a_killed_writer_is_followed_by_the_other_within_the_deadline() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let [mut first, second] = pair(&server, &api).await;
    let users = Users::start(&api, &[&second.address], 8);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let killed = Instant::now();
    first.kill();
    tokio::time::sleep(TAKEOVER).await;
    let entries = users.stop().await;
    let again = entries.iter().find(|entry| entry.is_ok() && entry.at > killed + Duration::from_millis(100));
    let again = again.expect("another instance writes").at - killed;
    let counts = judge(&api, &second.address, &entries).await;
    println!("killed: writes again after {} ms, {counts:?}", again.as_millis());
    assert!(again < TAKEOVER, "{again:?}");
    assert!(counts.acknowledged > 100, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::disallowed_methods, reason = "a test outside of the program looks at a real clock")]
async fn a_paused_writer_is_deposed_and_acknowledges_nothing_when_it_goes_on() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let [first, second] = pair(&server, &api).await;
    let users = Users::start(&api, &[&second.address], 4);
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.signal("STOP");
    let paused = Instant::now();
    // Whatever it had accepted is on its way; it goes on after the other one writes.
    tokio::time::sleep(TAKEOVER + Duration::from_secs(1)).await;
    first.signal("CONT");
    api.ready(&first.address).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let entries = users.stop().await;
    let again = entries.iter().find(|entry| entry.is_ok() && entry.at > paused + Duration::from_millis(500));
    let again = again.expect("another instance writes").at - paused;
    for address in [&first.address, &second.address] {
        let counts = judge(&api, address, &entries).await;
        println!("paused: writes again after {} ms, {counts:?}", again.as_millis());
    }
    assert!(again < TAKEOVER, "{again:?}");
    let held: String = server.sql("SELECT term FROM longhaul.holder").unwrap();
    assert_eq!(held, "2", "the one that was paused did not take the store back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_writer_that_is_told_to_stop_hands_over_at_once() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let [mut first, second] = pair(&server, &api).await;
    let users = Users::start(&api, &[&second.address], 4);
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.signal("TERM");
    assert!(first.ended_well());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let entries = users.stop().await;
    let counts = judge(&api, &second.address, &entries).await;
    let pause = longest_pause(&entries);
    println!("told to stop: longest pause {} ms, {counts:?}", pause.as_millis());
    assert!(pause < Duration::from_millis(1500), "{pause:?}");
    let held: String = server.sql("SELECT term FROM longhaul.holder").unwrap();
    assert_eq!(held, "2");
}

/// Region 1 of three in active-passive: its instances share a store, the other regions keep theirs in memory.
fn one_of_three(url: &str, region: u16, address: &str, all: &[Vec<String>; 3]) -> Value {
    let store = if region == 1 { json!({"kind": "postgres", "url": url}) } else { json!({"kind": "memory"}) };
    let mut peers = serde_json::Map::new();
    for (peer, addresses) in (1..).zip(all).filter(|(peer, _)| *peer != region) {
        peers.insert(peer.to_string(), json!(addresses));
    }
    json!({
        "region": region,
        "regions": {"1": "eu-west", "2": "us-east", "3": "ap-south"},
        "listen": address,
        "store": store,
        "topology_fingerprint": "tests",
        "peers": peers,
        "genesis": {"mode": "active-passive", "primary": 1, "durability": "semi(1)"},
        "seed": 1,
        "session_secret": "tests",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::disallowed_methods, reason = "a test outside of the program looks at a real clock")]
async fn the_death_of_an_instance_of_the_primary_is_no_failover() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let all = [vec![free_address(), free_address()], vec![free_address()], vec![free_address()]];
    let start = |region: u16, address: &String| Instance::region(&one_of_three(&server.url(), region, address, &all));
    let mut first = start(1, &all[0][0]);
    let others = [start(2, &all[1][0]), start(3, &all[2][0])];
    api.until(
        &first.address,
        "/internal/v1/status",
        |answer| matches!(answer, Answer::Ok(status) if status["role"] == "primary"),
    )
    .await;
    let second = start(1, &all[0][1]);
    api.ready(&second.address).await;
    let users = Users::start(&api, &[&second.address], 4);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let killed = Instant::now();
    first.kill();
    tokio::time::sleep(TAKEOVER + Duration::from_secs(1)).await;
    let entries = users.stop().await;
    let again = entries.iter().find(|entry| entry.is_ok() && entry.at > killed + Duration::from_millis(100));
    let again = again.expect("another instance writes").at - killed;
    let counts = judge(&api, &second.address, &entries).await;
    println!("an instance of the primary killed: writes again after {} ms, {counts:?}", again.as_millis());
    assert!(again < TAKEOVER, "{again:?}");
    for other in &others {
        let Answer::Ok(regime) = api.get(&other.address, "/v1/regime").await else { panic!("no regime") };
        assert_eq!((&regime["epoch"], &regime["primary"]), (&json!(1), &json!(1)), "{regime}");
    }
}

/// A gateway at an edge next to the region.
fn gateway(instances: &[Instance; 2], balancing: &str) -> Value {
    let addresses: Vec<&str> = instances.iter().map(|instance| instance.address.as_str()).collect();
    json!({
        "edge": "london", "home": 1, "listen": free_address(), "seed": 7, "balancing": balancing,
        "regions": [{"id": 1, "name": "eu-west", "addresses": addresses, "rtt_ms": 1.0}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_balances_over_the_instances_and_rides_out_the_death_of_the_writer() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let mut instances = pair(&server, &api).await;
    let gateway = Instance::start("gateway", &gateway(&instances, "power_of_two"));
    api.ready(&gateway.address).await;
    let users = Users::start(&api, &[&gateway.address], 8);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let Answer::Ok(status) = api.get(&gateway.address, "/internal/v1/gateway").await else { panic!("no status") };
    let told = &status["regions"][0]["instances"];
    assert!(told.as_object().is_some_and(|all| all.len() == 2 && all.values().all(|up| *up == true)), "{status}");
    instances[0].kill();
    tokio::time::sleep(TAKEOVER).await;
    let entries = users.stop().await;
    let counts = judge(&api, &gateway.address, &entries).await;
    println!("through the gateway: longest pause {} ms, {counts:?}", longest_pause(&entries).as_millis());
    assert!(longest_pause(&entries) < TAKEOVER);
    assert!(counts.acknowledged > 100, "{counts:?}");
}
