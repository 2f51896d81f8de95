//! `/v1/regime`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::operation::TraceContext;
use longhaul_core::regime::Regime;
use longhaul_http::problem::Problem;
use longhaul_http::trace;
use longhaul_http::wire::control::{RegimeChange, RegimeView};
use longhaul_http::wire::regime::ChangeStarted;

use super::accepted;
use crate::body::Body;
use crate::state::Control;

/// The regime with the highest epoch that any region is known to have adopted.
#[utoipa::path(get, path = "/v1/regime", tag = "regime",
    responses((status = 200, body = RegimeView), (status = 503, description = "No region answers", body = Problem)))]
pub(crate) async fn get_regime(State(control): State<Arc<Control>>) -> Result<Json<RegimeView>, Problem> {
    control.regime_view().await.map(Json)
}

/// The newest regime that control has seen, as regions tell it.
pub(crate) async fn known_regime(State(control): State<Arc<Control>>) -> Result<Json<Regime>, Problem> {
    control
        .known
        .get()
        .map(Json)
        .ok_or_else(|| Problem::new(ErrorCode::NotReady, "control has not seen any region yet; try again"))
}

/// Asks for another mode, durability or primary: a planned transition while traffic flows. Follow it under
/// `/v1/failovers/{id}`.
#[utoipa::path(put, path = "/v1/regime", tag = "regime", request_body = RegimeChange,
    responses((status = 202, body = ChangeStarted), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, description = "Refused (`transition_refused`, with what is missing), or nothing to change", body = Problem),
              (status = 503, body = Problem)))]
pub(crate) async fn put_regime(
    State(control): State<Arc<Control>>,
    Extension(context): Extension<TraceContext>,
    Body(change): Body<RegimeChange>,
) -> Result<Response, Problem> {
    let started = control.change_regime(&change, headers(context)).await?;
    started.map(accepted).ok_or_else(nothing_to_change)
}

/// The trace of a request, for what is asked on its behalf.
pub(crate) fn headers(context: TraceContext) -> HeaderMap {
    let mut headers = HeaderMap::new();
    trace::inject(&mut headers, context);
    headers
}

/// The answer where the regime is as asked for already.
pub(crate) fn nothing_to_change() -> Problem {
    Problem::new(ErrorCode::Conflict, "the regime is so already; GET /v1/regime shows it")
}
