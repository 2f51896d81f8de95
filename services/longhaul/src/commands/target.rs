//! Control, as commands talk to it: in a testbed of their own, or a running one elsewhere.

use std::time::Duration;

use longhaul_core::plan::DrillPlan;
use longhaul_core::report::RunReport;
use longhaul_http::client::root_cause;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{TOPOLOGY_PATH, TopologyView};
use longhaul_http::wire::drills::{DRILLS_PATH, DrillPhase, DrillRequest, DrillStarted, DrillStatus};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::embedded::Testbed;
use crate::report::Progress;

/// Deadline of one question.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often to look at a drill.
const LOOK: Duration = Duration::from_millis(300);
/// How long control may be silent during a drill (a drill may kill it) before the run counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Where control answers. People and their tools stand outside of the testbed, so this is an ordinary HTTP client, not
/// the services' own.
pub(crate) struct Target {
    client: reqwest::Client,
    address: String,
}

/// Why control did not give what was asked for.
enum AskError {
    /// It answered, with a reason that will not change.
    Refused(String),
    /// It did not answer.
    Silent(String),
}

impl AskError {
    fn text(self) -> String {
        match self {
            Self::Refused(text) | Self::Silent(text) => text,
        }
    }
}

impl Target {
    /// Control at `host:port`.
    pub(crate) fn new(address: impl Into<String>) -> Self {
        // Control is on this machine or named by its address: a proxy of the environment must not come between.
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap_or_default();
        Self { client, address: address.into() }
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

    async fn ask<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<A, AskError> {
        let silent = |error: reqwest::Error| AskError::Silent(format!("{}: {}", self.address, root_cause(&error)));
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(silent)?;
        let status = answer.status();
        let text = answer.bytes().await.map_err(silent)?;
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&text);
            let plain = |_| format!("{} answered {status}", self.address);
            return Err(AskError::Refused(problem.map_or_else(plain, |problem| problem.detail)));
        }
        serde_json::from_slice(&text)
            .map_err(|error| AskError::Refused(format!("{} answered what cannot be read: {error}", self.address)))
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, AskError> {
        self.ask::<(), A>(Method::GET, path, None).await
    }

    /// The topology that the testbed runs.
    pub(crate) async fn topology(&self) -> Result<TopologyView, String> {
        self.get(TOPOLOGY_PATH).await.map_err(|error| {
            let reason = error.text();
            format!("no control answers: {reason}; start a testbed with longhaul up, or leave out --target")
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
            self.ask(Method::POST, DRILLS_PATH, Some(&request)).await.map_err(AskError::text)?;
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
            let status: DrillStatus = match self.get(&path).await {
                Ok(status) => status,
                Err(AskError::Refused(reason)) => return Err(reason),
                Err(AskError::Silent(error)) => {
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
