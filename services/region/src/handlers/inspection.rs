//! Inspection for outside judges: what survives, what lost, digests, visibility, skew, and residency sweeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use bytes::Bytes;
use longhaul_core::digest::Digest;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{OpId, RecordKey, RegionId};
use longhaul_core::replication::durable_vector;
use longhaul_http::problem::Problem;
use longhaul_http::wire::status::{
    ClockSkew, ConflictView, DigestView, RememberedOperation, SweepRequest, SweepResult, VisibilityPage,
};
use serde::Deserialize;

use super::problems::problem;
use crate::state::Region;
use crate::store::{ConflictKind, StoreError};

/// Most rows in one answer.
const ROWS_MAX: usize = 10_000;
/// Rows counted at a time.
const SCAN_PAGE: usize = 2000;
/// Most needles in one sweep.
const NEEDLES_MAX: usize = 10_000;

/// A page by offset.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
pub(super) struct Page {
    /// Rows to skip.
    #[serde(default)]
    pub(super) offset: u64,
    /// Most rows.
    #[serde(default = "rows_default")]
    pub(super) limit: usize,
}

const fn rows_default() -> usize {
    1000
}

impl Page {
    pub(super) fn limit(self) -> usize {
        self.limit.clamp(1, ROWS_MAX)
    }
}

/// A page by operation id.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
pub(super) struct After {
    /// Operations after this id.
    #[param(value_type = Option<String>)]
    after: Option<OpId>,
    /// Most rows.
    #[serde(default = "rows_default")]
    limit: usize,
}

/// A page of moments.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
pub(super) struct Since {
    /// `next` of the last page.
    #[serde(default)]
    after: u64,
}

pub(super) fn store_problem(region: &Region, error: &StoreError) -> Problem {
    problem(region, ErrorCode::StoreFailed, error.to_string(), None)
}

/// A value as people see it. One that nests too deep to be shown is left out.
pub(super) fn shown(value: Option<&Bytes>) -> Option<serde_json::Value> {
    serde_json::from_slice(value?).ok()
}

/// A record's key as people see it.
pub(super) fn key_text(region: &Region, key: &RecordKey) -> String {
    format!("{}/{}", region.config.name_of(key.home), key.id)
}

/// Every remembered operation, in id order.
#[utoipa::path(get, path = "/internal/v1/operations", tag = "inspection", params(After),
    responses((status = 200, body = Vec<RememberedOperation>)))]
pub(super) async fn operations(
    State(region): State<Arc<Region>>,
    Query(query): Query<After>,
) -> Result<Json<Vec<RememberedOperation>>, Problem> {
    let limit = query.limit.clamp(1, ROWS_MAX);
    let rows = region.store.operation_ids(query.after, limit).await.map_err(|error| store_problem(&region, &error))?;
    let view = |row: crate::store::OperationId| RememberedOperation {
        op_id: row.op_id.to_string(),
        dot: row.dot,
        home: region.config.name_of(row.home).to_owned(),
        version: row.version.to_string(),
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}

/// Writes that lost, newest first.
#[utoipa::path(get, path = "/internal/v1/conflicts", tag = "inspection", params(Page),
    responses((status = 200, body = Vec<ConflictView>)))]
pub(super) async fn conflicts(
    State(region): State<Arc<Region>>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<ConflictView>>, Problem> {
    let rows =
        region.store.conflicts(page.offset, page.limit()).await.map_err(|error| store_problem(&region, &error))?;
    let view = |row: crate::store::ConflictRow| ConflictView {
        key: key_text(&region, &row.key),
        loser_op_id: row.loser_op_id.to_string(),
        loser_version: row.loser_version.to_string(),
        loser_value: shown(row.loser_value.as_ref()),
        winner_op_id: row.winner_op_id.to_string(),
        kind: match row.kind {
            ConflictKind::Concurrent => "concurrent",
            ConflictKind::StaleRetry => "stale_retry",
        }
        .to_owned(),
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}

/// What the region holds, in a few numbers, counted from the rows themselves. The positions are read before and after:
/// if they moved meanwhile the answer is `409`, so that equal vectors always mean comparable digests.
#[utoipa::path(get, path = "/internal/v1/digest", tag = "inspection", responses((status = 200, body = DigestView)))]
pub(super) async fn digest(State(region): State<Arc<Region>>) -> Result<Json<DigestView>, Problem> {
    let mut attempts = 0;
    loop {
        let before = region.positions();
        let homes = count(&region).await.map_err(|error| store_problem(&region, &error))?;
        if before == region.positions() {
            let name = |home: &RegionId| region.config.name_of(*home).to_owned();
            let vector = durable_vector(&before).iter().map(|(timeline, seq)| (timeline.to_string(), seq)).collect();
            return Ok(Json(DigestView {
                vector,
                homes: homes.iter().map(|(home, digest)| (name(home), format!("{:032x}", digest.sum))).collect(),
                rows: homes.iter().map(|(home, digest)| (name(home), digest.rows)).collect(),
            }));
        }
        attempts += 1;
        if attempts == 5 {
            let detail = "the region is being written, so that its digest means nothing; ask again when it is idle";
            return Err(problem(&region, ErrorCode::Conflict, detail, None));
        }
    }
}

/// The digest of every home, from the rows.
pub(crate) async fn count(region: &Region) -> Result<BTreeMap<RegionId, Digest>, StoreError> {
    let mut homes: BTreeMap<RegionId, Digest> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = region.store.scan(None, after.as_ref(), SCAN_PAGE).await?;
        for row in &page {
            homes.entry(row.key.home).or_default().replace(None, Some(row));
        }
        after = page.last().map(|row| row.key.clone());
        if page.len() < SCAN_PAGE {
            homes.retain(|_, digest| digest.rows > 0);
            return Ok(homes);
        }
    }
}

/// When sampled operations became visible here.
#[utoipa::path(get, path = "/internal/v1/visibility", tag = "inspection", params(Since),
    responses((status = 200, body = VisibilityPage)))]
pub(super) async fn visibility(State(region): State<Arc<Region>>, Query(query): Query<Since>) -> Json<VisibilityPage> {
    Json(region.visibility.page(query.after))
}

/// Injects skew into the wall clock.
#[utoipa::path(post, path = "/internal/v1/clock", tag = "inspection", request_body = ClockSkew,
    responses((status = 200, body = ClockSkew)))]
pub(super) async fn clock_skew(State(region): State<Arc<Region>>, Json(skew): Json<ClockSkew>) -> Json<ClockSkew> {
    region.clock.set_skew_ms(skew.offset_ms);
    Json(ClockSkew { offset_ms: region.clock.skew_ms() })
}

/// Looks for byte strings in everything that the region keeps.
#[utoipa::path(post, path = "/internal/v1/sweep", tag = "inspection", request_body = SweepRequest,
    responses((status = 200, body = SweepResult)))]
pub(super) async fn sweep(
    State(region): State<Arc<Region>>,
    Json(request): Json<SweepRequest>,
) -> Result<Json<SweepResult>, Problem> {
    if request.needles.len() > NEEDLES_MAX {
        let detail = format!("a sweep looks for at most {NEEDLES_MAX} texts; ask in parts");
        return Err(problem(&region, ErrorCode::TooLarge, detail, None));
    }
    let needles: Vec<Bytes> = request.needles.into_iter().map(Bytes::from).collect();
    let found = region.store.find_bytes(&needles).await.map_err(|error| store_problem(&region, &error))?;
    Ok(Json(SweepResult { found }))
}
