//! The records API.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::{Consistency, read_gate};
use longhaul_core::ids::RecordKey;
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::operation::{OperationKind, TraceContext};
use longhaul_core::record::Record;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::token::SessionToken;
use longhaul_http::problem::Problem;
use longhaul_http::wire::records::{DURABILITY_ACHIEVED, DURABILITY_PROMISED, GUARANTEE, Written};
use tokio::time::Instant;
use tracing::Instrument;

use super::problems::{gate_problem, problem, write_problem};
use super::reading::{self, Asked, clipped, put, put_token, served_by};
use super::request::{self, Bad};
use crate::spans;
use crate::state::Region;
use crate::writer::{WriteAnswer, WriteRequest};

type Trace = Option<Extension<TraceContext>>;

/// Writes a record: any JSON value.
#[utoipa::path(put, path = "/v1/records/{home}/{id}", tag = "records",
    params(("home" = String, Path, description = "The record's home, a region by name"), ("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The operation's id (UUID), stable over retries"),
        ("If-Match" = Option<String>, Header, description = "A version in quotes, or *"),
        ("If-None-Match" = Option<String>, Header, description = "*"),
        ("longhaul-session" = Option<String>, Header, description = "The session token of the last answer")),
    request_body = Object,
    responses((status = 200, body = Written), (status = "default", body = Problem)))]
pub(super) async fn put_record(
    State(region): State<Arc<Region>>,
    Path((home, id)): Path<(String, String)>,
    trace: Trace,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let trace = trace.map(|Extension(trace)| trace);
    let value = match request::value(body) {
        Ok(value) => value,
        Err((code, detail)) => return problem(&region, code, detail, trace).into_response(),
    };
    write(&region, (&home, id), OperationKind::Put, Some(value), &headers, trace).await
}

/// Deletes a record.
#[utoipa::path(delete, path = "/v1/records/{home}/{id}", tag = "records",
    params(("home" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Written), (status = "default", body = Problem)))]
pub(super) async fn delete_record(
    State(region): State<Arc<Region>>,
    Path((home, id)): Path<(String, String)>,
    trace: Trace,
    headers: HeaderMap,
) -> Response {
    let trace = trace.map(|Extension(trace)| trace);
    write(&region, (&home, id), OperationKind::Delete, None, &headers, trace).await
}

/// Reads a record.
#[utoipa::path(get, path = "/v1/records/{home}/{id}", tag = "records",
    params(("home" = String, Path), ("id" = String, Path),
        ("longhaul-consistency" = Option<String>, Header, description = "eventual (default), session or primary"),
        ("longhaul-session" = Option<String>, Header)),
    responses((status = 200, body = Object), (status = 304), (status = "default", body = Problem)))]
pub(super) async fn get_record(
    State(region): State<Arc<Region>>,
    Path((home, id)): Path<(String, String)>,
    trace: Trace,
    headers: HeaderMap,
) -> Response {
    let trace = trace.map(|Extension(trace)| trace);
    match read(&region, &home, id, &headers, trace).await {
        Ok(answer) => answer,
        Err(problem) => problem.into_response(),
    }
}

async fn write(
    region: &Arc<Region>,
    (home, id): (&str, String),
    kind: OperationKind,
    value: Option<Bytes>,
    headers: &HeaderMap,
    trace: Option<TraceContext>,
) -> Response {
    let parsed = || -> Result<_, Bad> {
        let key = request::key(region, home, id)?;
        let op_id = request::op_id(region, headers)?;
        Ok((key, op_id, request::condition(headers)?, request::token(region, headers)?))
    };
    let (key, op_id, condition, token) = match parsed() {
        Ok(parsed) => parsed,
        Err((code, detail)) => return problem(region, code, detail, trace).into_response(),
    };
    let after = token.as_ref().map(|token| token.version);
    let request = WriteRequest { key, kind, value, op_id, condition, after, trace, merged_from: None };
    match region.writer.write(request).await {
        Ok(answer) => {
            let written = Written {
                version: answer.version.to_string(),
                dot: answer.dot.to_string(),
                region: region.config.name().to_owned(),
                epoch: answer.epoch.0,
                op_id: op_id.to_string(),
                repeated: answer.repeated,
            };
            let mut response = Json(written).into_response();
            let headers = response.headers_mut();
            written_headers(region, headers, &answer, token, condition.is_some());
            response
        }
        Err(error) => {
            let current = error.current;
            let mut response = write_problem(region, error, trace).into_response();
            if let Some(current) = current {
                put(response.headers_mut(), header::ETAG, &format!("\"{current}\""));
            }
            response
        }
    }
}

