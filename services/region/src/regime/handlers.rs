//! The endpoints through which regions (and control, which only proposes) speak about the regime. All are internal.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::failover::Fenced;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::Regime;
use longhaul_core::transition::{HomeCopy, Request};
use longhaul_core::voter::{VoterReply, VoterRequest};
use longhaul_http::problem::Problem;
use longhaul_http::wire::regime::{
    CHANGES_PATH, ChangeStarted, ChangeStatus, FAILOVERS_PATH, FailoverRequest, TRANSITIONS_PATH, TransitionRequest,
};

use super::RegimeRole;
use super::failover::{Command, fail_over};
use super::messages::{
    ADOPT_PATH, AWAIT_PATH, AwaitRequest, CHAIN_PATH, CLOSE_PATH, CONFLICTS_PATH, COPY_PATH, ChainAnswer, ChainRequest,
    CloseRequest, Introduction, LOG_PATH, LogRequest, MERGE_PATH, MergeRequest, POSITION_PATH, PositionAnswer,
    SEEN_PATH, SeenView, TOP_UP_PATH, TopUpRequest, VOTE_PATH, VOTER_STATE_PATH, VoterStateView,
};
use super::participant::PartError;
use super::transitions::{self, StartError};
use crate::store::ConflictRow;

type Role = State<Arc<RegimeRole>>;

/// The longest that a call may ask a region to wait.
const WAIT_MAX_MS: u64 = 10_000;

pub(super) fn router() -> Router<Arc<RegimeRole>> {
    Router::new()
        .route(VOTE_PATH, post(vote))
        .route(VOTER_STATE_PATH, get(voter_state).post(introduce))
        .route(ADOPT_PATH, put(adopt))
        .route(POSITION_PATH, get(position))
        .route(CHAIN_PATH, post(chain))
        .route(TOP_UP_PATH, post(top_up))
        .route(LOG_PATH, post(log))
        .route(SEEN_PATH, get(seen))
        .route(CLOSE_PATH, post(close))
        .route(AWAIT_PATH, post(await_applied))
        .route(MERGE_PATH, post(merge))
        .route(CONFLICTS_PATH, post(take_conflicts))
        .route(COPY_PATH, get(copy))
        .route(TRANSITIONS_PATH, post(transition))
        .route(FAILOVERS_PATH, post(failover))
        .route(CHANGES_PATH, get(changes))
}

fn part_problem(error: &PartError) -> Problem {
    let code = match error {
        PartError::Stale(_) => ErrorCode::StaleEpoch,
        PartError::Gone(_) => ErrorCode::ShuttingDown,
        PartError::Store(_) => ErrorCode::StoreFailed,
        PartError::Barrier(_) | PartError::Log { .. } | PartError::Refused(_) | PartError::Silent(_) => {
            ErrorCode::Conflict
        }
    };
    Problem::new(code, error.to_string())
}

async fn vote(State(role): Role, Json(request): Json<VoterRequest>) -> Result<Json<VoterReply>, Problem> {
    let reply = role.voting.handle(&request).await;
    reply.map(Json).map_err(|error| Problem::new(ErrorCode::NotReady, error.to_string()))
}

async fn voter_state(State(role): Role) -> Json<VoterStateView> {
    Json(role.voting.view().await)
}

async fn introduce(State(role): Role, Json(introduction): Json<Introduction>) -> Result<Json<VoterStateView>, Problem> {
    let view = role.voting.meet(introduction).await;
    view.map(Json).map_err(|error| Problem::new(ErrorCode::NotReady, error.to_string()))
}

