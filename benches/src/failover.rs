//! Failover time over many seeds: three regions over the shipped topology's round trips in one process, the primary
//! goes dark at a moment drawn from the seed, until the new one holds its lease; against what it should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use hdrhistogram::Histogram;
use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::limits;
use longhaul_core::link::{LinkPatch, LinkState};
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::Topology;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::{Clock, SharedClock, SystemClock};
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::wire::regime::{CHANGES_PATH, ChangeStatus};
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH};
use longhaul_netem::relay::{LinkConfig, Relay, RelayConfig, RouteConfig};
use longhaul_region::config::{Genesis, RegionConfig, StoreConfig, Timings};
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::{Deps, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::figures::{Figure, Target};

/// Failovers measured at the same time; they mostly wait.
const AT_ONCE: usize = 4;

/// The phases of one failover, milliseconds since the fault.
#[derive(Debug, Clone, Copy)]
struct Times {
    decided: f64,
    fenced: f64,
    total: f64,
}

pub(crate) async fn measure(seeds: u64) -> anyhow::Result<Vec<Figure>> {
    let topology = Topology::shipped("three-continents").context("a shipped topology")??;
    let runs = futures::stream::iter(0..seeds).map(|seed| one(&topology, seed)).buffer_unordered(AT_ONCE);
    let times: Vec<anyhow::Result<Times>> = runs.collect().await;
    let times: Vec<Times> = times.into_iter().collect::<anyhow::Result<_>>()?;
    let mut figures = Vec::new();
    for (name, of) in [
        ("fault to decided (silence, then a majority's suspicion)", (|t: &Times| t.decided) as fn(&Times) -> f64),
        ("decided to fenced (promises; leases run out)", |t: &Times| t.fenced - t.decided),
        ("fault to a new primary with a lease", |t: &Times| t.total),
    ] {
        let mut histogram = Histogram::<u64>::new(3)?;
        for run in &times {
            histogram.record(of(run).max(0.0) as u64)?;
        }
        for (q, text) in [(0.5, "p50"), (0.9, "p90"), (1.0, "max")] {
            let target = if text == "max" && name.starts_with("fault to a new") {
                Target::AtMost(expected_max_ms(&topology))
            } else {
                Target::None
            };
            let value = histogram.value_at_quantile(q) as f64;
            figures.push(Figure::new("failover", format!("{name}: {text} of {}", times.len()), value, "ms", target));
        }
    }
    Ok(figures)
}

/// What a failover may take at most: the silence, one heartbeat and the report of a suspicion; the longer of that and
/// the rest of a lease that was renewed just before the fault; the turn of a second proposer; a wait for straggling
/// promises; and six round trips of the longest link (prepare, positions, accept, news, lease, slack).
fn expected_max_ms(topology: &Topology) -> f64 {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let longest = topology.regions().flat_map(|(_, a)| topology.regions().map(move |(_, b)| (a, b)));
    let longest = longest.filter_map(|(a, b)| topology.round_trip_ms(a, b)).fold(0.0, f64::max);
    let silence = ms(limits::SUSPECT_AFTER) + 2.0 * ms(limits::HEARTBEAT_INTERVAL) + longest;
    let lease = ms(limits::LEASE) + longest;
    silence.max(lease) + ms(limits::PROPOSER_STAGGER) + 6.0 * longest + 400.0
}

async fn one(topology: &Topology, seed: u64) -> anyhow::Result<Times> {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let result = fail_over_once(topology, seed, &stop, &mut tasks).await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    result.with_context(|| format!("seed {seed}"))
}

async fn fail_over_once(
    topology: &Topology,
    seed: u64,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Times> {
    let clock = Arc::new(SystemClock::default());
    let client = HttpClient::new(Arc::new(TokioNet));
    let names: BTreeMap<RegionId, LocationName> = topology.regions().map(|(id, name)| (id, name.clone())).collect();
    let mut listeners = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for (id, name) in &names {
        let listener = TokioNet.bind("127.0.0.1:0").await?;
        addresses.insert(name.clone(), listener.address()?.to_string());
        listeners.insert(*id, listener);
    }
    let mut relay = RelayConfig { seed, links: Vec::new(), routes: Vec::new() };
    for (from, to) in names.values().flat_map(|from| names.values().map(move |to| (from, to))) {
        let Some(link) = topology.link(from, to) else { continue };
        relay.links.push(LinkConfig { from: from.clone(), to: to.clone(), profile: link.profile.clone() });
        let target = addresses[to].clone();
        let listen = "127.0.0.1:0".to_owned();
        relay.routes.push(RouteConfig { from: from.clone(), to: to.clone(), listen, target });
    }
    let shared: SharedClock = clock.clone();
    let relay = Relay::start(Arc::new(TokioNet), shared.clone(), relay, stop.clone()).await?;
    for (id, listener) in listeners {
        let mut peers = BTreeMap::new();
        for (route, address) in relay.addresses() {
            if let Some((peer, _)) = names.iter().find(|(_, name)| **name == route.to)
                && route.from == names[&id]
            {
                peers.insert(*peer, address.clone().into());
            }
        }
        let config = RegionConfig {
            region: id,
            regions: names.clone(),
            listen: addresses[&names[&id]].clone(),
            advertise: None,
            store: StoreConfig::Memory,
            topology_fingerprint: topology.fingerprint.clone(),
            peers,
            genesis: Genesis { mode: Mode::ActivePassive, primary: Some(RegionId(1)), durability: Durability::Local },
            seed,
            session_secret: "bench".to_owned(),
            token: None,
            timings: Timings::default(),
            visibility_sample: 0,
            unsafe_boot: false,
        };
        let deps = Deps { net: Arc::new(TokioNet), clock: shared.clone(), store: Arc::new(MemoryStore::new()) };
        let stop = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = run(deps, config, listener, stop).await {
                eprintln!("benches: a region ended: {error}");
            }
        });
    }
    let address = |id: u16| addresses[&names[&RegionId(id)]].clone();
    await_lease(&client, &[address(1)]).await?;

    let mut rng = SmallRng::seed_from_u64(seed);
    tokio::time::sleep(Duration::from_millis(rng.random_range(500..1500))).await;
    let fault = clock.boot_ns();
    let cut = LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() };
    for other in [2, 3] {
        let (dark, other) = (names[&RegionId(1)].as_str(), names[&RegionId(other)].as_str());
        relay.patch(dark, other, &cut)?;
        relay.patch(other, dark, &cut)?;
    }
    await_lease(&client, &[address(2), address(3)]).await?;
    let mut milestones: BTreeMap<String, u64> = BTreeMap::new();
    for id in [2, 3] {
        let changes: Vec<ChangeStatus> = client.get(&address(id), CHANGES_PATH, Duration::from_secs(2)).await?;
        for milestone in changes.into_iter().flat_map(|change| change.milestones) {
            milestones.entry(milestone.name).or_insert(milestone.boot_ns);
        }
    }
    let at = |name: &str| -> anyhow::Result<f64> {
        let boot_ns = milestones.get(name).with_context(|| format!("no milestone {name}"))?;
        Ok(boot_ns.saturating_sub(fault) as f64 / 1e6)
    };
    Ok(Times { decided: at("decided")?, fenced: at("fenced")?, total: at("activated")? })
}

/// Waits until one of the regions is a primary with a lease.
async fn await_lease(client: &HttpClient, addresses: &[String]) -> anyhow::Result<()> {
    for _ in 0..2000 {
        for address in addresses {
            let status = client.get::<RegionStatus>(address, STATUS_PATH, Duration::from_secs(2)).await;
            if status.is_ok_and(|status| status.role == "primary" && status.lease_remaining_ms > 0) {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("no primary has a lease after 20 s")
}
