//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use longhaul_core::regime::{Durability, Mode};

use crate::outcome::Outcome;

const EXAMPLES: &str = "\
Examples:
  longhaul                                        lose a region, with traffic; ends in a verdict
  longhaul up                                     a testbed to play with: http://127.0.0.1:8080/docs
  longhaul drill switchover --durability 'semi(1)'
  longhaul drill my-plan.toml --topology my-regions.toml --report out
  longhaul drill region-loss --target http://127.0.0.1:8080
  longhaul compare region-loss --json             the same plan in every mode, side by side
  longhaul simulate --plan region-loss --seeds 200 distributions, in virtual time
  longhaul trace last-failover                    where every second of the last outage went
  longhaul topology show three-continents

Exit status: 0 expectations met, 1 not met, 2 invalid run or bad input (one line on standard error says why).";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  longhaul simulate
  longhaul simulate --plan switchover --seeds 500 --json
  longhaul simulate --topology my-regions.toml --plan my-drill.toml --seeds 100
  longhaul simulate --topology all-azure --seeds 4  48 regions; minutes for each seed

On a topology that lacks what the plan names, each name stands for the region or edge at the same place there.

Nothing here is measured on real processes or links: the services run in one thread and in virtual time, over links with
the topology's delays. docs/simulation.md says how far its figures are from those of the same drill on real processes.";

const DRILL_EXAMPLES: &str = "\
Examples:
  longhaul drill region-loss
  longhaul drill region-loss --mode active-active --seed 7
  longhaul drill my-plan.toml --report out --json

Shipped drills: region-loss, switchover, failback, link-cut, partial-partition, flapping-link, slow-link, mode-tour,
clock-skew, gateway-loss, control-loss. A path to a TOML file runs a drill of your own.";

/// A testbed for multi-region systems: regions with real latency between them, switchable replication, faults on
/// purpose, and a verdict from what clients saw.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    drill: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a testbed and keep it until Ctrl-C
    #[command(
        after_help = "Examples:\n  longhaul up\n  longhaul up --topology two-regions --data ./data --port 9000\n  longhaul up --database-url postgres://me:secret@127.0.0.1/longhaul"
    )]
    Up(UpArgs),
    /// Run a drill: traffic, faults, verdict
    #[command(after_help = DRILL_EXAMPLES)]
    Drill {
        /// A shipped drill's name, or a path to a TOML file
        #[arg(value_name = "PLAN")]
        plan: String,
        #[command(flatten)]
        args: RunArgs,
    },
    /// Run one plan, seed and workload in every mode and durability, side by side
    #[command(
        after_help = "Examples:\n  longhaul compare region-loss\n  longhaul compare slow-link --seed 3 --json > comparison.json"
    )]
    Compare {
        /// A shipped drill's name, or a path to a TOML file
        #[arg(value_name = "PLAN")]
        plan: String,
        #[command(flatten)]
        args: CompareArgs,
    },
    /// Run a drill in virtual time with many seeds: distributions instead of one number
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
    /// Check or show a topology
    #[command(
        subcommand,
        after_help = "Examples:\n  longhaul topology check my-regions.toml\n  longhaul topology show five-azure"
    )]
    Topology(TopologyCommand),
    /// Draw a trace of a drill or a running testbed as a waterfall
    #[command(
        after_help = "Examples:\n  longhaul trace last-failover\n  longhaul trace last-drill --json\n  longhaul trace 0af7651916cd43dd8448eb211c80319c --from ./data"
    )]
    Trace(TraceArgs),
    /// Write Grafana's dashboards
    #[command(after_help = "Example:\n  longhaul dashboards --out dashboards")]
    Dashboards {
        /// The folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write the OpenAPI documents of every role
    #[command(after_help = "Example:\n  longhaul openapi --out openapi")]
    Openapi {
        /// The folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Run a region's API and store
    #[command(hide = true)]
    Region(RoleArgs),
    /// Run an edge's gateway
    #[command(hide = true)]
    Gateway(RoleArgs),
    /// Run users
    #[command(hide = true)]
    Traffic(RoleArgs),
    /// Run links; with --location, the agent of that location
    #[command(hide = true)]
    Link(RoleArgs),
    /// Run control among containers
    #[command(hide = true)]
    Control(PlaceArgs),
    /// Ask a process whether it is well
    #[command(hide = true)]
    Health {
        /// What to ask, http://HOST:PORT/PATH
        #[arg(value_name = "URL")]
        url: String,
    },
}

/// Topologies.
#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Read a topology and say whether it can be used
    Check {
        /// A shipped topology's name, or a path to a TOML file
        #[arg(value_name = "FILE")]
        topology: String,
    },
    /// Print locations and links, each figure with its source
    Show {
        /// A shipped topology's name, or a path to a TOML file
        #[arg(value_name = "FILE")]
        topology: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where and how a testbed starts.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TestbedArgs {
    /// A shipped topology's name or a path; the plan's own if absent
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) topology: Option<String>,
    /// Where stores and logs lie; a temporary folder if absent
    #[arg(long, value_name = "DIR", env = "LONGHAUL_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Port of control on 127.0.0.1 (`up`: 8080, otherwise any free one)
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Seed of everything random
    #[arg(long, value_name = "N", env = "LONGHAUL_SEED")]
    pub(crate) seed: Option<u64>,
    /// A PostgreSQL server that keeps the records, each region in a schema of its own, for example
    /// postgres://me:secret@127.0.0.1/longhaul; SQLite files if absent
    #[arg(long, value_name = "URL", env = "LONGHAUL_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Where to send traces and metrics (OTLP), for example http://127.0.0.1:4318; more by the OTEL_* variables
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub(crate) otlp: Option<String>,
    /// Where Jaeger's pages are, for the addresses of traces; http://127.0.0.1:16686 with --otlp
    #[arg(long, value_name = "URL", env = "LONGHAUL_JAEGER")]
    pub(crate) jaeger: Option<String>,
}

/// Where Jaeger's pages are if traces are sent and nothing else is said.
const JAEGER: &str = "http://127.0.0.1:16686";

impl TestbedArgs {
    /// Where Jaeger's pages are, if there may be a Jaeger.
    pub(crate) fn jaeger(&self) -> Option<String> {
        self.jaeger.clone().or_else(|| self.otlp.as_ref().map(|_| JAEGER.to_owned()))
    }
}

/// `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) testbed: TestbedArgs,
    /// The mode at the start
    #[arg(long, value_name = "MODE", default_value = "active-passive")]
    pub(crate) mode: Mode,
    /// The durability at the start (active-passive): local, semi(K), sync
    #[arg(long, value_name = "DURABILITY", default_value = "local")]
    pub(crate) durability: Durability,
    /// Go on when a process ends by itself, instead of stopping; restart it through control
    #[arg(long)]
    pub(crate) keep_going: bool,
}

