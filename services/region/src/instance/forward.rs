//! Passing a request on to the instance that holds the store.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::{STORE_DEADLINE, STORE_TAKEOVER, VALUE_BYTES_MAX};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::problem::Problem;

/// Says that a request has been passed on once: it is not passed on again.
const FORWARDED: HeaderName = HeaderName::from_static("longhaul-forwarded");
/// Deadline of what a user asked.
const PUBLIC_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of everything else: some of it walks over whole tables.
const INTERNAL_DEADLINE: Duration = STORE_DEADLINE.saturating_mul(13);
/// Headers that belong to one connection. Source: RFC 9110, section 7.6.1.
const OF_THE_CONNECTION: [HeaderName; 6] =
    [header::CONNECTION, header::HOST, header::TE, header::TRANSFER_ENCODING, header::UPGRADE, header::CONTENT_LENGTH];

/// Sends the request to `holder` and gives its answer. What it may have done there stays unknown if the answer is lost,
/// or if the holder is `gone` before it comes.
pub(super) async fn forward(
    client: &HttpClient,
    region: &str,
    holder: Option<String>,
    gone: impl Future<Output = ()>,
    request: Request,
) -> Response {
    let refuse = |code, detail: String| {
        let mut problem = Problem::new(code, detail);
        problem.region = Some(region.to_owned());
        problem.retry_after_ms = (code == ErrorCode::NotReady).then_some(100);
        problem.into_response()
    };
    let nobody = || {
        let within = STORE_TAKEOVER.as_secs();
        format!("no instance of the region holds its store at this moment; another one takes over within {within} s")
    };
    let Some(address) = holder.filter(|_| !request.headers().contains_key(FORWARDED)) else {
        return refuse(ErrorCode::NotReady, nobody());
    };
    if request.headers().contains_key(header::UPGRADE) {
        let detail = "this instance does not hold the region's store; open the stream at another one".to_owned();
        return refuse(ErrorCode::NotReady, detail);
    }
    let deadline = if request.uri().path().starts_with("/internal/") { INTERNAL_DEADLINE } else { PUBLIC_DEADLINE };
    let (mut parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, VALUE_BYTES_MAX * 64).await else {
        return refuse(ErrorCode::BadRequest, "the body broke off, or is too large".to_owned());
    };
    for name in OF_THE_CONNECTION {
        parts.headers.remove(name);
    }
    parts.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    let request = http::Request::from_parts(parts, body);
    let sent = tokio::select! {
        biased;
        sent = client.send(&address, request, deadline) => sent,
        () = gone => {
            let detail = "the instance that held the store stopped answering while the request was under way".to_owned();
            return refuse(ErrorCode::UpstreamTimeout, detail);
        }
    };
    match sent {
        Ok(answer) => passed_on(answer),
        Err(CallError::Unreachable { .. }) => refuse(ErrorCode::NotReady, nobody()),
        Err(error) => refuse(error.code(), format!("the instance that holds the store: {error}")),
    }
}

fn passed_on(answer: http::Response<Bytes>) -> Response {
    let (mut parts, body) = answer.into_parts();
    for name in OF_THE_CONNECTION {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::from(body))
}
