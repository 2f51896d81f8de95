//! `/v1/links`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use longhaul_core::link::LinkPatch;
use longhaul_http::problem::Problem;
use longhaul_http::wire::links::LinkView;

use crate::body::Body;
use crate::state::Control;

/// Every directed link, declared and as it is now.
#[utoipa::path(get, path = "/v1/links", tag = "testbed",
    responses((status = 200, body = Vec<LinkView>), (status = 503, body = Problem)))]
pub(crate) async fn list_links(State(control): State<Arc<Control>>) -> Result<Json<Vec<LinkView>>, Problem> {
    control.link_views().await.map(Json)
}

/// One directed link.
#[utoipa::path(get, path = "/v1/links/{from}/{to}", tag = "testbed",
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 404, body = Problem)))]
pub(crate) async fn get_link(
    State(control): State<Arc<Control>>,
    Path((from, to)): Path<(String, String)>,
) -> Result<Json<LinkView>, Problem> {
    control.link_view(&from, &to).await.map(Json)
}

/// Changes one directed link while traffic flows. The change is remembered as a fault, which `DELETE /v1/faults` heals,
/// until the link is as declared again.
#[utoipa::path(patch, path = "/v1/links/{from}/{to}", tag = "testbed", request_body = LinkPatch,
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn patch_link(
    State(control): State<Arc<Control>>,
    Path((from, to)): Path<(String, String)>,
    Body(patch): Body<LinkPatch>,
) -> Result<Json<LinkView>, Problem> {
    control.change_link(&from, &to, &patch).await.map(Json)
}
