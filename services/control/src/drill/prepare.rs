//! Before a drill: every role answers, and the testbed is in the regime that the plan starts in.

use std::time::Duration;

use http::HeaderMap;
use longhaul_core::limits::CONTROL_DEADLINE;
use longhaul_core::plan::DrillPlan;
use longhaul_core::regime::{Mode, Regime};
use longhaul_http::wire::control::RegimeChange;
use longhaul_http::wire::gateway::{GATEWAY_PATH, GatewayStatus};
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH};

use crate::state::Control;

/// How long roles may take to get ready before a drill.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Brings the testbed into the plan's regime. The error says who was not ready, or why the regime could not be reached.
pub(crate) async fn prepare(control: &Control, plan: &DrillPlan, trace: &HeaderMap) -> Result<(), String> {
    wait_ready(control, READY_DEADLINE).await?;
    let (regime, _) = control.regime().await.map_err(|problem| problem.detail)?;
    if let Some(change) = change_to_start(control, &regime, plan) {
        let started = control.change_regime(&change, trace.clone()).await.map_err(|problem| {
            let missing =
                if problem.missing.is_empty() { String::new() } else { format!(": {}", problem.missing.join("; ")) };
            format!("the testbed cannot be brought into the regime of the plan: {}{missing}", problem.detail)
        })?;
        if let Some(started) = started {
            control
                .ended(&started.id)
                .await
                .map_err(|reason| format!("the testbed cannot be brought into the regime of the plan: {reason}"))?;
            wait_ready(control, READY_DEADLINE).await?;
        }
    }
    Ok(())
}

fn change_to_start(control: &Control, regime: &Regime, plan: &DrillPlan) -> Option<RegimeChange> {
    let topology = &control.config.topology;
    let start = &plan.regime;
    let first = || topology.regions().next().map(|(_, name)| name.to_string());
    let primary = (start.mode == Mode::ActivePassive).then(|| start.primary.clone().or_else(first)).flatten();
    let now = regime.primary.and_then(|region| topology.region_name(region)).map(ToString::to_string);
    if (regime.mode, regime.durability, &now) == (start.mode, start.durability, &primary) {
        return None;
    }
    Some(RegimeChange { mode: Some(start.mode), durability: Some(start.durability), primary, force: false })
}

/// Waits until every region serves, and every gateway routes by the newest regime.
pub(crate) async fn wait_ready(control: &Control, deadline: Duration) -> Result<(), String> {
    let mut waiting_for = Vec::new();
    let look = async {
        loop {
            waiting_for = not_ready(control).await;
            if waiting_for.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(deadline, look).await.is_err() {
        return Err(format!("not ready within {} s: {}", deadline.as_secs(), waiting_for.join("; ")));
    }
    Ok(())
}

async fn not_ready(control: &Control) -> Vec<String> {
    let mut waiting = Vec::new();
    for (region, answer) in control.ask_all::<RegionStatus>(STATUS_PATH).await {
        match answer {
            Ok(status) if status.ready => {}
            Ok(status) => waiting.push(format!("{region} is {}: {}", status.role, status.trouble.unwrap_or_default())),
            Err(error) => waiting.push(format!("{region}: {error}")),
        }
    }
    let Ok((regime, adopted)) = control.regime().await else { return waiting };
    for (region, epoch) in adopted.into_iter().filter(|(_, epoch)| *epoch < regime.epoch.0) {
        waiting.push(format!("{region} has adopted epoch {epoch} of {}", regime.epoch));
    }
    for (edge, status) in gateways(control).await {
        match status {
            Ok(status) if status.epoch >= regime.epoch.0 => {}
            Ok(status) => waiting.push(format!("gateway {edge} routes by epoch {} of {}", status.epoch, regime.epoch)),
            Err(reason) => waiting.push(reason),
        }
    }
    waiting
}

/// Every gateway's own account.
pub(crate) async fn gateways(control: &Control) -> Vec<(String, Result<GatewayStatus, String>)> {
    let asks = control.edge_targets().into_iter().map(|edge| async move {
        let answer = control.client.get::<GatewayStatus>(&edge.gateway, GATEWAY_PATH, CONTROL_DEADLINE).await;
        let answer = answer.map_err(|error| format!("gateway {}: {error}", edge.name));
        (edge.name, answer)
    });
    futures::future::join_all(asks).await
}
