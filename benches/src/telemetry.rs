//! What tracing costs a region that writes as fast as it can: off, one trace in a hundred, every trace, in turns and in
//! one run. Spans go to a file; a collector would take them off the machine.

use std::collections::BTreeMap;
use std::path::Path;

use crate::figures::{Figure, Target};
use crate::load::write_closed_loop;
use crate::process::{Role, free_address};
use crate::writes::region_config;

/// Clients that write at the same time.
const CLIENTS: u32 = 64;
/// Turns; the median of each way counts.
const TURNS: usize = 5;
/// Ways to trace, with the environment that asks for each.
const WAYS: [(&str, &[(&str, &str)]); 3] = [
    ("off", &[("LONGHAUL_SPANS", "off")]),
    ("1 %", &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")]),
    ("full", &[("OTEL_TRACES_SAMPLER", "always_on")]),
];

pub(crate) async fn measure(binary: &Path, seconds: u64) -> anyhow::Result<Vec<Figure>> {
    let mut runs: [Vec<(f64, f64)>; 3] = Default::default();
    for turn in 0..TURNS {
        // The order turns, too: whoever comes first finds the disk as the one before left it.
        for step in 0..WAYS.len() {
            let way = (turn + step) % WAYS.len();
            let folder = tempfile::tempdir()?;
            let address = free_address().await?;
            let config = region_config(&["bench"], 1, &address, folder.path(), BTreeMap::new())?;
            let spans = folder.path().join("spans.jsonl");
            let region =
                Role::start_with(binary, "region", folder.path(), &address, &config, WAYS[way].1, Some(&spans)).await?;
            let load = write_closed_loop(&region.address, "bench", CLIENTS, seconds, 256).await?;
            region.stop().await;
            runs[way].push((load.per_second, load.latency_us.value_at_quantile(0.99) as f64 / 1000.0));
        }
    }
    let median = |way: usize, of: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = runs[way].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut figures = Vec::new();
    for (way, (name, _)) in WAYS.iter().enumerate() {
        let writes = median(way, |run| run.0);
        figures.push(Figure::new("telemetry", format!("tracing {name}: writes"), writes, "writes/s", Target::None));
        figures.push(Figure::new(
            "telemetry",
            format!("tracing {name}: p99"),
            median(way, |run| run.1),
            "ms",
            Target::None,
        ));
    }
    let cost = |way: usize| 100.0 * (1.0 - median(way, |run| run.0) / median(0, |run| run.0));
    figures.push(Figure::new("telemetry", "cost of 1 %", cost(1), "%", Target::AtMost(5.0)));
    figures.push(Figure::new("telemetry", "cost of full", cost(2), "%", Target::None));
    Ok(figures)
}
