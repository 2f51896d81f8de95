//! `health`: whether a process of this location answers, for an engine's health check.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use longhaul_http::client::HttpClient;
use longhaul_http::net::TokioNet;

use crate::outcome::{Outcome, one_line};

/// Deadline of the question.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks `http://HOST:PORT/PATH`; any success will do.
pub(crate) async fn run(url: &str) -> Outcome {
    match ask(url).await {
        Ok(()) => Outcome::Met,
        Err(reason) => Outcome::NotMet(reason),
    }
}

async fn ask(url: &str) -> Result<(), String> {
    let refuse = || format!("{url:?} is not http://HOST:PORT/PATH; correct it");
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or_else(refuse)?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = format!("/{path}").parse().map_err(|_| refuse())?;
    let client = HttpClient::new(Arc::new(TokioNet));
    let answer = client.send(address, request, DEADLINE).await.map_err(|error| error.to_string())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(answer.body());
    Err(format!("{url} answered {}: {}", answer.status().as_u16(), one_line(&text)))
}
