//! Polling: each instance of each region is asked for its regime. One question serves three ends: the view of the
//! regime, the health of the instance, and the latency to it.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::limits::GATEWAY_POLL_INTERVAL;
use longhaul_core::regime::Regime;
use longhaul_http::client::CallError;
use longhaul_http::wire::control::KNOWN_REGIME_PATH;
use longhaul_http::wire::regime::REGIME_PATH;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::region::{Instance, Region};

/// Shortest deadline of a poll.
const DEADLINE_MIN: Duration = Duration::from_millis(300);
/// Longest deadline of a poll.
const DEADLINE_MAX: Duration = Duration::from_secs(1);
/// A poll may take this many measured round trips.
const ROUND_TRIPS: u32 = 3;
/// How often control is asked.
const CONTROL_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the pollers; they end with `shutdown`.
pub(crate) fn start(gateway: &Arc<Gateway>, tasks: &TaskTracker, shutdown: &CancellationToken) {
    for region in gateway.regions.values() {
        for instance in &region.instances {
            tasks.spawn(poll_instance(gateway.clone(), region.clone(), instance.clone(), shutdown.clone()));
        }
    }
    if let Some(control) = gateway.config.control.clone() {
        tasks.spawn(poll_control(gateway.clone(), control, shutdown.clone()));
    }
}

async fn poll_instance(
    gateway: Arc<Gateway>,
    region: Arc<Region>,
    instance: Arc<Instance>,
    shutdown: CancellationToken,
) {
    let mut connected = false;
    loop {
        let poll = poll(&gateway, &region, &instance, &mut connected);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = poll => {}
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = instance.nudge.notified() => {}
            () = tokio::time::sleep(GATEWAY_POLL_INTERVAL) => {}
        }
    }
}

/// One poll. The time of one that had to open a connection is no round trip but several, so it is not measured.
async fn poll(gateway: &Gateway, region: &Region, instance: &Instance, connected: &mut bool) {
    let deadline = (instance.latency() * ROUND_TRIPS).clamp(DEADLINE_MIN, DEADLINE_MAX);
    let start = tokio::time::Instant::now();
    let answer = gateway.client.get::<Regime>(&instance.address, REGIME_PATH, deadline).await;
    let turn = match &answer {
        Ok(_) => instance.polled(connected.then(|| start.elapsed())),
        // It answers, if only to say that it is not ready: requests will hear the same, with a code.
        Err(CallError::Problem { .. }) => instance.answered(),
        Err(error) => {
            tracing::debug!(region = region.name, %error, "a poll failed");
            instance.failed()
        }
    };
    *connected = answer.is_ok();
    gateway.turned(region, turn);
    if let Ok(regime) = answer {
        gateway.view.offer(regime);
    }
}

/// Control is one more source of the regime and no more: whether it answers changes nothing.
async fn poll_control(gateway: Arc<Gateway>, address: String, shutdown: CancellationToken) {
    loop {
        let ask = gateway.client.get::<Regime>(&address, KNOWN_REGIME_PATH, DEADLINE_MAX);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            answer = ask => match answer {
                Ok(regime) => { gateway.view.offer(regime); }
                Err(error) => tracing::debug!(%error, "control did not tell the regime"),
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CONTROL_INTERVAL) => {}
        }
    }
}
