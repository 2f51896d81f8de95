//! What an instance answers while its database cannot be used: why, to everybody.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;

/// Milliseconds after which it makes sense to ask again.
const RETRY_AFTER_MS: u64 = 250;

/// Refuses everything with one line; the process itself is healthy.
pub(super) fn router(region: &str, reason: &str) -> Router {
    let mut problem = Problem::new(ErrorCode::StoreUnavailable, reason);
    problem.region = Some(region.to_owned());
    problem.retry_after_ms = Some(RETRY_AFTER_MS);
    Router::new().route("/healthz", get(|| async { StatusCode::OK })).fallback(move || async move { refuse(problem) })
}

fn refuse(problem: Problem) -> Response {
    problem.into_response()
}
