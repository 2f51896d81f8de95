//! Control, as commands talk to it: in a testbed of their own, or a running one elsewhere.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::plan::DrillPlan;
use longhaul_core::report::RunReport;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::net::TokioNet;
use longhaul_http::wire::control::{TOPOLOGY_PATH, TopologyView};
use longhaul_http::wire::drills::{DRILLS_PATH, DrillPhase, DrillRequest, DrillStarted, DrillStatus};
use tokio_util::sync::CancellationToken;

use crate::embedded::Testbed;
use crate::report::Progress;

/// Deadline of one question.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often to look at a drill.
const LOOK: Duration = Duration::from_millis(300);
/// How long control may be silent during a drill (a drill may kill it) before the run counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Where control answers.
pub(crate) struct Target {
    client: HttpClient,
    address: String,
}

impl Target {
    /// Control at `host:port`.
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self { client: HttpClient::new(Arc::new(TokioNet)), address: address.into() }
    }

    /// Control at a URL: `http://HOST:PORT`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let refuse =
            || format!("--target {url} is not http://HOST:PORT; name the address of a running testbed's control");
        let rest = url.strip_prefix("http://").ok_or_else(refuse)?;
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = address.rsplit_once(':').ok_or_else(refuse)?;
        if host.is_empty() || address.contains('/') || port.parse::<u16>().is_err() {
            return Err(refuse());
        }
        Ok(Self::new(address))
    }

    /// The topology that the testbed runs.
    pub(crate) async fn topology(&self) -> Result<TopologyView, String> {
        self.client.get(&self.address, TOPOLOGY_PATH, DEADLINE).await.map_err(|error| {
            format!("no control answers: {error}; start a testbed with longhaul up, or leave out --target")
        })
    }

    /// Runs a drill to its end and shows its progress. `own` is the testbed, where it is ours: a process of it that ends
    /// by itself ends the run.
    pub(crate) async fn drill(
        &self,
        plan: &DrillPlan,
        own: Option<&Testbed>,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> Result<RunReport, String> {
        let request = DrillRequest { plan: Some(plan.clone()), ..DrillRequest::default() };
        let started: DrillStarted =
            self.client.post(&self.address, DRILLS_PATH, &request, DEADLINE).await.map_err(|error| said(&error))?;
        let path = format!("{DRILLS_PATH}/{}", started.id);
        let mut silent = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err("stopped by a signal before the end of the drill".to_owned()),
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Some(reason) = own.and_then(Testbed::surprise) {
                return Err(reason);
            }
            let status: DrillStatus = match self.client.get(&self.address, &path, DEADLINE).await {
                Ok(status) => status,
                Err(error @ (CallError::Problem { .. } | CallError::Unreadable { .. })) => return Err(said(&error)),
                Err(error) => {
                    silent += LOOK;
                    if silent > SILENCE_MAX {
                        return Err(format!("control has not answered for {} s: {error}", SILENCE_MAX.as_secs()));
                    }
                    continue;
                }
            };
            silent = Duration::ZERO;
            progress.show(&status);
            match (status.summary.phase, status.report) {
                (DrillPhase::Done, Some(report)) => return Ok(report),
                (DrillPhase::Done | DrillPhase::Failed, _) => {
                    return Err(status.trouble.unwrap_or_else(|| "the drill ended without a report".to_owned()));
                }
                _ => {}
            }
        }
    }
}

fn said(error: &CallError) -> String {
    match error {
        CallError::Problem { problem, .. } => problem.detail.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_plain_address() {
        assert_eq!(Target::parse("http://127.0.0.1:8080/").unwrap().address, "127.0.0.1:8080");
        for url in ["127.0.0.1:8080", "https://a:1", "http://a", "http://:80", "http://a:1/v1", "http://a:99999"] {
            assert!(Target::parse(url).is_err_and(|reason| reason.contains(url)), "{url}");
        }
    }
}
