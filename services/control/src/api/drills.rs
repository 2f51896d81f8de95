//! `/v1/drills`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use longhaul_http::problem::Problem;
use longhaul_http::wire::drills::{DrillRequest, DrillStarted, DrillStatus, DrillSummary};

use super::accepted;
use crate::body::Body;
use crate::drill;
use crate::state::Control;

/// Every drill that is remembered, oldest first.
#[utoipa::path(get, path = "/v1/drills", tag = "drills", responses((status = 200, body = Vec<DrillSummary>)))]
pub(crate) async fn list_drills(State(control): State<Arc<Control>>) -> Json<Vec<DrillSummary>> {
    Json(drill::summaries(&control))
}

/// Starts a drill: `{"name": "region-loss"}`, or `{"plan": {...}}`. One at a time.
#[utoipa::path(post, path = "/v1/drills", tag = "drills", request_body = DrillRequest,
    responses((status = 202, body = DrillStarted), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, description = "A drill, a fault or continuous traffic is in the way", body = Problem)))]
pub(crate) async fn start_drill(
    State(control): State<Arc<Control>>,
    Body(request): Body<DrillRequest>,
) -> Result<Response, Problem> {
    let plan = drill::plan_of(request, &control.config.topology)?;
    let started: DrillStarted = control.start_drill(plan).await?;
    Ok(accepted(started))
}

/// How far a drill is, and its report once it is done.
#[utoipa::path(get, path = "/v1/drills/{id}", tag = "drills", params(("id" = String, Path, description = "The drill")),
    responses((status = 200, body = DrillStatus), (status = 404, body = Problem)))]
pub(crate) async fn get_drill(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<DrillStatus>, Problem> {
    drill::status(&control, &id).map(Json)
}
