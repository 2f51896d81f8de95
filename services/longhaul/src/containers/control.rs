//! Control among containers.

use std::sync::Arc;

use longhaul_control::{Control, ControlConfig, Deps};
use longhaul_http::net::{Listener, TokioNet};
use longhaul_http::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Site;
use super::world::ContainersWorld;
use crate::control_api;

/// Runs control until `stop`.
pub(crate) async fn run(site: &Site, listener: Listener, stop: CancellationToken) -> Result<(), String> {
    let address = Site::control_listen();
    let (up, is_up) = watch::channel(true);
    let net = Arc::new(TokioNet);
    let world = Arc::new(ContainersWorld::new(site.clone(), net.clone(), up));
    let tasks = TaskTracker::new();
    tasks.spawn(world.clone().watch(stop.clone()));
    let config = ControlConfig {
        // Without traces there is nothing to look at.
        jaeger: site.jaeger.clone().filter(|_| site.otlp.is_some()),
        ..ControlConfig::new(site.topology.clone(), site.seed, env!("CARGO_PKG_VERSION"))
    };
    let deps = Deps { net, clock: Arc::new(site.clock()), world };
    let control = Control::start(deps, config);
    control_api::serve(control.clone(), listener, address, is_up, stop).await;
    control.close().await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}
