//! `/v1/regions`: regions, and what they put aside.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{DivergentView, RegionView};
use longhaul_http::wire::status::{QUARANTINE_PATH, QuarantineDecision, QuarantineOutcome};
use serde::Deserialize;

use crate::body::{Ask, Body};
use crate::state::Control;

/// Which part of a list.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Part {
    /// How many to skip.
    offset: u32,
    /// How many at most, up to 1000.
    limit: u32,
}

impl Default for Part {
    fn default() -> Self {
        Self { offset: 0, limit: 100 }
    }
}

impl Part {
    /// As a query for a region.
    pub(crate) fn query(self, path: &str) -> String {
        format!("{path}?offset={}&limit={}", self.offset, self.limit.clamp(1, 1000))
    }
}

/// Every region: its process, its role, lag, quarantine, and what it says is wrong.
#[utoipa::path(get, path = "/v1/regions", tag = "testbed", responses((status = 200, body = Vec<RegionView>)))]
pub(crate) async fn list_regions(State(control): State<Arc<Control>>) -> Json<Vec<RegionView>> {
    Json(control.regions().await)
}

/// One region.
#[utoipa::path(get, path = "/v1/regions/{region}", tag = "testbed",
    params(("region" = String, Path, description = "The region")),
    responses((status = 200, body = RegionView), (status = 404, body = Problem)))]
pub(crate) async fn get_region(
    State(control): State<Arc<Control>>,
    Path(region): Path<String>,
) -> Result<Json<RegionView>, Problem> {
    control.region_address(&region)?;
    let found = control.regions().await.into_iter().find(|view| view.name == region);
    found.map(Json).ok_or_else(|| Problem::new(ErrorCode::UnknownName, format!("there is no region {region:?}")))
}

/// What a region accepted but history does not have: the tail of an old primary beyond the cut.
#[utoipa::path(get, path = "/v1/regions/{region}/divergent", tag = "testbed",
    params(("region" = String, Path, description = "The region"), Part),
    responses((status = 200, body = DivergentView), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn get_divergent(
    State(control): State<Arc<Control>>,
    Path(region): Path<String>,
    Ask(part): Ask<Part>,
) -> Result<Json<DivergentView>, Problem> {
    let operations = control.divergent(&region, &part.query(QUARANTINE_PATH)).await?;
    Ok(Json(DivergentView { region, operations }))
}

/// Merges what nobody has overwritten (as new operations), or discards.
#[utoipa::path(post, path = "/v1/regions/{region}/divergent", tag = "testbed", request_body = QuarantineDecision,
    params(("region" = String, Path, description = "The region")),
    responses((status = 200, body = QuarantineOutcome), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 503, description = "The region does not know its tail yet", body = Problem)))]
pub(crate) async fn decide_divergent(
    State(control): State<Arc<Control>>,
    Path(region): Path<String>,
    Body(decision): Body<QuarantineDecision>,
) -> Result<Json<QuarantineOutcome>, Problem> {
    control.decide_divergent(&region, &decision, HeaderMap::new()).await.map(Json)
}
