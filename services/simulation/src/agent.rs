//! The agent of the links: the same API as the link role's, over simulated links, so that control breaks and heals them
//! as it does elsewhere.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::link::LinkPatch;
use longhaul_http::problem::Problem;
use longhaul_http::wire::links::{LINK_BYTES_PATH, LINK_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkBytesView, LinkView};

use crate::links::{Links, PatchError};

/// The port of the agent, on the host of the users.
pub(crate) const AGENT_PORT: u16 = 7001;

/// The API over the links.
pub(crate) fn router(links: Arc<Links>) -> Router {
    Router::new()
        .route(LINKS_PATH, get(list))
        .route(LINKS_RESET_PATH, post(reset_to_declared))
        .route(LINK_PATH, get(show).patch(change))
        .route(LINK_BYTES_PATH, get(bytes))
        .with_state(links)
}

async fn list(State(links): State<Arc<Links>>) -> Json<Vec<LinkView>> {
    Json(links.views())
}

async fn show(
    State(links): State<Arc<Links>>,
    Path((from, to)): Path<(String, String)>,
) -> Result<Json<LinkView>, Problem> {
    let unknown = || problem(&PatchError::Unknown(from.clone(), to.clone()));
    links.link(&from, &to).map(Json).ok_or_else(unknown)
}

async fn change(
    State(links): State<Arc<Links>>,
    Path((from, to)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<LinkView>, Problem> {
    let patch: LinkPatch = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ErrorCode::BadJson, format!("the body is no link patch: {error}; correct it")))?;
    links.patch(&from, &to, &patch).map(Json).map_err(|error| problem(&error))
}

async fn reset_to_declared(State(links): State<Arc<Links>>) -> Json<Vec<LinkView>> {
    links.restore_all();
    Json(links.views())
}

async fn bytes(State(links): State<Arc<Links>>) -> Json<Vec<LinkBytesView>> {
    Json(links.bytes())
}

fn problem(error: &PatchError) -> Problem {
    let code = match error {
        PatchError::Unknown(..) => ErrorCode::UnknownName,
        PatchError::Bounds(_) => ErrorCode::BadRequest,
    };
    Problem::new(code, error.to_string())
}
