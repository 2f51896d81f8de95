//! Traffic, through its role: runs for drills, continuous traffic for people.

use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_core::limits::CONTROL_DEADLINE;
use longhaul_core::plan::Workload;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::EventKind;
use longhaul_http::wire::traffic::{EdgeTarget, RegionTarget, TRAFFIC_PATH, TrafficRequest, TrafficStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::regions::problem;
use crate::state::Control;

/// Start continuous traffic at every edge.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrafficCommand {
    /// What users do; the default workload if absent.
    pub(crate) workload: Workload,
    /// The seed of everything random.
    pub(crate) seed: u64,
    /// How long, seconds; until it is stopped if absent.
    pub(crate) seconds: Option<f64>,
}

impl Control {
    /// Every edge with the gateway that its users enter at.
    pub(crate) fn edge_targets(&self) -> Vec<EdgeTarget> {
        let topology = &self.config.topology;
        let target = |edge: &longhaul_core::topology::Location| {
            Some(EdgeTarget {
                name: edge.name.to_string(),
                home: topology.region_name(edge.home?)?.to_string(),
                gateway: self.world.gateway_address(&edge.name)?,
            })
        };
        topology.edges().filter_map(target).collect()
    }

    /// Every region with its own address.
    pub(crate) fn region_targets(&self) -> Vec<RegionTarget> {
        let target = |name: &longhaul_core::ids::LocationName| {
            Some(RegionTarget { name: name.to_string(), address: self.world.region_address(name)? })
        };
        self.config.topology.regions().filter_map(|(_, name)| target(name)).collect()
    }

    /// Asks the traffic role.
    pub(crate) async fn ask_traffic<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, Problem> {
        let answer = self.client.json(method, &self.world.traffic_address(), path, headers, body, deadline).await;
        answer.map_err(|error| problem("traffic", &error))
    }

    /// Starts continuous traffic.
    pub(crate) async fn start_traffic(&self, command: TrafficCommand) -> Result<TrafficStatus, Problem> {
        let TrafficCommand { workload, seed, seconds } = command;
        let request = TrafficRequest { workload, edges: self.edge_targets(), seed, seconds };
        let status: TrafficStatus =
            self.ask_traffic(Method::POST, TRAFFIC_PATH, HeaderMap::new(), Some(&request), CONTROL_DEADLINE).await?;
        let text = format!("traffic flows, {} operations a second", status.rate_per_s);
        self.events.record(EventKind::Traffic, None, text);
        Ok(status)
    }

    /// Continuous traffic as it is.
    pub(crate) async fn traffic(&self) -> Result<TrafficStatus, Problem> {
        self.ask_traffic::<(), _>(Method::GET, TRAFFIC_PATH, HeaderMap::new(), None, CONTROL_DEADLINE).await
    }

    /// Stops continuous traffic.
    pub(crate) async fn stop_traffic(&self) -> Result<TrafficStatus, Problem> {
        let status =
            self.ask_traffic::<(), _>(Method::DELETE, TRAFFIC_PATH, HeaderMap::new(), None, CONTROL_DEADLINE).await?;
        self.events.record(EventKind::Traffic, None, "traffic has stopped");
        Ok(status)
    }
}
