//! Acknowledged durable writes a second at one region over HTTP, load included, beside raw SQLite group commit.

use std::collections::BTreeMap;
use std::path::Path;

use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::regime::{Durability, Mode};
use longhaul_region::config::{Genesis, RegionConfig, Timings};

use crate::figures::{Figure, Target};
use crate::load::write_closed_loop;
use crate::process::{Role, free_address};
use crate::raw_sqlite;

/// The configuration of region `number` among `names`, in active-active.
pub(crate) fn region_config(
    names: &[&str],
    number: u16,
    listen: &str,
    data_dir: &Path,
    peers: BTreeMap<RegionId, String>,
) -> anyhow::Result<RegionConfig> {
    let named = |(i, name): (usize, &&str)| Ok((RegionId(u16::try_from(i)? + 1), LocationName::new(*name)?));
    Ok(RegionConfig {
        region: RegionId(number),
        regions: names.iter().enumerate().map(named).collect::<anyhow::Result<_>>()?,
        listen: listen.to_owned(),
        data_dir: Some(data_dir.join(names[usize::from(number) - 1])),
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

pub(crate) async fn measure(binary: &Path, seconds: u64) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for clients in [64, 256] {
        let folder = tempfile::tempdir()?;
        let raw = raw_sqlite::group_commit(folder.path(), clients, seconds).await?;
        figures.push(Figure::new(
            "writes",
            format!("raw SQLite group commit, {clients} writers in process"),
            raw,
            "writes/s",
            Target::None,
        ));

        let address = free_address().await?;
        let config = region_config(&["bench"], 1, &address, folder.path(), BTreeMap::new())?;
        let region = Role::start(binary, "region", folder.path(), &address, &config).await?;
        let load = write_closed_loop(&region.address, "bench", clients, seconds, 256).await?;
        region.stop().await;
        let name = |what: &str| format!("region over HTTP, {clients} clients: {what}");
        figures.push(Figure::new(
            "writes",
            name("acknowledged"),
            load.per_second,
            "writes/s",
            Target::AtLeast(15_000.0),
        ));
        figures.push(Figure::new("writes", name("share of raw SQLite"), load.per_second / raw, "ratio", Target::None));
        let quantile = |q: f64| load.latency_us.value_at_quantile(q) as f64 / 1000.0;
        figures.push(Figure::new("writes", name("p50"), quantile(0.5), "ms", Target::None));
        figures.push(Figure::new("writes", name("p99"), quantile(0.99), "ms", Target::None));
        figures.push(Figure::new("writes", name("refused"), load.refused as f64, "writes", Target::AtMost(0.0)));
    }
    Ok(figures)
}
