//! The roles: one process each, the same code in every world. A role is configured by a file that the parent process
//! wrote, or by its place in the topology and the environment.

use std::path::Path;
use std::sync::Arc;

use longhaul_gateway::{GatewayConfig, GatewayDeps};
use longhaul_http::clock::{SharedClock, SystemClock};
use longhaul_http::net::{Listener, SharedNet, TokioNet};
use longhaul_region::config::StoreConfig;
use longhaul_region::state::SharedStore;
use longhaul_region::store::Identity;
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::store::sqlite::SqliteStore;
use longhaul_region::{InstanceDeps, RegionConfig};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{PlaceArgs, RoleArgs};
use crate::containers::{self, Site};
use crate::embedded::{LinkRole, RoleFile, TrafficRole};
use crate::outcome::Outcome;
use crate::signals;
use crate::telemetry::{self, Telemetry};

/// The store's file in a region's folder.
const STORE_FILE: &str = "store.sqlite";

/// What every role gets.
struct Seams {
    net: SharedNet,
    clock: SharedClock,
    stop: CancellationToken,
}

/// A region, or one API instance of a region.
pub(crate) async fn region(args: &RoleArgs) -> Outcome {
    run(args, "region", containers::region, async |config: RegionConfig, seams| {
        let store: SharedStore = match &config.store {
            StoreConfig::Memory => Arc::new(MemoryStore::new()),
            StoreConfig::Sqlite { folder } => {
                let identity =
                    Identity { topology_fingerprint: config.topology_fingerprint.clone(), region: config.region };
                let opened = SqliteStore::open(folder.join(STORE_FILE), identity).await;
                Arc::new(opened.map_err(|error| error.to_string())?)
            }
            StoreConfig::Postgres { .. } => {
                let listener = listen(&seams, &config.listen).await?;
                let deps = InstanceDeps { net: seams.net, clock: seams.clock };
                let ran = Box::pin(longhaul_region::run_instance(deps, config, listener, seams.stop)).await;
                return ran.map_err(|error| error.to_string());
            }
        };
        let listener = listen(&seams, &config.listen).await?;
        let deps = longhaul_region::Deps { net: seams.net, clock: seams.clock, store };
        longhaul_region::run(deps, config, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// A gateway.
pub(crate) async fn gateway(args: &RoleArgs) -> Outcome {
    run(args, "gateway", containers::gateway, async |config: GatewayConfig, seams| {
        let listener = listen(&seams, &config.listen).await?;
        let deps = GatewayDeps { net: seams.net, clock: seams.clock };
        longhaul_gateway::run(deps, config, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// Users.
pub(crate) async fn traffic(args: &RoleArgs) -> Outcome {
    run(args, "traffic", containers::traffic, async |config: TrafficRole, seams| {
        let listener = listen(&seams, &config.listen).await?;
        let deps = longhaul_traffic::Deps { net: seams.net, clock: seams.clock };
        longhaul_traffic::run(deps, config.traffic, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// Links: all of an embedded testbed, or the agent of one location among containers.
pub(crate) async fn link(args: &RoleArgs) -> Outcome {
    if args.config.is_none() {
        return placed(&args.place, "link", async |site: Site, seams| {
            let listener = listen(&seams, &site.layout().link).await?;
            containers::agent(&site, listener, seams.stop).await
        })
        .await;
    }
    let place = |_: &Site| Err("a defect: the agent has a place of its own".to_owned());
    run(args, "link", place, async |config: LinkRole, seams| {
        let listener = listen(&seams, &config.listen).await?;
        let deps = longhaul_netem::agent::Deps {
            net: seams.net,
            clock: seams.clock,
            relay: config.relay,
            token: config.token,
        };
        longhaul_netem::agent::run(deps, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// Control among containers.
pub(crate) async fn control(args: &PlaceArgs) -> Outcome {
    placed(args, "control", async |site, seams| {
        let listener = listen(&seams, &Site::control_listen()).await?;
        containers::control(&site, listener, seams.stop).await
    })
    .await
}

async fn listen(seams: &Seams, address: &str) -> Result<Listener, String> {
    seams.net.bind(address).await.map_err(|error| error.to_string())
}

/// Reads the configuration, starts telemetry, and runs the role until a signal or the end of the parent. A role at a place
/// among containers first asks to be admitted there.
async fn run<T: DeserializeOwned>(
    args: &RoleArgs,
    role: &'static str,
    configure: impl FnOnce(&Site) -> Result<T, String>,
    serve: impl AsyncFnOnce(T, Seams) -> Result<(), String>,
) -> Outcome {
    let Some(path) = &args.config else {
        return placed(&args.place, role, async |site: Site, seams| {
            let config = configure(&site)?;
            // Users come and go with their container: they are no part of what a location can lose.
            if role == "traffic" || containers::admitted(&site, role, &seams.stop).await? {
                serve(config, seams).await?;
            }
            Ok(())
        })
        .await;
    };
    let file: RoleFile<T> = match read(path) {
        Ok(file) => file,
        Err(reason) => return Outcome::invalid(reason),
    };
    let work = async |seams| serve(file.role, seams).await;
    let spans = file.spans.as_deref();
    under_telemetry(role, &file.location, (file.otlp.as_deref(), spans), args.supervised, work).await
}

/// Runs a role at its place among containers.
async fn placed(
    args: &PlaceArgs,
    role: &'static str,
    serve: impl AsyncFnOnce(Site, Seams) -> Result<(), String>,
) -> Outcome {
    let mut site = match Site::read(args, &|name| std::env::var(name).ok()) {
        Ok(site) => site,
        Err(reason) => return Outcome::invalid(format!("{role}: {reason}")),
    };
    let location =
        if role == "control" { Ok("control".to_owned()) } else { site.location().map(|l| l.name.to_string()) };
    let location = match location {
        Ok(location) => location,
        Err(reason) => return Outcome::invalid(format!("{role}: {reason}")),
    };
    if site.otlp.is_none()
        && let Some(url) = &site.collector
        && containers::collector_answers(&TokioNet, url).await
    {
        site.otlp = Some(url.clone());
    }
    let otlp = site.otlp.clone();
    let clock = Arc::new(site.clock());
    let work = async |seams: Seams| serve(site, Seams { clock, ..seams }).await;
    under_telemetry(role, &location, (otlp.as_deref(), None), false, work).await
}

async fn under_telemetry(
    role: &'static str,
    location: &str,
    (otlp, spans): (Option<&str>, Option<&std::path::Path>),
    supervised: bool,
    serve: impl AsyncFnOnce(Seams) -> Result<(), String>,
) -> Outcome {
    let work = async {
        let tasks = TaskTracker::new();
        let stop = signals::stop_on_signal(&tasks)
            .map_err(|error| format!("signals cannot be received: {error}; check the limits"))?;
        if supervised {
            signals::stop_with_parent(stop.clone())
                .map_err(|error| format!("the parent cannot be watched: {error}; check the limits"))?;
        }
        let seams = Seams { net: Arc::new(TokioNet), clock: Arc::new(SystemClock::default()), stop };
        serve(seams).await
    };
    let telemetry = Telemetry { role, location, otlp, spans, spans_later: false, filter: telemetry::ROLE };
    match telemetry::with(telemetry, work).await {
        Ok(()) => Outcome::Met,
        Err(reason) => Outcome::invalid(format!("{role} {location}: {reason}")),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<RoleFile<T>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("configuration {name} cannot be read: {error}; check --config"))?;
    serde_json::from_str(&text).map_err(|error| format!("configuration {name}: {error}; correct that line"))
}
