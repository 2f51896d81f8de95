//! The link role as control and the probes meet it: over HTTP, with real relays between two locations.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile, LinkState};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::{SharedClock, SystemClock};
use longhaul_http::net::{SharedNet, TokioNet};
use longhaul_http::wire::links::{LINK_BYTES_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkBytesView, LinkView, link_path};
use longhaul_netem::agent;
use longhaul_netem::probe::{self, Pair};
use longhaul_netem::relay::{LinkConfig, Relay, RelayConfig, RouteConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(5);

struct World {
    client: HttpClient,
    /// Where the links' API is.
    agent: String,
    /// The pair to probe: location `a` measures location `b` over the relay.
    pair: Pair,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    /// Two locations that answer probes, with 4 ms there and 6 ms back between them.
    async fn start() -> Self {
        let net: SharedNet = Arc::new(TokioNet);
        let clock: SharedClock = Arc::new(SystemClock::default());
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut locations = Vec::new();
        for _ in 0..2 {
            let listener = net.bind("127.0.0.1:0").await.unwrap();
            locations.push(listener.address().unwrap().to_string());
            let router = longhaul_http::probe::router(HttpClient::new(net.clone()), clock.clone());
            tasks.spawn(longhaul_http::serve::serve(listener, router, shutdown.clone()));
        }
        let (a, b) = (LocationName::new("a").unwrap(), LocationName::new("b").unwrap());
        let link = |from: &LocationName, to: &LocationName, delay_ms| LinkConfig {
            from: from.clone(),
            to: to.clone(),
            profile: LinkProfile::delay(delay_ms),
        };
        let config = RelayConfig {
            seed: 1,
            links: vec![link(&a, &b, 4.0), link(&b, &a, 6.0)],
            routes: vec![RouteConfig {
                from: a.clone(),
                to: b.clone(),
                listen: "127.0.0.1:0".to_owned(),
                target: locations[1].clone(),
            }],
        };
        let relay = Relay::start(net.clone(), clock, config, shutdown.clone()).await.unwrap();
        let address = relay.addresses()[0].1.clone();
        let listener = net.bind("127.0.0.1:0").await.unwrap();
        let agent = listener.address().unwrap().to_string();
        let links = Arc::new(agent::Links::Relay(relay));
        let router = agent::router(links.clone(), None);
        let stop = shutdown.clone();
        tasks.spawn(async move {
            let served = longhaul_http::serve::serve(listener, router, stop).await;
            links.join().await;
            served
        });
        let pair = Pair { from: a, to: b, prober: locations[0].clone(), address };
        Self { client: HttpClient::new(net), agent, pair, shutdown, tasks }
    }

    async fn patch(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, CallError> {
        let path = link_path(from, to);
        self.client.json(Method::PATCH, &self.agent, &path, HeaderMap::new(), Some(patch), DEADLINE).await
    }

    async fn round_trip_ms(&self) -> Option<f64> {
        let (measurements, _) =
            probe::survey(&self.client, std::slice::from_ref(&self.pair), few(9, Duration::from_millis(500))).await;
        measurements.into_values().next()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("everything ends at shutdown");
    }
}

fn few(samples: u32, deadline: Duration) -> probe::Survey {
    probe::Survey { samples, deadline, at_a_time: 1 }
}

fn code(error: &CallError) -> Option<ErrorCode> {
    match error {
        CallError::Problem { problem, .. } => Some(problem.code),
        _ => None,
    }
}

#[tokio::test]
async fn links_are_listed_changed_and_put_back_over_http() {
    let world = World::start().await;
    let links: Vec<LinkView> = world.client.get(&world.agent, LINKS_PATH, DEADLINE).await.unwrap();
    let pairs: Vec<_> = links.iter().map(|link| (link.from.as_str(), link.to.as_str())).collect();
    assert_eq!(pairs, [("a", "b"), ("b", "a")]);

    let slow = LinkPatch { delay_ms: Some(40.0), state: Some(LinkState::Up), ..LinkPatch::default() };
    let view = world.patch("b", "a", &slow).await.unwrap();
    assert_eq!((view.declared.delay_ms, view.current.delay_ms), (6.0, 40.0));
    let shown: LinkView = world.client.get(&world.agent, &link_path("b", "a"), DEADLINE).await.unwrap();
    assert_eq!(shown.current, view.current);

    let healed: Vec<LinkView> = world.client.post(&world.agent, LINKS_RESET_PATH, &(), DEADLINE).await.unwrap();
    assert!(healed.iter().all(|link| link.current == link.declared));
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_figure_are_refused_with_a_code() {
    let world = World::start().await;
    let unknown = world.patch("a", "mars", &LinkPatch::default()).await.unwrap_err();
    assert_eq!(code(&unknown), Some(ErrorCode::UnknownName), "{unknown}");
    let wild = LinkPatch { loss: Some(7.0), ..LinkPatch::default() };
    let refused = world.patch("a", "b", &wild).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::BadRequest), "{refused}");
    let text = serde_json::json!({ "delay": 3 });
    let misspelt: Result<LinkView, CallError> = world
        .client
        .json(Method::PATCH, &world.agent, &link_path("a", "b"), HeaderMap::new(), Some(&text), DEADLINE)
        .await;
    assert_eq!(code(&misspelt.unwrap_err()), Some(ErrorCode::BadJson));
    world.stop().await;
}

#[tokio::test]
async fn a_probe_finds_the_declared_round_trip_and_is_counted_as_a_probe() {
    let world = World::start().await;
    let measured = world.round_trip_ms().await.unwrap();
    assert!((9.5..13.0).contains(&measured), "{measured}");
    let bytes: Vec<LinkBytesView> = world.client.get(&world.agent, LINK_BYTES_PATH, DEADLINE).await.unwrap();
    for link in bytes {
        assert!(link.bytes["probe"] > 0, "{link:?}");
        assert_eq!(link.bytes.iter().filter(|(cause, _)| *cause != "probe").map(|(_, bytes)| bytes).sum::<u64>(), 0);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_cut_link_is_not_measured_and_names_the_pair() {
    let world = World::start().await;
    let cut = LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() };
    world.patch("a", "b", &cut).await.unwrap();
    let (measurements, failures) =
        probe::survey(&world.client, std::slice::from_ref(&world.pair), few(3, Duration::from_millis(100))).await;
    assert!(measurements.is_empty());
    assert!(failures[0].to_string().starts_with("the link from a to b was not measured"), "{}", failures[0]);
    world.stop().await;
}
