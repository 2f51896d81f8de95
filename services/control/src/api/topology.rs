//! `/v1/topology`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use longhaul_http::wire::control::TopologyView;

use crate::state::Control;

/// Locations and links as declared, each figure with its source.
#[utoipa::path(get, path = "/v1/topology", tag = "testbed", responses((status = 200, body = TopologyView)))]
pub(crate) async fn get_topology(State(control): State<Arc<Control>>) -> Json<TopologyView> {
    Json(TopologyView::new(&control.config.topology, control.world.kind()))
}
