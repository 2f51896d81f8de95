//! `/v1/regions`: regions, and what they put aside.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{DivergentView, RegionView};
use longhaul_http::wire::status::{
    QUARANTINE_DECIDE_PATH, QUARANTINE_PATH, QuarantineDecision, QuarantineOutcome, QuarantineView,
};
use serde::Deserialize;

use crate::body::{Ask, Body};
use crate::regions::problem;
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
    knows_its_tail(&control, &region).await?;
    let operations: Vec<QuarantineView> = control.ask_region(&region, &part.query(QUARANTINE_PATH)).await?;
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
    if !matches!(decision.decision.as_str(), "merge" | "discard") {
        let detail = format!("decision {:?} is not one of merge, discard", decision.decision);
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    knows_its_tail(&control, &region).await?;
    let told = control.tell_region(&region, QUARANTINE_DECIDE_PATH, &decision, HeaderMap::new()).await;
    told.map(Json).map_err(|error| problem(&region, &error))
}

/// A region that has just returned does not know at once where its history was cut. Until it does, "nothing is
/// quarantined" would be no answer, and a decision on everything would decide on nothing.
async fn knows_its_tail(control: &Control, region: &str) -> Result<(), Problem> {
    control.region_address(region)?;
    let (regime, adopted) = control.regime().await?;
    up_to_date(region, regime.epoch.0, &adopted)
}

/// Whether a region has adopted the highest epoch that is known. Who does not tell its own passes: it says why in the
/// answer to the next question.
fn up_to_date(region: &str, highest: u64, adopted: &BTreeMap<String, u64>) -> Result<(), Problem> {
    let Some(epoch) = adopted.get(region).filter(|epoch| **epoch < highest) else { return Ok(()) };
    let detail = format!(
        "region {region} is at epoch {epoch} of {highest}: it does not know yet what history has cut off; \
         ask again in a moment"
    );
    Err(Problem::new(ErrorCode::NotReady, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_decides_about_a_tail_that_its_region_does_not_know_yet() {
        let adopted = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 4)]);
        let problem = up_to_date("a", 4, &adopted).unwrap_err();
        assert_eq!(problem.code, ErrorCode::NotReady);
        assert!(problem.detail.contains("region a is at epoch 3 of 4"), "{}", problem.detail);
        up_to_date("b", 4, &adopted).unwrap();
        up_to_date("c", 4, &adopted).unwrap();
    }
}
