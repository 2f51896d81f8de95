//! Error answers: the region, its epoch and, where another region is the right one, that region's name.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::GateRefusal;
use longhaul_core::ids::RegionId;
use longhaul_core::operation::TraceContext;
use longhaul_http::problem::Problem;
use longhaul_http::trace::trace_id_text;

use crate::state::Region;
use crate::writer::WriteError;

/// Milliseconds after which it makes sense to ask again.
const RETRY_AFTER_MS: u64 = 100;

/// A problem of this region.
pub(crate) fn problem(
    region: &Region,
    code: ErrorCode,
    detail: impl Into<String>,
    trace: Option<TraceContext>,
) -> Problem {
    let mut problem = Problem::new(code, detail);
    problem.region = Some(region.config.name().to_owned());
    problem.epoch = Some(region.regime().epoch.0);
    problem.trace_id = trace.map(trace_id_text);
    if matches!(
        code,
        ErrorCode::Overloaded
            | ErrorCode::Switching
            | ErrorCode::NoLease
            | ErrorCode::NotReady
            | ErrorCode::StoreUnavailable
            | ErrorCode::NotCaughtUp
            | ErrorCode::ClockBehind
    ) {
        problem.retry_after_ms = Some(RETRY_AFTER_MS);
    }
    problem
}

/// A write that was not acknowledged.
pub(super) fn write_problem(region: &Region, error: WriteError, trace: Option<TraceContext>) -> Problem {
    let ask = error.ask;
    with_hint(region, problem(region, error.code, error.detail, trace), ask)
}

/// A request that this region does not take.
pub(crate) fn gate_problem(region: &Region, refusal: GateRefusal, trace: Option<TraceContext>) -> Problem {
    with_hint(region, problem(region, refusal.code(), refusal.to_string(), trace), refusal.hint())
}

fn with_hint(region: &Region, mut problem: Problem, ask: Option<RegionId>) -> Problem {
    let name = ask.map(|ask| region.config.name_of(ask).to_owned());
    match problem.code {
        ErrorCode::WrongHome => problem.home = name,
        ErrorCode::NotPrimary | ErrorCode::Switching => problem.primary = name,
        _ => {}
    }
    problem
}

/// Middleware: answers of the framework itself (no such path, wrong method, unreadable query or body) become problems
/// too.
pub(super) async fn unknown_routes(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_ours =
        response.headers().get(header::CONTENT_TYPE) == Some(&HeaderValue::from_static("application/problem+json"));
    if is_ours || !status.is_client_error() {
        return response;
    }
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (ErrorCode::NotFound, "there is no such path; /docs of control lists them"),
        StatusCode::METHOD_NOT_ALLOWED => (ErrorCode::BadRequest, "this path does not take this method"),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::TooLarge, "the request body is too large"),
        _ => (ErrorCode::BadRequest, "the request cannot be read; check its query, headers and body"),
    };
    let mut problem = Problem::new(code, detail);
    problem.status = status.as_u16();
    problem.into_response()
}
