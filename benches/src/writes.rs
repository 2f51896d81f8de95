//! Acknowledged durable writes a second at one region over HTTP, load included, beside raw SQLite group commit.

use std::collections::BTreeMap;
use std::path::Path;

use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::regime::{Durability, Mode};
use longhaul_region::config::{Addresses, Genesis, RegionConfig, StoreConfig, Timings};

use crate::figures::{Figure, Target};
use crate::load::write_closed_loop;
use crate::postgres_server::PostgresServer;
use crate::process::{Role, free_address};
use crate::{raw_postgres, raw_sqlite};

/// The configuration of region `number` among `names`, in active-active.
pub(crate) fn region_config(
    names: &[&str],
    number: u16,
    listen: &str,
    data_dir: &Path,
    peers: BTreeMap<RegionId, Addresses>,
) -> anyhow::Result<RegionConfig> {
    let named = |(i, name): (usize, &&str)| Ok((RegionId(u16::try_from(i)? + 1), LocationName::new(*name)?));
    Ok(RegionConfig {
        region: RegionId(number),
        regions: names.iter().enumerate().map(named).collect::<anyhow::Result<_>>()?,
        listen: listen.to_owned(),
        advertise: None,
        store: StoreConfig::sqlite(data_dir.join(names[usize::from(number) - 1])),
        topology_fingerprint: "bench".to_owned(),
        peers,
        genesis: Genesis { mode: Mode::ActiveActive, primary: None, durability: Durability::Local },
        seed: 1,
        session_secret: "bench".to_owned(),
        token: None,
        timings: Timings::default(),
        visibility_sample: 1,
        unsafe_boot: true,
    })
}

/// The clients of the figures.
const CLIENTS: [u32; 2] = [64, 256];

pub(crate) async fn measure(binary: &Path, seconds: u64) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for clients in CLIENTS {
        let folder = tempfile::tempdir()?;
        let raw = raw_sqlite::group_commit(folder.path(), clients, seconds).await?;
        let store = StoreConfig::sqlite(folder.path().join("bench"));
        let bench = Bench { binary, seconds, clients, reference: "SQLite", raw, goal: Target::AtLeast(15_000.0) };
        figures.extend(bench.over_http(folder.path(), store).await?);
    }
    match PostgresServer::start(&[]) {
        Ok(server) => figures.extend(postgres(binary, seconds, &server).await?),
        Err(reason) => {
            let name = format!("PostgreSQL, not measured: {reason}");
            figures.push(Figure::new("writes", name, 0.0, "writes/s", Target::None));
        }
    }
    Ok(figures)
}

async fn postgres(binary: &Path, seconds: u64, server: &PostgresServer) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for clients in CLIENTS {
        let folder = tempfile::tempdir()?;
        let raw = raw_postgres::group_commit(&server.url(), clients, seconds).await?;
        let store = StoreConfig::Postgres { url: server.url(), schema: format!("bench_{clients}") };
        let bench = Bench { binary, seconds, clients, reference: "PostgreSQL", raw, goal: Target::None };
        figures.extend(bench.over_http(folder.path(), store).await?);
    }
    Ok(figures)
}

/// One region under load, beside a reference.
struct Bench<'a> {
    binary: &'a Path,
    seconds: u64,
    clients: u32,
    /// What the reference is.
    reference: &'static str,
    /// Its rows a second.
    raw: f64,
    /// What the region is to reach.
    goal: Target,
}

impl Bench<'_> {
    async fn over_http(self, folder: &Path, store: StoreConfig) -> anyhow::Result<Vec<Figure>> {
        let Self { binary, seconds, clients, reference, raw, goal } = self;
        let address = free_address().await?;
        let config = region_config(&["bench"], 1, &address, folder, BTreeMap::new())?;
        std::fs::create_dir_all(folder.join("bench"))?;
        let config = RegionConfig { store, ..config };
        let region = Role::start(binary, "region", folder, &address, &config).await?;
        let load = write_closed_loop(&region.address, "bench", clients, seconds, 256).await?;
        region.stop().await;
        let name = |what: &str| format!("region over {reference}, HTTP, {clients} clients: {what}");
        let quantile = |q: f64| load.latency_us.value_at_quantile(q) as f64 / 1000.0;
        let rows = format!("raw {reference} group commit, {clients} writers in process");
        let share = name(&format!("share of raw {reference}"));
        Ok(vec![
            Figure::new("writes", rows, raw, "writes/s", Target::None),
            Figure::new("writes", name("acknowledged"), load.per_second, "writes/s", goal),
            Figure::new("writes", share, load.per_second / raw, "ratio", Target::None),
            Figure::new("writes", name("p50"), quantile(0.5), "ms", Target::None),
            Figure::new("writes", name("p99"), quantile(0.99), "ms", Target::None),
            Figure::new("writes", name("refused"), load.refused as f64, "writes", Target::AtMost(0.0)),
        ])
    }
}
