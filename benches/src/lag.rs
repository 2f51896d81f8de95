//! Replication over a long link: how long after its commit an operation is visible at the other end, and how many
//! operations a second the link carries for as long as it takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::link::LinkProfile;
use longhaul_http::client::HttpClient;
use longhaul_http::net::TokioNet;
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH, VISIBILITY_PATH, VisibilityPage};
use longhaul_netem::relay::{LinkConfig, RelayConfig, RouteConfig};

use crate::figures::{Figure, Target};
use crate::load::{write_closed_loop, write_open_loop};
use crate::process::{Role, free_address};
use crate::writes::region_config;

/// Round trip of the link, milliseconds: us-east-1 to ap-southeast-1.
const ROUND_TRIP_MS: f64 = 236.0;
const ONE_WAY_MS: f64 = ROUND_TRIP_MS / 2.0;
const NAMES: [&str; 2] = ["near", "far"];

struct Pair {
    _link: Role,
    near: Role,
    far: Role,
    client: HttpClient,
    _folder: tempfile::TempDir,
}

async fn pair(binary: &Path) -> anyhow::Result<Pair> {
    let folder = tempfile::tempdir()?;
    let addresses = [free_address().await?, free_address().await?];
    let entrances = [free_address().await?, free_address().await?];
    let agent = free_address().await?;
    let location = |i: usize| LocationName::new(NAMES[i]);
    let mut relay = RelayConfig { seed: 1, links: Vec::new(), routes: Vec::new() };
    for (from, to) in [(0, 1), (1, 0)] {
        let profile = LinkProfile::delay(ONE_WAY_MS);
        relay.links.push(LinkConfig { from: location(from)?, to: location(to)?, profile });
        relay.routes.push(RouteConfig {
            from: location(from)?,
            to: location(to)?,
            listen: entrances[from].clone(),
            target: addresses[to].clone(),
        });
    }
    let config = serde_json::json!({ "listen": agent, "relay": relay });
    let link = Role::start(binary, "link", folder.path(), &agent, &config).await?;
    let mut roles = Vec::new();
    // Each is ready only once it has heard the other one: start both, then wait.
    let starts = [0, 1].map(|i| {
        let peers = BTreeMap::from([(RegionId(2 - i as u16), entrances[i].clone().into())]);
        let (address, folder) = (addresses[i].clone(), folder.path().to_owned());
        async move {
            let config = region_config(&NAMES, i as u16 + 1, &address, &folder, peers)?;
            Role::start(binary, "region", &folder, &address, &config).await
        }
    });
    for role in futures::future::join_all(starts).await {
        roles.push(role?);
    }
    let (Some(far), Some(near)) = (roles.pop(), roles.pop()) else { anyhow::bail!("two regions") };
    Ok(Pair { _link: link, near, far, client: HttpClient::new(Arc::new(TokioNet)), _folder: folder })
}

pub(crate) async fn measure(binary: &Path, seconds: u64) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut figure = |name: &str, value, unit, target| figures.push(Figure::new("lag", name, value, unit, target));

    let two = pair(binary).await?;
    // A first operation shows that the stream is open: opening it takes several round trips, and is not lag.
    let first = write_open_loop(&two.near.address, NAMES[0], 1, 1.0, 1).await?;
    position_beyond(&two, first - 1).await?;
    let acknowledged = write_open_loop(&two.near.address, NAMES[0], 64, 2000.0, seconds).await?;
    position_beyond(&two, first + acknowledged - 1).await?;
    let (near, far) = (visible(&two, &two.near).await?, visible(&two, &two.far).await?);
    let mut lag_us = Histogram::<u64>::new(4)?;
    for (op_id, here) in &near {
        if let Some(there) = far.get(op_id) {
            lag_us.record(there.saturating_sub(*here) / 1000)?;
        }
    }
    anyhow::ensure!(lag_us.len() * 2 > acknowledged, "only {} of {acknowledged} were traced", lag_us.len());
    let lag = |q: f64| lag_us.value_at_quantile(q) as f64 / 1000.0;
    figure("2,000 writes/s over 236 ms: acknowledged", acknowledged as f64 / seconds as f64, "writes/s", Target::None);
    figure("2,000 writes/s over 236 ms: lag p50", lag(0.5), "ms", Target::AtMost(ONE_WAY_MS + 2.0));
    figure("2,000 writes/s over 236 ms: lag p99", lag(0.99), "ms", Target::AtMost(ONE_WAY_MS + 10.0));
    drop(two);

    // The origin's clients would set the pace: so the far region sleeps while they write, and then catches up.
    let two = pair(binary).await?;
    let before = position(&two, &two.far).await?;
    two.far.pause()?;
    let load = write_closed_loop(&two.near.address, NAMES[0], 128, seconds, 256).await?;
    let head = position(&two, &two.near).await?;
    figure("while the far region sleeps: acknowledged at the origin", load.per_second, "writes/s", Target::None);
    two.far.resume()?;
    // The streams have to be opened anew; the first operation that arrives starts the clock.
    let first = position_beyond(&two, before).await?;
    let begin = tokio::time::Instant::now();
    let last = position_beyond(&two, head - 1).await?;
    let sustained = (last - first) as f64 / begin.elapsed().as_secs_f64();
    figure("catching up over 236 ms: operations", (last - first) as f64, "operations", Target::None);
    figure("catching up over 236 ms: applied", sustained, "operations/s", Target::AtLeast(10_000.0));
    anyhow::ensure!(last > before, "nothing was replicated");
    Ok(figures)
}

async fn position(two: &Pair, role: &Role) -> anyhow::Result<u64> {
    let status: RegionStatus = two.client.get(&role.address, STATUS_PATH, Duration::from_secs(5)).await?;
    Ok(status.positions.iter().filter(|(timeline, _)| timeline.starts_with("1.")).map(|(_, at)| at.seq).sum())
}

/// Waits until the far region is beyond a position; where it is then.
async fn position_beyond(two: &Pair, floor: u64) -> anyhow::Result<u64> {
    for _ in 0..6000 {
        let at = position(two, &two.far).await?;
        if at > floor {
            return Ok(at);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the far region is not beyond {floor} after a minute")
}

async fn visible(two: &Pair, role: &Role) -> anyhow::Result<BTreeMap<String, u64>> {
    let (mut all, mut after) = (BTreeMap::new(), 0);
    loop {
        let path = format!("{VISIBILITY_PATH}?after={after}");
        let page: VisibilityPage = two.client.get(&role.address, &path, Duration::from_secs(5)).await?;
        if page.visible.is_empty() {
            return Ok(all);
        }
        after = page.next;
        all.extend(page.visible);
    }
}
