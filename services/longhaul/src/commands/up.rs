//! `up`: a testbed to play with.

use std::time::Duration;

use super::drill::stop_token;
use crate::cli::UpArgs;
use crate::embedded::{Start, Testbed};
use crate::inputs;
use crate::outcome::Outcome;
use crate::telemetry::{self, Telemetry};

/// The topology where none is named.
const TOPOLOGY: &str = "three-continents";
/// Control's port where none is named.
const PORT: u16 = 8080;
/// How often to see whether a process ended by itself.
const LOOK: Duration = Duration::from_millis(500);

/// Starts a testbed and keeps it until it is told to stop.
pub(crate) async fn run(args: UpArgs) -> Outcome {
    match telemetry::with(Telemetry::command(args.testbed.otlp.as_deref()), up(&args)).await {
        Ok(()) => Outcome::Met,
        Err(reason) => Outcome::invalid(reason),
    }
}

async fn up(args: &UpArgs) -> Result<(), String> {
    let topology = inputs::topology(args.testbed.topology.as_deref().unwrap_or(TOPOLOGY))?;
    let stop = stop_token()?;
    let start = Start {
        topology,
        mode: args.mode,
        durability: args.durability,
        primary: None,
        seed: args.testbed.seed.unwrap_or(42),
        data: args.testbed.data.clone(),
        // Port 0 is any free one.
        control_port: Some(args.testbed.port.unwrap_or(PORT)).filter(|port| *port != 0),
        database_url: args.testbed.database_url.clone(),
        otlp: args.testbed.otlp.clone(),
        jaeger: args.testbed.jaeger(),
    };
    let testbed = Testbed::start(&start, &stop).await?;
    println!("{}", banner(&start, &testbed));
    let mut said = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        let surprise = testbed.surprise();
        if args.keep_going {
            if let Some(reason) = surprise.as_ref().filter(|_| surprise != said) {
                eprintln!("{reason}");
            }
            said = surprise;
        } else if let Some(reason) = surprise {
            let logs = testbed.stop_and_keep().await;
            return Err(format!("{reason}; logs: {}", logs.display()));
        }
    }
    eprintln!("stopping");
    testbed.stop().await;
    Ok(())
}

fn banner(start: &Start, testbed: &Testbed) -> String {
    let control = testbed.control();
    let mut text = format!(
        "testbed {} is up ({}, {})\n\n  control   http://{control}/docs\n",
        start.topology.name, start.mode, start.durability
    );
    let edges: Vec<_> = start.topology.edges().map(|edge| edge.name.to_string()).collect();
    let mut example = None;
    for (name, address) in testbed.services() {
        let kind = if edges.iter().any(|edge| edge == name) { "gateway" } else { "region" };
        if kind == "gateway" {
            example = Some(address);
        }
        text.push_str(&format!("  {kind:<9} http://{address}  {name}\n"));
    }
    let home = start.topology.regions().next().map_or("", |(_, name)| name.as_str());
    if let Some(gateway) = example {
        text.push_str(&format!(
            "\n  curl -X PUT http://{gateway}/v1/records/{home}/hello -H 'content-type: application/json' -d '{{\"n\":1}}'\n"
        ));
    }
    text.push_str(&format!("  longhaul drill region-loss --target http://{control}\n"));
    if let Some(jaeger) = &start.jaeger {
        text.push_str(&format!("\n  traces    {jaeger}/search?service=longhaul-gateway\n"));
    }
    text.push_str(&format!("\n  data      {}\n  Ctrl-C stops it", testbed.data().display()));
    text
}
