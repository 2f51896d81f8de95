//! `/v1/faults`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::plan::Action;
use longhaul_http::problem::Problem;
use longhaul_http::wire::faults::{FaultView, Healed};

use crate::body::Body;
use crate::state::Control;

/// Every fault that is remembered, oldest first.
#[utoipa::path(get, path = "/v1/faults", tag = "faults", responses((status = 200, body = Vec<FaultView>)))]
pub(crate) async fn list_faults(State(control): State<Arc<Control>>) -> Json<Vec<FaultView>> {
    Json(control.faults.all())
}

/// Injects a fault, in the words of a drill's step: `region-loss`, `region-return`, `kill`, `restart`, `pause`,
/// `resume`, `link` (cut, slow, flap; one way or both), `heal-links`, `clock-skew`. Answers once it is proven to have
/// taken effect.
#[utoipa::path(post, path = "/v1/faults", tag = "faults", request_body = Action,
    responses((status = 201, body = FaultView), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, description = "It did not take effect", body = Problem)))]
pub(crate) async fn inject_fault(
    State(control): State<Arc<Control>>,
    Body(action): Body<Action>,
) -> Result<(StatusCode, Json<FaultView>), Problem> {
    Ok((StatusCode::CREATED, Json(control.inject(&action).await?)))
}

/// Heals every fault in force, newest first.
#[utoipa::path(delete, path = "/v1/faults", tag = "faults", responses((status = 200, body = Healed)))]
pub(crate) async fn heal_faults(State(control): State<Arc<Control>>) -> Json<Healed> {
    Json(control.heal_all().await)
}

/// One fault.
#[utoipa::path(get, path = "/v1/faults/{id}", tag = "faults", params(("id" = String, Path, description = "The fault")),
    responses((status = 200, body = FaultView), (status = 404, body = Problem)))]
pub(crate) async fn get_fault(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<FaultView>, Problem> {
    let unknown =
        || Problem::new(ErrorCode::UnknownName, format!("there is no fault {id:?}; GET /v1/faults lists them"));
    control.faults.get(&id).map(Json).ok_or_else(unknown)
}

/// Heals one fault.
#[utoipa::path(delete, path = "/v1/faults/{id}", tag = "faults", params(("id" = String, Path, description = "The fault")),
    responses((status = 200, body = FaultView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn heal_fault(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<FaultView>, Problem> {
    control.heal(&id).await.map(Json)
}
