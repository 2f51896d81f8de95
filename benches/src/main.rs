//! Measures longhaul on this machine: every figure that the project promises, beside a reference where there is one,
//! in one run. What falls short stays in the table.

mod failover;
mod figures;
mod gateway;
mod group_commit;
mod lag;
mod load;
mod machine;
mod memory;
#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
#[path = "../../services/region/src/store/postgres/fixture.rs"]
mod postgres_server;
mod process;
mod raw_postgres;
mod raw_sqlite;
mod relay;
mod sim;
mod telemetry;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use figures::{Figure, table};

/// The program's own: simulations are measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTS: [&str; 8] = ["writes", "lag", "gateway", "relay", "memory", "telemetry", "failover", "sim"];

/// Measures longhaul on this machine.
#[derive(Debug, Parser)]
struct Cli {
    /// Parts to run: writes, lag, gateway, relay, memory, telemetry, failover, sim; all if none is named
    parts: Vec<String>,
    /// The longhaul binary
    #[arg(long)]
    binary: PathBuf,
    /// Failovers to measure
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Seconds of load per figure
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Where the figures go as JSON
    #[arg(long, default_value = "benches/results.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if let Some(unknown) = cli.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        anyhow::bail!("there is no part {unknown}; the parts are {}", PARTS.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures: Vec<Figure> = Vec::new();
    let before = machine::Processor::now()?;
    for part in PARTS {
        if !cli.parts.is_empty() && !cli.parts.iter().any(|wanted| wanted == part) {
            continue;
        }
        eprintln!("measuring {part} ...");
        let measured = match part {
            "writes" => runtime.block_on(writes::measure(&cli.binary, cli.seconds)),
            "lag" => runtime.block_on(lag::measure(&cli.binary, cli.seconds)),
            "gateway" => runtime.block_on(gateway::measure(&cli.binary)),
            "relay" => runtime.block_on(relay::measure()),
            "telemetry" => runtime.block_on(telemetry::measure(&cli.binary, cli.seconds.min(4))),
            "memory" => runtime.block_on(memory::measure(&cli.binary)),
            "sim" => sim::measure(),
            _ => runtime.block_on(failover::measure(cli.seeds)),
        };
        figures.extend(measured?);
    }
    figures.extend(machine::measure(before)?);
    println!("{}", table(&figures));
    std::fs::write(&cli.json, serde_json::to_vec_pretty(&figures)?)?;
    println!("as JSON: {}", cli.json.display());
    Ok(())
}
