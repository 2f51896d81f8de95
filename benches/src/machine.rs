//! What the machine gave while it was measured: figures of a shared machine mean little without it.

use std::io::Write;

use anyhow::Context;
use hdrhistogram::Histogram;
use longhaul_http::clock::{Clock, SystemClock};

use crate::figures::{Figure, Target};

/// Writes that are made durable one by one.
const FLUSHES: u32 = 200;

/// Processor time since boot, in ticks of all cores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processor {
    all: u64,
    stolen: u64,
}

impl Processor {
    /// As it is now.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        Ok(Self { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) })
    }

    /// Percent of the time since then that others on the same host took.
    pub(crate) fn stolen_since(self, before: Self) -> f64 {
        100.0 * (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// What the disk under the temporary folder needs to make 4 KiB durable, and how much of the processor others took.
pub(crate) fn measure(before: Processor) -> anyhow::Result<Vec<Figure>> {
    let clock = SystemClock::default();
    let mut file = tempfile::tempfile()?;
    let mut took_us = Histogram::<u64>::new(3)?;
    for _ in 0..FLUSHES {
        file.write_all(&[0; 4096])?;
        let start = clock.boot_ns();
        file.sync_data()?;
        took_us.record((clock.boot_ns() - start) / 1000)?;
    }
    let took = |q: f64| took_us.value_at_quantile(q) as f64 / 1000.0;
    let row = |name: &str, value, unit| Figure::new("machine", name, value, unit, Target::None);
    Ok(vec![
        row("4 KiB made durable: p50", took(0.5), "ms"),
        row("4 KiB made durable: p99", took(0.99), "ms"),
        row("processor time that other guests took during the run", Processor::now()?.stolen_since(before), "%"),
    ])
}
