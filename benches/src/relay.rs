//! The userspace relay: how far the measured round trip is from the declared one, and how many bytes it carries.

use std::sync::Arc;

use hdrhistogram::Histogram;
use longhaul_core::ids::LocationName;
use longhaul_core::link::LinkProfile;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::{SharedClock, SystemClock};
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::{probe, serve::serve};
use longhaul_netem::relay::{LinkConfig, Relay, RelayConfig, RouteConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::figures::{Figure, Target};

/// Round trips, milliseconds: within a continent, across an ocean, to the other side of the world.
const ROUND_TRIPS_MS: [f64; 3] = [10.0, 75.0, 236.0];
const SAMPLES: u32 = 60;
/// Bytes sent to measure throughput.
const BYTES: usize = 256 * 1024 * 1024;

async fn relay_to(target: &str, one_way_ms: f64, stop: &CancellationToken) -> anyhow::Result<(Relay, String)> {
    let (a, b) = (LocationName::new("a")?, LocationName::new("b")?);
    let profile = LinkProfile::delay(one_way_ms);
    let link = |from: &LocationName, to: &LocationName| LinkConfig {
        from: from.clone(),
        to: to.clone(),
        profile: profile.clone(),
    };
    let links = vec![link(&a, &b), link(&b, &a)];
    let listen = "127.0.0.1:0".to_owned();
    let routes = vec![RouteConfig { from: a, to: b, listen, target: target.to_owned() }];
    let config = RelayConfig { seed: 1, links, routes };
    let clock: SharedClock = Arc::new(SystemClock::default());
    let relay = Relay::start(Arc::new(TokioNet), clock, config, stop.clone()).await?;
    let address = relay.addresses()[0].1.clone();
    Ok((relay, address))
}

pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let clock: SharedClock = Arc::new(SystemClock::default());
    let client = HttpClient::new(Arc::new(TokioNet));
    let listener = TokioNet.bind("127.0.0.1:0").await?;
    let server = listener.address()?.to_string();
    let router = probe::router(client.clone(), clock.clone());
    let served = stop.clone();
    tasks.spawn(async move {
        // It ends with the measurement.
        let _ = serve(listener, router, served).await;
    });
    let mut figures = Vec::new();
    let deadline = std::time::Duration::from_secs(5);
    let bare = quantiles(&probe::measure(&client, &clock, &server, 500, deadline).await?)?;
    figures.push(Figure::new("relay", "round trip without a relay: p50", bare.0, "ms", Target::None));
    for declared in ROUND_TRIPS_MS {
        // A relay can only be as exact as the timer: two one-way sleeps are the least that a round trip takes.
        let sleep = oversleep_ms(&clock, declared / 2.0).await;
        figures.push(Figure::new(
            "relay",
            format!("declared {declared} ms: two bare sleeps minus declared, p50"),
            2.0 * sleep,
            "ms",
            Target::None,
        ));
        let (relay, address) = relay_to(&server, declared / 2.0, &stop).await?;
        let (p50, p99) = quantiles(&probe::measure(&client, &clock, &address, SAMPLES, deadline).await?)?;
        let name = |q: &str| format!("declared {declared} ms: measured minus declared, {q}");
        figures.push(Figure::new("relay", name("p50"), p50 - declared, "ms", Target::AtMost(0.5)));
        figures.push(Figure::new("relay", name("p99"), p99 - declared, "ms", Target::None));
        drop(relay);
    }
    let bare = throughput(None, &stop, &mut tasks).await?;
    let relayed = throughput(Some(5.0), &stop, &mut tasks).await?;
    figures.push(Figure::new("relay", "throughput of loopback without a relay", bare, "MB/s", Target::None));
    figures.push(Figure::new("relay", "throughput through a 10 ms relay", relayed, "MB/s", Target::None));
    stop.cancel();
    tasks.shutdown().await;
    Ok(figures)
}

/// Median time by which this machine oversleeps, milliseconds.
async fn oversleep_ms(clock: &SharedClock, ms: f64) -> f64 {
    let mut over = Vec::new();
    for _ in 0..SAMPLES {
        let begin = clock.boot_ns();
        tokio::time::sleep(std::time::Duration::from_secs_f64(ms / 1000.0)).await;
        over.push((clock.boot_ns() - begin) as f64 / 1e6 - ms);
    }
    over.sort_by(f64::total_cmp);
    over[over.len() / 2]
}

fn quantiles(round_trips_ms: &[f64]) -> anyhow::Result<(f64, f64)> {
    let mut histogram = Histogram::<u64>::new(5)?;
    for ms in round_trips_ms {
        histogram.record((ms * 1000.0) as u64)?;
    }
    Ok((histogram.value_at_quantile(0.5) as f64 / 1000.0, histogram.value_at_quantile(0.99) as f64 / 1000.0))
}

/// Megabytes a second from one end to the other.
async fn throughput(one_way_ms: Option<f64>, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> anyhow::Result<f64> {
    let mut sink = TokioNet.bind("127.0.0.1:0").await?;
    let target = sink.address()?.to_string();
    let (relay, address) = match one_way_ms {
        Some(ms) => {
            let (relay, address) = relay_to(&target, ms, stop).await?;
            (Some(relay), address)
        }
        None => (None, target),
    };
    let mut out = TokioNet.connect(&address).await?;
    let begin = tokio::time::Instant::now();
    tasks.spawn(async move {
        let chunk = vec![7; 256 * 1024];
        for _ in 0..BYTES / chunk.len() {
            if out.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The reader counts; how the stream ends does not matter.
        let _ = out.shutdown().await;
    });
    let (mut io, _) = sink.accept_io().await?;
    let (mut buffer, mut received) = (vec![0; 256 * 1024], 0);
    while received < BYTES {
        match io.read(&mut buffer).await? {
            0 => break,
            n => received += n,
        }
    }
    anyhow::ensure!(received == BYTES, "only {received} bytes arrived");
    drop(relay);
    Ok(BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64())
}
