//! Asking regions, out of band: one, or all at once, each under a deadline.

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::CONTROL_DEADLINE;
use longhaul_http::client::CallError;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::RegionView;
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::Control;

impl Control {
    /// The names of all regions, in the topology's order.
    pub(crate) fn region_names(&self) -> Vec<String> {
        self.config.topology.regions().map(|(_, name)| name.to_string()).collect()
    }

    /// Where a region listens, out of band.
    pub(crate) fn region_address(&self, region: &str) -> Result<String, Problem> {
        let address = self
            .config
            .topology
            .regions()
            .find(|(_, name)| name.as_str() == region)
            .and_then(|(_, name)| self.world.region_address(name));
        address.ok_or_else(|| {
            let known = self.region_names().join(", ");
            Problem::new(ErrorCode::UnknownName, format!("{region:?} is no region of this testbed; use one of {known}"))
        })
    }

    /// `GET` from a region.
    pub(crate) async fn ask_region<A: DeserializeOwned>(&self, region: &str, path: &str) -> Result<A, Problem> {
        let address = self.region_address(region)?;
        self.client.get(&address, path, CONTROL_DEADLINE).await.map_err(|error| problem(region, &error))
    }

    /// `POST` to a region.
    pub(crate) async fn tell_region<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        region: &str,
        path: &str,
        body: &B,
        headers: HeaderMap,
    ) -> Result<A, CallError> {
        let address = self
            .region_address(region)
            .map_err(|problem| CallError::Unreachable { address: region.to_owned(), reason: problem.detail })?;
        self.client.json(Method::POST, &address, path, headers, Some(body), CONTROL_DEADLINE).await
    }

    /// `GET` from every region at once; the slowest answer or the deadline ends it.
    pub(crate) async fn ask_all<A: DeserializeOwned>(&self, path: &str) -> BTreeMap<String, Result<A, CallError>> {
        let asks = self.config.topology.regions().filter_map(|(_, name)| {
            let address = self.world.region_address(name)?;
            Some(async move { (name.to_string(), self.client.get(&address, path, CONTROL_DEADLINE).await) })
        });
        futures::future::join_all(asks).await.into_iter().collect()
    }

    /// Every region, as it says and as the world sees its process.
    pub(crate) async fn regions(&self) -> Vec<RegionView> {
        let mut answers = self.ask_all::<RegionStatus>(STATUS_PATH).await;
        let view = |name: String| {
            let (status, trouble) = match answers.remove(&name) {
                Some(Ok(status)) => (Some(status), None),
                Some(Err(error)) => (None, Some(error.to_string())),
                None => (None, Some("it has no address in this world".to_owned())),
            };
            RegionView { running: self.world.is_running(&name), name, status, trouble }
        };
        self.region_names().into_iter().map(view).collect()
    }
}

/// The answer to a user of control when a role could not answer control: its own problem if it sent one.
pub(crate) fn problem(whom: &str, error: &CallError) -> Problem {
    match error {
        CallError::Problem { problem, .. } => (**problem).clone(),
        other => Problem::new(other.code(), format!("{whom}: {other}; see /v1/regions for what runs")),
    }
}
