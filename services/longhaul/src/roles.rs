//! The roles: one process each, the same code in every world.

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

use crate::cli::RoleArgs;
use crate::embedded::{LinkRole, RoleFile, TrafficRole};
use crate::outcome::Outcome;
use crate::signals;

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
    run(args, "region", async |config: RegionConfig, seams| {
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
    run(args, "gateway", async |config: GatewayConfig, seams| {
        let listener = listen(&seams, &config.listen).await?;
        let deps = GatewayDeps { net: seams.net, clock: seams.clock };
        longhaul_gateway::run(deps, config, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// Users.
pub(crate) async fn traffic(args: &RoleArgs) -> Outcome {
    run(args, "traffic", async |config: TrafficRole, seams| {
        let listener = listen(&seams, &config.listen).await?;
        let deps = longhaul_traffic::Deps { net: seams.net, clock: seams.clock };
        longhaul_traffic::run(deps, config.traffic, listener, seams.stop).await.map_err(|error| error.to_string())
    })
    .await
}

/// Links.
pub(crate) async fn link(args: &RoleArgs) -> Outcome {
    run(args, "link", async |config: LinkRole, seams| {
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

async fn listen(seams: &Seams, address: &str) -> Result<Listener, String> {
    seams.net.bind(address).await.map_err(|error| error.to_string())
}

/// Reads the configuration, starts telemetry, and runs the role until a signal or the end of the parent.
async fn run<T: DeserializeOwned>(
    args: &RoleArgs,
    role: &'static str,
    serve: impl AsyncFnOnce(T, Seams) -> Result<(), String>,
) -> Outcome {
    let file: RoleFile<T> = match read(&args.config) {
        Ok(file) => file,
        Err(reason) => return Outcome::invalid(reason),
    };
    let location = file.location.clone();
    let otlp = file.otlp.clone();
    let work = async {
        let tasks = TaskTracker::new();
        let stop = signals::stop_on_signal(&tasks)
            .map_err(|error| format!("signals cannot be received: {error}; check the limits"))?;
        if args.supervised {
            signals::stop_with_parent(stop.clone())
                .map_err(|error| format!("the parent cannot be watched: {error}; check the limits"))?;
        }
        let seams = Seams { net: Arc::new(TokioNet), clock: Arc::new(SystemClock::default()), stop };
        serve(file.role, seams).await
    };
    match crate::telemetry::with(role, &location, otlp.as_deref(), crate::telemetry::ROLE, work).await {
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
