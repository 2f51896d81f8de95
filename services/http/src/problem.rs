//! Problem documents: every error answer, as `application/problem+json` (RFC 9457) with a stable code.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use longhaul_core::error_code::{Effect, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The stable code.
    pub code: ErrorCode,
    /// The HTTP status, again.
    pub status: u16,
    /// What happened, why, and what to do; one line.
    pub detail: String,
    /// Whether sending the same request again is safe without an idempotency key and may succeed.
    pub retryable: bool,
    /// Whether the operation may have taken effect (`true`: the outcome is unknown).
    pub outcome_unknown: bool,
    /// The trace, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The region that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The home of the record (`wrong_home`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The primary (`not_primary`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The epoch of whoever answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Milliseconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What is missing, one line per region (`transition_refused`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl Problem {
    /// A problem with a code and one line for people.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            retryable: code.is_retryable(),
            outcome_unknown: code.effect() == Effect::Unknown,
            trace_id: None,
            region: None,
            home: None,
            primary: None,
            epoch: None,
            retry_after_ms: None,
            missing: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.div_ceil(1000)));
        }
        response
    }
}
