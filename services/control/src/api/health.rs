//! `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use http::header;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::metrics;
use longhaul_http::problem::Problem;

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
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text_with(control.as_ref()))
}