/// `trace`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// A trace's 32 hexadecimal digits, or last-failover, or last-drill
    #[arg(value_name = "ID|last-failover|last-drill")]
    pub(crate) trace: String,
    /// A report's folder or a testbed's data folder; the newest of those in ./reports and of running testbeds if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where reports go.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReportArgs {
    /// Folder of the report; reports/PLAN-YYYYMMDD-HHMMSS if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Print JSON on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Use the running testbed whose control is there, instead of a fresh one
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
}

/// `drill`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) testbed: TestbedArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Another mode at the start: active-passive, active-active, regional-isolation
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Mode>,
    /// Another durability at the start (active-passive): local, semi(K), sync
    #[arg(long, value_name = "DURABILITY")]
    pub(crate) durability: Option<Durability>,
}

/// `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) testbed: TestbedArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Only this mode
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Mode>,
    /// Only this durability
    #[arg(long, value_name = "DURABILITY")]
    pub(crate) durability: Option<Durability>,
}

/// A place among containers.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// A shipped topology's name or a path; LONGHAUL_TOPOLOGY if absent
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) topology: Option<String>,
    /// The location that the process stands at; LONGHAUL_LOCATION if absent
    #[arg(long, value_name = "NAME")]
    pub(crate) location: Option<String>,
}

/// `simulate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SimulateArgs {
    /// A shipped drill's name, or a path to a TOML file
    #[arg(long, value_name = "PLAN", default_value = "region-loss")]
    pub(crate) plan: String,
    /// A shipped topology's name or a path; the plan's own if absent
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) topology: Option<String>,
    /// How many runs, each with a seed of its own
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// The first seed; the plan's own if absent
    #[arg(long, value_name = "N", env = "LONGHAUL_SEED")]
    pub(crate) seed: Option<u64>,
    /// Another mode at the start: active-passive, active-active, regional-isolation
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Mode>,
    /// Another durability at the start (active-passive): local, semi(K), sync
    #[arg(long, value_name = "DURABILITY")]
    pub(crate) durability: Option<Durability>,
    /// Folder of the report; reports/simulate-PLAN-YYYYMMDD-HHMMSS if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Print JSON on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// A role.
#[derive(Debug, Clone, Args)]
pub(crate) struct RoleArgs {
    /// The role's configuration, JSON; from its place and the environment if absent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topology", "location"])]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// End when standard input ends (the parent is gone)
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// Reads the command line. The error is the exit status; what there is to say was said.
pub(crate) fn parse() -> Result<Command, ExitCode> {
    match Cli::try_parse() {
        Ok(Cli { command: Some(command), .. }) => Ok(command),
        Ok(Cli { command: None, drill }) => Ok(Command::Drill { plan: "region-loss".to_owned(), args: drill }),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            print!("{error}");
            Err(ExitCode::SUCCESS)
        }
        Err(error) => Err(Outcome::invalid(refusal(&error)).exit()),
    }
}

/// clap's refusal in one line: what is wrong, its hint, and where to read more.
fn refusal(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = said.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line).replace(":; ", ": ");
    format!("{line}; see longhaul --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_refusal_is_one_line_with_a_hint() {
        for arguments in [
            vec!["longhaul", "dril", "region-loss"],
            vec!["longhaul", "drill"],
            vec!["longhaul", "drill", "region-loss", "--durability", "semi(0)"],
            vec!["longhaul", "up", "--port", "many"],
        ] {
            let line = refusal(&Cli::try_parse_from(&arguments).unwrap_err());
            assert!(!line.contains('\n') && line.ends_with("see longhaul --help"), "{line}");
        }
        let line = refusal(&Cli::try_parse_from(["longhaul", "up", "--mode", "both"]).unwrap_err());
        assert!(line.contains("active-active"), "{line}");
    }

    #[test]
    fn options_alone_belong_to_the_default_drill() {
        let cli = Cli::try_parse_from(["longhaul", "--json", "--seed", "9"]).unwrap();
        assert!(cli.command.is_none() && cli.drill.report.json);
        assert_eq!(cli.drill.testbed.seed, Some(9));
    }

    #[test]
    fn the_short_help_names_commands_for_people_only() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("compare") && help.contains("Exit status"));
        assert!(!help.contains("Run an edge's gateway"));
    }
}
