//! `/v1/conflicts`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::ConflictPage;
use longhaul_http::wire::status::{CONFLICTS_PATH, ConflictView};

use super::regions::Part;
use crate::body::Ask;
use crate::state::Control;

/// Writes that a concurrent write overwrote, with both operations, from every region.
#[utoipa::path(get, path = "/v1/conflicts", tag = "testbed", params(Part),
    responses((status = 200, body = ConflictPage), (status = 400, body = Problem)))]
pub(crate) async fn list_conflicts(
    State(control): State<Arc<Control>>,
    Ask(part): Ask<Part>,
) -> Result<Json<ConflictPage>, Problem> {
    let mut page = ConflictPage { regions: BTreeMap::new(), unreachable: BTreeMap::new() };
    for (region, answer) in control.ask_all::<Vec<ConflictView>>(&part.query(CONFLICTS_PATH)).await {
        match answer {
            Ok(conflicts) => {
                page.regions.insert(region, conflicts);
            }
            Err(error) => {
                page.unreachable.insert(region, error.to_string());
            }
        }
    }
    Ok(Json(page))
}
