//! `topology check` and `topology show`.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use longhaul_core::topology::{LocationKind, Topology};
use longhaul_http::wire::control::TopologyView;

use crate::cli::TopologyCommand;
use crate::outcome::Outcome;
use crate::{inputs, report};

/// Checks or shows a topology.
pub(crate) fn run(command: TopologyCommand) -> Outcome {
    let result = match command {
        TopologyCommand::Check { topology } => inputs::topology(&topology).map(|topology| {
            println!(
                "{}: {} regions, {} edges, {} directed links: it can be used",
                topology.name,
                topology.regions().count(),
                topology.edges().count(),
                topology.links.len()
            );
        }),
        TopologyCommand::Show { topology, json } => inputs::topology(&topology).and_then(|topology| {
            if json {
                return report::print_json(&TopologyView::new(&topology, "embedded"));
            }
            print!("{}", text(&topology));
            Ok(())
        }),
    };
    match result {
        Ok(()) => Outcome::Met,
        Err(reason) => Outcome::invalid(reason),
    }
}

fn text(topology: &Topology) -> String {
    let mut locations = Table::new();
    locations.load_style(UTF8_FULL_CONDENSED).set_header(["location", "kind", "number", "home"]);
    for location in &topology.locations {
        let home = location.home.and_then(|home| topology.region_name(home)).map_or("", |name| name.as_str());
        let number = location.region.map_or_else(String::new, |region| region.to_string());
        let kind = match location.kind {
            LocationKind::Region => "region",
            LocationKind::Edge => "edge",
        };
        locations.add_row([location.name.as_str(), kind, &number, home]);
    }
    let mut links = Table::new();
    links.load_style(UTF8_FULL_CONDENSED);
    links.set_header(["from", "to", "round trip ms", "one way ms", "jitter ms", "loss %", "kbit/s", "source"]);
    for ((from, to), link) in &topology.links {
        let profile = &link.profile;
        links.add_row([
            from.to_string(),
            to.to_string(),
            format!("{:.1}", topology.round_trip_ms(from, to).unwrap_or(f64::NAN)),
            format!("{:.2}", profile.delay_ms),
            format!("{:.2}", profile.jitter_ms),
            format!("{:.2}", profile.loss * 100.0),
            profile.rate_kbit.map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string()),
            link.source.clone(),
        ]);
    }
    for column in 2..7 {
        if let Some(column) = links.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("topology {} (regions {})\n{locations}\n{links}\n", topology.name, topology.fingerprint)
}
