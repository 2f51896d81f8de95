//! `/v1/traffic`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use longhaul_http::problem::Problem;
use longhaul_http::wire::traffic::TrafficStatus;

use crate::body::Body;
use crate::state::Control;
use crate::traffic::TrafficCommand;

/// Continuous traffic: whether it flows, and how it fares at each edge.
#[utoipa::path(get, path = "/v1/traffic", tag = "traffic", responses((status = 200, body = TrafficStatus), (status = 503, body = Problem)))]
pub(crate) async fn get_traffic(State(control): State<Arc<Control>>) -> Result<Json<TrafficStatus>, Problem> {
    control.traffic().await.map(Json)
}

/// Starts continuous traffic at every edge; `{}` takes the default workload.
#[utoipa::path(post, path = "/v1/traffic", tag = "traffic", request_body = TrafficCommand,
    responses((status = 201, body = TrafficStatus), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn start_traffic(
    State(control): State<Arc<Control>>,
    Body(command): Body<TrafficCommand>,
) -> Result<(StatusCode, Json<TrafficStatus>), Problem> {
    Ok((StatusCode::CREATED, Json(control.start_traffic(command).await?)))
}

/// Stops continuous traffic.
#[utoipa::path(delete, path = "/v1/traffic", tag = "traffic", responses((status = 200, body = TrafficStatus), (status = 503, body = Problem)))]
pub(crate) async fn stop_traffic(State(control): State<Arc<Control>>) -> Result<Json<TrafficStatus>, Problem> {
    control.stop_traffic().await.map(Json)
}
