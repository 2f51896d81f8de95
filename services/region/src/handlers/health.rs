//! Health, readiness, plain counters, and the regime.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_http::metrics;

use super::problems::problem;
use crate::state::{Blocker, OwnLog, Region};

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200)))]
pub(super) async fn healthz() -> StatusCode {
    StatusCode::OK
}

/// Whether the region serves reads; `503` says why it does not.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200), (status = 503)))]
pub(super) async fn readyz(State(region): State<Arc<Region>>) -> Response {
    if region.is_ready() {
        return StatusCode::OK.into_response();
    }
    problem(&region, ErrorCode::NotReady, trouble(&region).unwrap_or_default(), None).into_response()
}

/// The adopted regime.
#[utoipa::path(get, path = "/v1/regime", tag = "regime", responses((status = 200, body = Object)))]
pub(super) async fn regime(State(region): State<Arc<Region>>) -> Response {
    Json(region.regime().as_ref()).into_response()
}

/// Every figure of the region in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(region): State<Arc<Region>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text_with(region.as_ref())).into_response()
}

/// What keeps the region from serving or writing, in one line.
pub(super) fn trouble(region: &Region) -> Option<String> {
    let mut lines: Vec<String> = region.blockers().into_iter().map(Blocker::text).map(str::to_owned).collect();
    if !region.holds_store() {
        lines.push("this instance waits until the last holder of the store has certainly stopped".to_owned());
    }
    match region.own_log() {
        OwnLog::Confirmed => {}
        OwnLog::Unconfirmed => {
            lines.push("no peer has confirmed yet that this region's log is complete; it is read-only".to_owned());
        }
        OwnLog::Foreign { timeline, .. } => {
            lines.push(format!("a peer has more of timeline {timeline} than this region; it needs a new incarnation"));
        }
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}
