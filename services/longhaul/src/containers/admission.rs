//! Before a region or a gateway begins, it asks its location's agent. A location that was killed on purpose stays down
//! although the engine starts its containers again: no engine socket is needed to keep it down, or to bring it back.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::net::TokioNet;
use longhaul_http::wire::location::{ADMISSION_PATH, Admission};
use tokio_util::sync::CancellationToken;

use super::Site;
use super::places::AGENT_PORT;

/// Deadline of one question; the agent waits for up to ten seconds before it says no.
const ASK: Duration = Duration::from_secs(15);
/// Pause before the next question.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the agent may be silent before the process gives up, and with it its container.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Waits until the location's agent lets this process begin. `Ok(false)`: told to stop meanwhile.
pub(crate) async fn admitted(site: &Site, role: &str, stop: &CancellationToken) -> Result<bool, String> {
    if !site.agents {
        return Ok(true);
    }
    let client = HttpClient::new(Arc::new(TokioNet));
    let address = format!("127.0.0.1:{AGENT_PORT}");
    let admission = Admission { role: role.to_owned(), pid: std::process::id() };
    let mut silent = Duration::ZERO;
    loop {
        let headers = HeaderMap::new();
        let asked = client.json::<_, ()>(Method::POST, &address, ADMISSION_PATH, headers, Some(&admission), ASK);
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            answer = asked => answer,
        };
        match answer {
            Ok(()) => return Ok(true),
            Err(CallError::Problem { problem, .. }) if problem.retryable => silent = Duration::ZERO,
            Err(error) if silent >= SILENCE_MAX => {
                return Err(format!("the location's agent does not let it begin: {error}; see the agent's log"));
            }
            Err(_) => silent += PAUSE,
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
