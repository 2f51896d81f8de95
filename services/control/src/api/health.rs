//! `/healthz`, `/readyz`, `/metrics`.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use http::header;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;

use crate::drill;
use crate::state::Control;

/// Whether control runs.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It runs", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether control can do its work: at least one region answers.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "At least one region answers", body = String), (status = 503, body = Problem)))]
pub(crate) async fn readyz(State(control): State<Arc<Control>>) -> Result<&'static str, Problem> {
    match control.regime().await {
        Ok(_) => Ok("ok\n"),
        Err(problem) => Err(Problem::new(ErrorCode::NotReady, problem.detail)),
    }
}

/// Control's own figures in the Prometheus text format, version 0.0.4.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(control): State<Arc<Control>>) -> ([(header::HeaderName, &'static str); 1], String) {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let drills = drill::summaries(&control);
    let running = drills.iter().filter(|drill| !drill.phase.is_over()).count();
    metric("longhaul_control_events_total", "counter", "Events recorded since the start.", control.events.last());
    metric("longhaul_control_faults_active", "gauge", "Faults in force.", control.faults.active().len() as u64);
    metric("longhaul_control_drills_remembered", "gauge", "Drills that are remembered.", drills.len() as u64);
    metric("longhaul_control_drills_running", "gauge", "Drills under way.", running as u64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
