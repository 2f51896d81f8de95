//! The token of internal and control endpoints. Bound to loopback, none is needed.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header;
use longhaul_core::error_code::ErrorCode;

use crate::problem::Problem;

/// Middleware: with a token configured, requires `Authorization: Bearer TOKEN`.
pub async fn require_token(State(token): State<Option<String>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| same(given, &token)) {
        return next.run(request).await;
    }
    Problem::new(
        ErrorCode::Unauthorized,
        "the token is missing or wrong; send `Authorization: Bearer TOKEN` with the testbed's token",
    )
    .into_response()
}

/// Compares without telling by its duration where two texts differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
