//! Rows by key, for a returned region that repairs what its removed tail had touched.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::RecordKey;
use longhaul_core::record::Record;
use longhaul_core::regime::Mode;
use longhaul_core::replication::visible_vector;
use longhaul_core::vector::VersionVector;
use longhaul_http::problem::Problem;
use serde::{Deserialize, Serialize};

use super::problems::problem;
use crate::returning::unrepaired;
use crate::state::{Blocker, Region};
use crate::store::StoreError;

/// The endpoint.
pub(crate) const ROWS_PATH: &str = "/internal/v1/rows";
/// Most keys in one request.
pub(crate) const ROWS_KEYS_MAX: usize = 500;

/// The rows of some keys, and what their region had applied before it read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// What had been applied.
    pub applied: VersionVector,
    /// The rows that exist; tombstones are rows.
    pub found: Vec<Record>,
    /// Of the keys, those that this region repairs itself: what a removed tail had touched is absent here, and was not
    /// deleted.
    pub unrepaired: BTreeSet<RecordKey>,
}

/// Answers the rows of the keys in the body (both in the binary encoding of the replication streams).
#[utoipa::path(post, path = "/internal/v1/rows", tag = "replication", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Vec<u8>), (status = "default", body = Problem)))]
pub(super) async fn rows(State(region): State<Arc<Region>>, body: Bytes) -> Response {
    let keys = match postcard::from_bytes::<Vec<RecordKey>>(&body) {
        Ok(keys) if keys.len() <= ROWS_KEYS_MAX => keys,
        _ => {
            let detail = format!("the body must be a list of at most {ROWS_KEYS_MAX} keys");
            return problem(&region, ErrorCode::BadRequest, detail, None).into_response();
        }
    };
    let regime = region.regime();
    let isolated = regime.mode == Mode::RegionalIsolation;
    // What is kept for a frozen home goes back to it, and peers alone can ask here.
    if isolated && keys.iter().any(|key| key.home != region.id() && !regime.frozen_homes.contains(&key.home)) {
        let detail = "in isolation a record stays in its home";
        return problem(&region, ErrorCode::WrongHome, detail, None).into_response();
    }
    match read(&region, &keys).await {
        Ok(rows) => match postcard::to_allocvec(&rows) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
            Err(error) => problem(&region, ErrorCode::Internal, error.to_string(), None).into_response(),
        },
        Err(error) => problem(&region, ErrorCode::StoreFailed, error.to_string(), None).into_response(),
    }
}

async fn read(region: &Region, keys: &[RecordKey]) -> Result<Rows, StoreError> {
    let applied = visible_vector(&region.positions());
    // Before the rows: a key may be repaired meanwhile, and is then asked for again.
    let mut unrepaired = if region.blockers().contains(&Blocker::Repairing) {
        unrepaired(region, usize::MAX).await?
    } else {
        BTreeSet::new()
    };
    unrepaired.retain(|key| keys.contains(key));
    let rows = region.store.records(keys).await?;
    Ok(Rows { applied, found: rows.into_iter().flatten().collect(), unrepaired })
}