fn written_headers(
    region: &Region,
    headers: &mut HeaderMap,
    answer: &WriteAnswer,
    token: Option<SessionToken>,
    conditional: bool,
) {
    let regime = region.regime();
    put(headers, header::ETAG, &format!("\"{}\"", answer.version));
    // The epoch in which it was acknowledged: by now another one may be in force, with another durability.
    served_by(region, headers, answer.epoch);
    put(headers, HeaderName::from_static(DURABILITY_PROMISED), &answer.promised.to_string());
    put(headers, HeaderName::from_static(DURABILITY_ACHIEVED), &answer.achieved.to_string());
    let mut token = clipped(token, &regime.cuts);
    token.observe(answer.epoch, answer.dot, answer.version);
    put_token(region, headers, &token);
    if conditional {
        // Where every region writes, nobody but this one has checked the condition.
        let guarantee = if regime.mode == Mode::ActiveActive { "regional" } else { "primary" };
        put(headers, HeaderName::from_static(GUARANTEE), guarantee);
    }
}

async fn read(
    region: &Region,
    home: &str,
    id: String,
    headers: &HeaderMap,
    trace: Option<TraceContext>,
) -> Result<Response, Problem> {
    let refuse = |code, detail: String| problem(region, code, detail, trace);
    let Asked { key, consistency, token } =
        reading::parse(region, home, &id, headers).map_err(|(code, detail)| refuse(code, detail))?;
    if consistency != Consistency::Eventual
        && let Some(token) = &token
    {
        await_regime(region, token, trace).await?;
    }
    let regime = region.regime();
    admit(region, &regime, &key, consistency).map_err(|refusal| gate_problem(region, refusal, trace))?;
    if reading::is_of_session(consistency, &regime)
        && let Some(token) = &token
    {
        catch_up(region, &regime, token, trace).await?;
    }
    let record = find(region, &key, trace).await.map_err(|detail| refuse(ErrorCode::StoreFailed, detail))?;
    region.counters.reads.add(1);
    // The regime may have changed while the store was read: what was allowed then may be forbidden now.
    let now = region.regime();
    admit(region, &now, &key, consistency).map_err(|refusal| gate_problem(region, refusal, trace))?;
    let leads = now.mode == Mode::ActivePassive && consistency == Consistency::Primary;
    if leads && !region.still_acknowledges(&regime) {
        return Err(refuse(ErrorCode::NoLease, "the primary has no lease; try again, or fail over".to_owned()));
    }
    Ok(reading::shown(region, &now, record, token, headers, trace))
}

fn admit(
    region: &Region,
    regime: &Regime,
    key: &RecordKey,
    consistency: Consistency,
) -> Result<(), longhaul_core::gate::GateRefusal> {
    read_gate(regime, region.id(), key.home, consistency)?;
    if region.is_ready() { Ok(()) } else { Err(longhaul_core::gate::GateRefusal::NotReady) }
}

/// Waits until this region has adopted every regime that the client has met. A home that does not know yet that it is no
/// longer alone would miss what others have written of its records.
async fn await_regime(region: &Region, token: &SessionToken, trace: Option<TraceContext>) -> Result<(), Problem> {
    if region.regime().epoch >= token.epoch {
        return Ok(());
    }
    let wait = Duration::from_millis(region.config.timings.session_wait_ms);
    let mut regimes = region.watch_regime();
    let adopted = tokio::time::timeout(wait, regimes.wait_for(|regime| regime.epoch >= token.epoch)).await;
    if matches!(adopted, Ok(Ok(_))) { Ok(()) } else { Err(reading::behind(region, wait, trace)) }
}

/// Waits until this region shows everything that the client has seen.
async fn catch_up(
    region: &Region,
    regime: &Regime,
    token: &SessionToken,
    trace: Option<TraceContext>,
) -> Result<(), Problem> {
    let needed = reading::needed(region, regime, token);
    let needed = needed.map_err(|(code, detail)| problem(region, code, detail, trace))?;
    let wait = Duration::from_millis(region.config.timings.session_wait_ms);
    let scalar = || region.positions().values().any(|position| position.version >= token.version);
    if (is_broken(Rule::VectorToken) && scalar()) || region.await_visible(&needed, wait).await {
        return Ok(());
    }
    Err(reading::behind(region, wait, trace))
}

async fn find(region: &Region, key: &RecordKey, trace: Option<TraceContext>) -> Result<Option<Record>, String> {
    if let Some(record) = region.cache.get(key) {
        return Ok(Some(record));
    }
    let began = Instant::now();
    let span = match spans::recorded(trace) {
        Some(_) => tracing::debug_span!(
            "region.read",
            otel.name = "SELECT records",
            otel.kind = "client",
            db.system.name = region.store.system(),
            db.operation.name = "SELECT",
            db.collection.name = "records",
        ),
        None => tracing::Span::none(),
    };
    let rows = region.store.records(std::slice::from_ref(key)).instrument(span).await;
    region.timings.read.record(began.elapsed());
    let rows = rows.map_err(|error| error.to_string())?;
    Ok(rows.into_iter().next().flatten())
}