async fn adopt(State(role): Role, Json(regime): Json<Regime>) -> Result<StatusCode, Problem> {
    let adopted = role.adopt(&regime).await;
    adopted.map_err(|gone| Problem::new(ErrorCode::ShuttingDown, gone.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn position(State(role): Role) -> Json<PositionAnswer> {
    Json(role.fenced_position())
}

async fn chain(State(role): Role, Json(request): Json<ChainRequest>) -> Json<ChainAnswer> {
    Json(ChainAnswer { chain: role.chain_at(request.dot).await })
}

async fn top_up(State(role): Role, Json(request): Json<TopUpRequest>) -> Result<Json<Fenced>, Problem> {
    role.complete_timeline(request).await.map(Json).map_err(|error| part_problem(&error))
}

async fn log(State(role): Role, Json(request): Json<LogRequest>) -> Result<Bytes, Problem> {
    let batch = role.log_piece(request).await.map_err(|error| part_problem(&error))?;
    let bytes = postcard::to_stdvec(&batch);
    bytes.map(Bytes::from).map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
}

async fn seen(State(role): Role) -> Result<Json<SeenView>, Problem> {
    role.seen().await.map(Json).map_err(|error| part_problem(&error))
}

async fn close(State(role): Role, Json(request): Json<CloseRequest>) -> Result<Json<SeenView>, Problem> {
    let closed = role.close(&request.regime, request.scope).await;
    closed.map(Json).map_err(|error| part_problem(&error))
}

async fn await_applied(State(role): Role, Json(request): Json<AwaitRequest>) -> Result<Json<SeenView>, Problem> {
    let wait = Duration::from_millis(request.wait_ms.min(WAIT_MAX_MS));
    let waited = role.await_applied(&request.vector, wait).await;
    waited.map(Json).map_err(|error| part_problem(&error))
}

async fn merge(State(role): Role, Json(request): Json<MergeRequest>) -> Result<Json<SeenView>, Problem> {
    let wait = Duration::from_millis(request.wait_ms.min(WAIT_MAX_MS));
    let merged = role.merge_homes(&request.regime, request.homes, request.generation, wait).await;
    merged.map(Json).map_err(|error| part_problem(&error))
}

async fn copy(State(role): Role, Path(home): Path<u16>) -> Result<Json<HomeCopy>, Problem> {
    role.home_copy(RegionId(home)).await.map(Json).map_err(|error| part_problem(&error))
}

async fn take_conflicts(State(role): Role, body: Bytes) -> Result<StatusCode, Problem> {
    let rows: Vec<ConflictRow> = postcard::from_bytes(&body)
        .map_err(|error| Problem::new(ErrorCode::BadRequest, format!("the body is no list of conflicts: {error}")))?;
    if let Some(row) = rows.iter().find(|row| row.key.home != role.region.id()) {
        let detail = format!("a conflict about a record of home {} belongs there", row.key.home);
        return Err(Problem::new(ErrorCode::WrongHome, detail));
    }
    let kept = role.region.writer.keep_conflicts(rows).await;
    kept.map_err(|gone| Problem::new(ErrorCode::ShuttingDown, gone.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn transition(
    State(role): Role,
    Json(request): Json<TransitionRequest>,
) -> Result<(StatusCode, Json<ChangeStarted>), Problem> {
    let request = Request { target: request.target, force: request.force };
    match transitions::start(&role, request).await {
        Ok(id) => Ok((StatusCode::ACCEPTED, Json(ChangeStarted { id: id.to_string() }))),
        Err(error) => Err(start_problem(&role, error)),
    }
}

fn start_problem(role: &RegimeRole, error: StartError) -> Problem {
    match error {
        StartError::Refused(refusals) => {
            let names = |refusal: &longhaul_core::transition::Refusal| match refusal.region {
                Some(region) => format!("{}: {}", role.region.config.name_of(region), refusal.missing),
                None => refusal.missing.clone(),
            };
            let missing: Vec<String> = refusals.iter().map(names).collect();
            let mut problem = Problem::new(ErrorCode::TransitionRefused, missing.join("; "));
            problem.missing = missing;
            problem
        }
        StartError::Elsewhere(coordinator) => {
            let name = role.region.config.name_of(coordinator).to_owned();
            let mut problem =
                Problem::new(ErrorCode::NotPrimary, format!("region {name} has to drive this; ask there"));
            problem.primary = Some(name);
            problem
        }
        StartError::Busy => {
            Problem::new(ErrorCode::Conflict, "this region drives another change; wait until it is done")
        }
    }
}

async fn failover(
    State(role): Role,
    Json(request): Json<FailoverRequest>,
) -> Result<(StatusCode, Json<ChangeStarted>), Problem> {
    if role.region.regime().primary.is_none() {
        let detail = format!("mode {} has no primary; there is nothing to fail over", role.region.regime().mode);
        return Err(Problem::new(ErrorCode::Conflict, detail));
    }
    let id = role.region.random_uuid();
    let command = Command {
        reason: "by command".to_owned(),
        suspected_boot_ns: None,
        prefer: request.to,
        allow_data_loss: request.allow_data_loss,
        id,
    };
    let driver = Arc::clone(&role);
    role.region.tracker.spawn(async move {
        tokio::select! {
            biased;
            () = driver.region.shutdown.cancelled() => {}
            result = fail_over(&driver, command) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the commanded failover came to nothing");
                }
            }
        }
    });
    Ok((StatusCode::ACCEPTED, Json(ChangeStarted { id: id.to_string() })))
}

async fn changes(State(role): Role) -> Json<Vec<ChangeStatus>> {
    Json(role.region.changes())
}
