//! Quarantined operations: list them, and merge or discard them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use bytes::Bytes;
use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Dot, OpId, RecordKey};
use longhaul_core::limits::REQUEST_DEADLINE;
use longhaul_core::operation::OperationKind;
use longhaul_core::quarantine::Decision;
use longhaul_core::record::Record;
use longhaul_core::vector::VersionVector;
use longhaul_http::problem::Problem;
use longhaul_http::wire::status::{QuarantineDecision, QuarantineOutcome, QuarantineView};
use serde::{Deserialize, Serialize};

use super::inspection::{Page, key_text, shown, store_problem};
use super::problems::{problem, write_problem};
use crate::replicator::authorize;
use crate::state::Region;
use crate::store::quarantine_pages::QuarantinePages;
use crate::store::{QuarantineReason, QuarantineRow, QuarantineState, StoreError};
use crate::writer::{Condition, WriteError, WriteRequest};

/// Where a region that may not write asks the one that may.
const MERGE_PATH: &str = "/internal/v1/merge";

/// The quarantined operations of one record, in their order, on their way to the region that may write it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MergeRequest {
    key: RecordKey,
    operations: Vec<Lost>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lost {
    /// JSON text; none for a delete.
    value: Option<String>,
    op_id: OpId,
    merged_from: Dot,
}

/// Which of them were written again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct MergeAnswer {
    /// In the order of the request. `false`: the record was written since, or its client has repeated the operation.
    merged: Vec<bool>,
}

/// Quarantined operations by place.
#[utoipa::path(get, path = "/internal/v1/quarantine", tag = "quarantine", params(Page),
    responses((status = 200, body = Vec<QuarantineView>)))]
pub(super) async fn list(
    State(region): State<Arc<Region>>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<QuarantineView>>, Problem> {
    let failed = |error: StoreError| store_problem(&region, &error);
    let rows = region.store.quarantine(page.offset, page.limit()).await.map_err(failed)?;
    let keys: Vec<RecordKey> = rows.iter().filter_map(|row| row.operation.key()).collect();
    let op_ids: Vec<OpId> = rows.iter().map(|row| row.operation.op_id).collect();
    let mut now = region.store.records(&keys).await.map_err(failed)?.into_iter();
    let repeated = region.store.idempotency(&op_ids).await.map_err(failed)?;
    let repeated: BTreeSet<OpId> = repeated.into_iter().map(|row| row.op_id).collect();
    let cuts = region.regime().cuts.clone();
    let view = |row: QuarantineRow| {
        let key = row.operation.key();
        let record = key.as_ref().and_then(|_| now.next().flatten());
        QuarantineView {
            dot: row.operation.dot.to_string(),
            op_id: row.operation.op_id.to_string(),
            key: key.map(|key| key_text(&region, &key)),
            value: shown(row.operation.value.as_ref()),
            reason: match row.reason {
                QuarantineReason::PastCut => "past_cut",
                QuarantineReason::Evicted => "evicted",
            }
            .to_owned(),
            state: match row.state {
                QuarantineState::Open => "open",
                QuarantineState::Merged => "merged",
                QuarantineState::Discarded => "discarded",
            }
            .to_owned(),
            record_now: record_now(record.as_ref(), repeated.contains(&row.operation.op_id), &cuts).to_owned(),
        }
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}

/// What became of the record since the cut.
fn record_now(record: Option<&Record>, repeated: bool, cuts: &VersionVector) -> &'static str {
    match record {
        _ if repeated => "repeated",
        None => "untouched",
        Some(record) if cuts.covers(record.dot) => "untouched",
        Some(record) if record.is_tombstone() => "deleted",
        Some(_) => "overwritten",
    }
}

/// Merges or discards quarantined operations. What is merged is written again as new operations, in the region that
/// may write the record, and only where nobody has written it since.
#[utoipa::path(post, path = "/internal/v1/quarantine/decide", tag = "quarantine", request_body = QuarantineDecision,
    responses((status = 200, body = QuarantineOutcome), (status = "default", body = Problem)))]
