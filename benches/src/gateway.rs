//! The time that a gateway adds: the same read of the same region, directly and through the gateway, in turns.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::Full;
use longhaul_http::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::figures::{Figure, Target};
use crate::load::{Connection, put, value};
use crate::process::{Role, free_address};
use crate::writes::region_config;

const READS: u32 = 4000;

pub(crate) async fn measure(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let (region_address, gateway_address) = (free_address().await?, free_address().await?);
    let config = region_config(&["bench"], 1, &region_address, folder.path(), BTreeMap::new())?;
    let region = Role::start(binary, "region", folder.path(), &region_address, &config).await?;
    let config = serde_json::json!({
        "edge": "edge",
        "home": 1,
        "regions": [{ "id": 1, "name": "bench", "addresses": [region_address], "rtt_ms": 0.1 }],
        "listen": gateway_address,
        "seed": 2,
    });
    let gateway = Role::start(binary, "gateway", folder.path(), &gateway_address, &config).await?;

    let clock = SystemClock::default();
    let mut drivers = JoinSet::new();
    let mut direct = Connection::open(&region.address, &mut drivers).await?;
    let mut through = Connection::open(&gateway.address, &mut drivers).await?;
    direct.send(put("bench", "one", Uuid::from_u128(1), &value(256))?).await?;
    let mut times = [Histogram::<u64>::new(3)?, Histogram::new(3)?];
    for n in 0..READS {
        for (way, connection) in [&mut direct, &mut through].into_iter().enumerate() {
            let request =
                Request::get("/v1/records/bench/one").header("host", "bench").body(Full::new(Bytes::new()))?;
            let start = clock.boot_ns();
            let status = connection.send(request).await?;
            anyhow::ensure!(status == 200, "a read was answered with {status}");
            if n > READS / 10 {
                times[way].record((clock.boot_ns() - start) / 1000)?;
            }
        }
    }
    gateway.stop().await;
    region.stop().await;
    let at = |way: usize, q: f64| times[way].value_at_quantile(q) as f64 / 1000.0;
    let figure = |name: &str, value, target| Figure::new("gateway", name, value, "ms", target);
    Ok(vec![
        figure("read, direct: p50", at(0, 0.5), Target::None),
        figure("read, through the gateway: p50", at(1, 0.5), Target::None),
        figure("added by the gateway: p50", at(1, 0.5) - at(0, 0.5), Target::AtMost(0.2)),
        figure("added by the gateway: p99", at(1, 0.99) - at(0, 0.99), Target::None),
    ])
}
