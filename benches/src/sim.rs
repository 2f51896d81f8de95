//! How fast the simulated world is: virtual seconds per second, and where the time goes.

use std::time::Duration;

use longhaul_core::topology::Topology;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_simulation::{Steady, WorldConfig, run_steady};

use crate::figures::{Figure, Target};

/// Virtual seconds of each measurement.
const SECONDS: f64 = 60.0;
/// Operations a second over all edges.
const RATE: f64 = 50.0;
/// As good as none: the least that users can do.
const IDLE: f64 = 0.1;
/// Virtual seconds per second that the project promises.
const PROMISED: f64 = 100.0;

/// Three regions and three edges, with ticks of 5 ms and 1 ms, with users and without.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let topology = Topology::shipped("three-continents").ok_or_else(|| anyhow::anyhow!("no topology"))??;
    let clock = SystemClock::default();
    let run = |tick_ms: u64, rate: f64| -> anyhow::Result<(Steady, f64)> {
        let mut config = WorldConfig::new(topology.clone(), 1);
        config.tick = Duration::from_millis(tick_ms);
        let begun = clock.boot_ns();
        let steady = run_steady(&config, rate, SECONDS)?;
        Ok((steady, (clock.boot_ns() - begun) as f64 / 1e9))
    };
    let mut figures = Vec::new();
    let mut seconds = Vec::new();
    for (tick_ms, target) in [(5, Target::AtLeast(PROMISED)), (1, Target::None)] {
        let (loaded, loaded_s) = run(tick_ms, RATE)?;
        let (idle, idle_s) = run(tick_ms, IDLE)?;
        let speed = |steady: &Steady, wall_s: f64| steady.virtual_time.as_secs_f64() / wall_s;
        let name = |what: &str| format!("{what}, tick {tick_ms} ms");
        let fast = speed(&loaded, loaded_s);
        figures.push(Figure::new("sim", name("50 operations/s"), fast, "virtual s/s", target));
        figures.push(Figure::new("sim", name("idle"), speed(&idle, idle_s), "virtual s/s", Target::None));
        let each_us = (loaded_s - idle_s).max(0.0) * 1e6 / loaded.ok.max(1) as f64;
        figures.push(Figure::new("sim", name("one operation"), each_us, "µs", Target::None));
        seconds.push((idle_s, (idle.ticks * idle.hosts) as f64));
    }
    // Two idle worlds that differ in nothing but their ticks.
    if let [(coarse_s, coarse), (fine_s, fine)] = seconds[..] {
        let tick_us = (fine_s - coarse_s).max(0.0) * 1e6 / (fine - coarse);
        figures.push(Figure::new("sim", "one host's turn in a tick".to_owned(), tick_us, "µs", Target::None));
        let work_ms = (coarse_s * 1e6 - coarse * tick_us).max(0.0) / 1e3 / SECONDS;
        let name = "heartbeats, leases and polls of a virtual second".to_owned();
        figures.push(Figure::new("sim", name, work_ms, "ms", Target::None));
    }
    Ok(figures)
}
