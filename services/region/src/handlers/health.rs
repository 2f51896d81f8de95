//! Health, readiness, plain counters, and the regime.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use longhaul_core::error_code::ErrorCode;

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

/// Counters and gauges in Prometheus' text format. No labels but peers.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(region): State<Arc<Region>>) -> Response {
    let mut text = String::new();
    for (name, help, value) in region.counters.all() {
        let _ = writeln!(text, "# HELP longhaul_region_{name}_total {help}");
        let _ = writeln!(text, "# TYPE longhaul_region_{name}_total counter\nlonghaul_region_{name}_total {value}");
    }
    let gauges: [(&str, u64); 4] = [
        ("epoch", region.regime().epoch.0),
        ("ready", u64::from(region.is_ready())),
        ("write_queue", region.writer.queued() as u64),
        ("clock_skew_ms", region.clock.skew_ms().unsigned_abs()),
    ];
    for (name, value) in gauges {
        let _ = writeln!(text, "# TYPE longhaul_region_{name} gauge\nlonghaul_region_{name} {value}");
    }
    let _ = writeln!(text, "# TYPE longhaul_region_peer_round_trip_seconds gauge");
    for (peer, state) in region.peers.states() {
        if let Some(round_trip) = state.round_trip_ns {
            let name = region.config.name_of(peer);
            let seconds = round_trip as f64 / 1e9;
            let _ = writeln!(text, "longhaul_region_peer_round_trip_seconds{{peer=\"{name}\"}} {seconds}");
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
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