pub(super) async fn decide(
    State(region): State<Arc<Region>>,
    Json(request): Json<QuarantineDecision>,
) -> Result<Json<QuarantineOutcome>, Problem> {
    let wanted: BTreeSet<String> = request.dots.into_iter().collect();
    let open = open_rows(&region, &wanted).await.map_err(|error| store_problem(&region, &error))?;
    let gone = |error: crate::writer::WriterGone| problem(&region, ErrorCode::ShuttingDown, error.to_string(), None);
    let mut outcome = QuarantineOutcome::default();
    match request.decision {
        Decision::Discard => {
            let dots = open.iter().map(|row| row.operation.dot).collect();
            outcome.discarded = region.writer.decide(dots, Decision::Discard).await.map_err(gone)?;
        }
        Decision::Merge => {
            for (key, operations) in by_record(open) {
                let dots: Vec<Dot> = operations.iter().map(|lost| lost.merged_from).collect();
                let merged = merge_record(&region, MergeRequest { key, operations }).await?;
                let written: Vec<Dot> =
                    dots.iter().zip(&merged).filter(|(_, merged)| **merged).map(|(dot, _)| *dot).collect();
                outcome.skipped += (dots.len() - written.len()) as u64;
                outcome.merged += region.writer.decide(written, Decision::Merge).await.map_err(gone)?;
            }
        }
    }
    Ok(Json(outcome))
}

async fn open_rows(region: &Region, wanted: &BTreeSet<String>) -> Result<Vec<QuarantineRow>, StoreError> {
    let mut open = Vec::new();
    let mut pages = QuarantinePages::new(&*region.store);
    while let Some(page) = pages.next().await? {
        open.extend(page.into_iter().filter(|row| {
            row.state == QuarantineState::Open && (wanted.is_empty() || wanted.contains(&row.operation.dot.to_string()))
        }));
    }
    Ok(open)
}

/// Quarantined operations by record, each record's in their order.
fn by_record(rows: Vec<QuarantineRow>) -> BTreeMap<RecordKey, Vec<Lost>> {
    let mut records: BTreeMap<RecordKey, Vec<Lost>> = BTreeMap::new();
    for operation in rows.into_iter().map(|row| row.operation) {
        let Some(key) = operation.key() else { continue };
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        records.entry(key).or_default().push(Lost {
            value: operation.value.as_ref().map(text),
            op_id: operation.op_id,
            merged_from: operation.dot,
        });
    }
    records
}

async fn merge_record(region: &Arc<Region>, request: MergeRequest) -> Result<Vec<bool>, Problem> {
    let error = match write_again(region, &request).await {
        Ok(merged) => return Ok(merged),
        Err(error) => error,
    };
    let elsewhere = error.ask.filter(|_| matches!(error.code, ErrorCode::NotPrimary | ErrorCode::WrongHome));
    // In isolation nothing may cross the border, quarantined or not.
    let Some(address) = elsewhere.filter(|_| !region.is_isolated()).and_then(|ask| region.directory.address(ask))
    else {
        return Err(write_problem(region, error, None));
    };
    let mut headers = HeaderMap::new();
    authorize(region, &mut headers);
    let answer: Result<MergeAnswer, _> =
        region.client.json(http::Method::POST, address, MERGE_PATH, headers, Some(&request), REQUEST_DEADLINE).await;
    match answer {
        Ok(answer) => Ok(answer.merged),
        Err(error) => Err(problem(region, error.code(), error.to_string(), None)),
    }
}

/// Writes the quarantined operations of a record again, on behalf of the region that holds them in quarantine.
#[utoipa::path(post, path = "/internal/v1/merge", tag = "quarantine", request_body = Object,
    responses((status = 200, body = MergeAnswer), (status = "default", body = Problem)))]
pub(super) async fn merge(
    State(region): State<Arc<Region>>,
    Json(request): Json<MergeRequest>,
) -> Result<Json<MergeAnswer>, Problem> {
    let merged = write_again(&region, &request).await.map_err(|error| write_problem(&region, error, None))?;
    Ok(Json(MergeAnswer { merged }))
}

/// Which operations were written: none if the record was written since the sealed history; not those that their
/// clients have repeated.
async fn write_again(region: &Region, request: &MergeRequest) -> Result<Vec<bool>, WriteError> {
    let mut condition = Condition::Sealed;
    let mut merged = Vec::with_capacity(request.operations.len());
    for lost in &request.operations {
        let write = WriteRequest {
            key: request.key.clone(),
            kind: OperationKind::Merge,
            value: lost.value.clone().map(Bytes::from),
            op_id: lost.op_id,
            condition: Some(condition),
            after: None,
            trace: None,
            merged_from: Some(lost.merged_from),
        };
        match region.writer.write(write).await {
            Ok(answer) => {
                merged.push(!answer.repeated);
                condition = Condition::Head(answer.version);
            }
            Err(error) if matches!(error.code, ErrorCode::PreconditionFailed | ErrorCode::KeyReused) => {
                merged.push(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(merged)
}
