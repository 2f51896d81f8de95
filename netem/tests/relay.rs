//! The suite of link behaviour against the userspace relay, on loopback.

use std::sync::Arc;

use futures::future::BoxFuture;
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile};
use longhaul_http::clock::SystemClock;
use longhaul_http::net::{Net, TokioNet};
use longhaul_netem::conformance::{self, Bench, Direction, Finding, LinkDriver};
use longhaul_netem::relay::{LinkConfig, Relay, RelayConfig, RouteConfig};
use tokio_util::sync::CancellationToken;

struct RelayDriver(Arc<Relay>);

impl LinkDriver for RelayDriver {
    fn change(&self, direction: Direction, patch: LinkPatch) -> BoxFuture<'_, Result<(), String>> {
        let (from, to) = match direction {
            Direction::There => ("near", "far"),
            Direction::Back => ("far", "near"),
        };
        let result = self.0.patch(from, to, &patch).map(drop).map_err(|error| error.to_string());
        Box::pin(std::future::ready(result))
    }

    fn heal(&self) -> BoxFuture<'_, Result<(), String>> {
        self.0.reset_to_declared();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Runs one case over a relay with these one-way delays, and closes everything.
async fn run(there_ms: f64, back_ms: f64, case: impl AsyncFnOnce(&mut Bench) -> Finding) {
    run_owned(there_ms, back_ms, async |mut bench: Bench| case(&mut bench).await).await;
}

async fn run_owned(there_ms: f64, back_ms: f64, case: impl AsyncFnOnce(Bench) -> Finding) {
    let (near, far) = (LocationName::new("near").unwrap(), LocationName::new("far").unwrap());
    let net = Arc::new(TokioNet);
    let clock = Arc::new(SystemClock::default());
    let listener = net.bind("127.0.0.1:0").await.unwrap();
    let link = |from: &LocationName, to: &LocationName, delay_ms| LinkConfig {
        from: from.clone(),
        to: to.clone(),
        profile: LinkProfile::delay(delay_ms),
    };
    let config = RelayConfig {
        seed: 3,
        links: vec![link(&near, &far, there_ms), link(&far, &near, back_ms)],
        routes: vec![RouteConfig {
            from: near,
            to: far,
            listen: "127.0.0.1:0".to_owned(),
            target: listener.address().unwrap().to_string(),
        }],
    };
    let shutdown = CancellationToken::new();
    let relay = Arc::new(Relay::start(net.clone(), clock.clone(), config, shutdown.clone()).await.unwrap());
    let dial = relay.addresses()[0].1.clone();
    let driver = Arc::new(RelayDriver(relay.clone()));
    let bench = Bench { net, clock, driver, dial, listener, there_ms, back_ms };
    let finding = case(bench).await;
    shutdown.cancel();
    relay.join().await;
    match finding {
        Ok(line) => println!("{line}"),
        Err(line) => panic!("{line}"),
    }
}

#[tokio::test]
async fn a_round_trip_is_as_declared() {
    run(3.7, 1.2, conformance::round_trip).await;
    run(20.0, 15.25, conformance::round_trip).await;
}

#[tokio::test]
async fn a_new_connection_costs_one_more_round_trip() {
    run(20.0, 10.0, conformance::handshake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_link_is_not_a_slow_one() {
    // A build for tests on a busy machine; without many chunks in flight it would be well below 1 MB/s.
    run(118.0, 118.0, async |bench: &mut Bench| conformance::throughput(bench, 50_000_000, 20e6).await).await;
}

#[tokio::test]
async fn a_cut_loses_what_is_in_flight() {
    run(60.0, 20.0, conformance::cut_in_flight).await;
}

#[tokio::test]
async fn a_cut_in_one_direction_leaves_the_other_one_alone() {
    run(10.0, 10.0, conformance::one_way_cut).await;
}

#[tokio::test]
async fn idle_connections_outlive_a_cut_and_new_ones_hang() {
    run(5.0, 5.0, conformance::idle_and_new_connections_in_a_cut).await;
}

#[tokio::test]
async fn a_live_change_acts_on_open_connections() {
    run(8.0, 8.0, conformance::live_change).await;
}

#[tokio::test]
async fn a_reset_ends_open_connections() {
    run(5.0, 5.0, conformance::reset).await;
}

#[tokio::test]
async fn jitter_keeps_the_mean() {
    run(20.0, 5.0, conformance::jitter).await;
}

#[tokio::test]
async fn a_rate_bounds_what_gets_through() {
    run(10.0, 10.0, conformance::rate).await;
}

#[tokio::test]
async fn a_loss_stalls_and_loses_nothing() {
    run(5.0, 5.0, conformance::loss).await;
}

#[tokio::test]
async fn half_closed_connections_stay_half_open() {
    run(25.0, 5.0, conformance::half_close).await;
}

#[tokio::test]
async fn a_flapping_link_goes_down_and_up() {
    run(2.0, 2.0, conformance::flap).await;
}

#[tokio::test]
async fn a_target_that_refuses_is_a_reset_after_a_round_trip() {
    run_owned(15.0, 10.0, conformance::refused_target).await;
}

#[tokio::test]
async fn a_relay_that_cannot_work_does_not_start() {
    let name = |text: &str| LocationName::new(text).unwrap();
    let link = |from: &str, to: &str| LinkConfig { from: name(from), to: name(to), profile: LinkProfile::delay(1.0) };
    let taken = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let route = RouteConfig {
        from: name("a"),
        to: name("b"),
        listen: taken.address().unwrap().to_string(),
        target: "127.0.0.1:1".to_owned(),
    };
    let refused = async |links: Vec<LinkConfig>| {
        let config = RelayConfig { seed: 1, links, routes: vec![route.clone()] };
        let clock = Arc::new(SystemClock::default());
        let started = Relay::start(Arc::new(TokioNet), clock, config, CancellationToken::new()).await;
        started.err().expect("it must not start").to_string()
    };
    let one_direction = refused(vec![link("a", "b")]).await;
    assert!(one_direction.contains("configure both directions"), "{one_direction}");
    let twice = refused(vec![link("a", "b"), link("b", "a"), link("a", "b")]).await;
    assert!(twice.contains("link a to b is configured twice"), "{twice}");
    let address = refused(vec![link("a", "b"), link("b", "a")]).await;
    assert!(address.starts_with("route a to b: cannot listen on"), "{address}");
    let wild = LinkConfig { profile: LinkProfile::delay(-1.0), ..link("a", "b") };
    assert!(refused(vec![wild]).await.contains("delay_ms = -1"), "bounds");
}
