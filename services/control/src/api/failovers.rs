//! `/v1/failovers`: every change of the regime, and asking for one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Extension, Json};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::operation::TraceContext;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{ChangeView, FailoverCommand};
use longhaul_http::wire::regime::{ChangeStarted, ChangeStatus};

use super::accepted;
use super::regime::{headers, nothing_to_change};
use crate::body::Body;
use crate::jaeger;
use crate::state::Control;

fn view(control: &Control, status: ChangeStatus) -> ChangeView {
    let measured = control.drills.measured(&status.id);
    let trace = status.trace_id.as_deref().map(|id| jaeger::link(control.config.jaeger.as_deref(), id));
    ChangeView { measured, trace_url: trace.and_then(|trace| trace.url), ..ChangeView::new(status) }
}

/// Failovers, switchovers and mode switches, oldest first, each with its milestones, and with what clients saw where a
/// drill measured it.
#[utoipa::path(get, path = "/v1/failovers", tag = "regime", responses((status = 200, body = Vec<ChangeView>)))]
pub(crate) async fn list_failovers(State(control): State<Arc<Control>>) -> Json<Vec<ChangeView>> {
    Json(control.changes().await.into_iter().map(|status| view(&control, status)).collect())
}

/// Moves the primary: unplanned (the primary is gone), or planned (`"planned": true`: switchover and failback).
#[utoipa::path(post, path = "/v1/failovers", tag = "regime", request_body = FailoverCommand,
    responses((status = 202, body = ChangeStarted), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, description = "Refused, with what is missing", body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn start_failover(
    State(control): State<Arc<Control>>,
    Extension(context): Extension<TraceContext>,
    Body(command): Body<FailoverCommand>,
) -> Result<Response, Problem> {
    let started: Option<ChangeStarted> = control.fail_over(&command, headers(context)).await?;
    started.map(accepted).ok_or_else(nothing_to_change)
}

/// One change.
#[utoipa::path(get, path = "/v1/failovers/{id}", tag = "regime", params(("id" = String, Path, description = "The change")),
    responses((status = 200, body = ChangeView), (status = 404, body = Problem)))]
pub(crate) async fn get_failover(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<ChangeView>, Problem> {
    let found = control.changes().await.into_iter().find(|change| change.id == id);
    let unknown = || {
        let detail = format!("no region that answers knows a change {id:?}; GET /v1/failovers lists them");
        Problem::new(ErrorCode::UnknownName, detail)
    };
    found.map(|status| Json(view(&control, status))).ok_or_else(unknown)
}
