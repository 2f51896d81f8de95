//! The link role: runs the relays and serves their state and changes over HTTP.

use std::io;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::link::LinkPatch;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::problem::Problem;
use longhaul_http::wire::links::{LINK_BYTES_PATH, LINK_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkBytesView, LinkView};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::relay::{PatchLinkError, Relay, RelayConfig, StartRelayError};

/// What the role needs.
pub struct Deps {
    /// Sockets, for the relays.
    pub net: SharedNet,
    /// Time, for the relays.
    pub clock: SharedClock,
    /// What to drive.
    pub relay: RelayConfig,
    /// The token that changes need; none on loopback.
    pub token: Option<String>,
}

/// Why the role ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunLinkError {
    /// The relays did not start.
    #[error(transparent)]
    Relay(#[from] StartRelayError),
    /// The API broke.
    #[error("the API of the links broke: {0}; start the role again")]
    Serve(#[from] io::Error),
}

/// Runs relays and API until `shutdown`. All relays listen before the API answers.
pub async fn run(deps: Deps, listener: Listener, shutdown: CancellationToken) -> Result<(), RunLinkError> {
    // Relays also end when the API breaks.
    let stop = shutdown.child_token();
    let relay = Arc::new(Relay::start(deps.net, deps.clock, deps.relay, stop.clone()).await?);
    let served = longhaul_http::serve::serve(listener, router(relay.clone(), deps.token), shutdown).await;
    stop.cancel();
    relay.join().await;
    Ok(served?)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "longhaul link", description = "Links between locations, and changing them while traffic flows."),
    paths(list, show, change, reset_to_declared, bytes)
)]
struct Document;

/// The OpenAPI document of the link role.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The API over running relays.
pub fn router(relay: Arc<Relay>, token: Option<String>) -> Router {
    Router::new()
        .route(LINKS_PATH, get(list))
        .route(LINKS_RESET_PATH, post(reset_to_declared))
        .route(LINK_PATH, get(show).patch(change))
        .route(LINK_BYTES_PATH, get(bytes))
        .layer(middleware::from_fn_with_state(token, longhaul_http::auth::require_token))
        .route("/healthz", get(async || StatusCode::NO_CONTENT))
        .with_state(relay)
}

/// Every directed link, declared and as it is now.
#[utoipa::path(get, path = LINKS_PATH, responses((status = 200, body = Vec<LinkView>)))]
async fn list(State(relay): State<Arc<Relay>>) -> Json<Vec<LinkView>> {
    Json(relay.links())
}

/// One directed link.
#[utoipa::path(get, path = LINK_PATH,
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 404, body = Problem)))]
async fn show(
    State(relay): State<Arc<Relay>>,
    Path((from, to)): Path<(String, String)>,
) -> Result<Json<LinkView>, Problem> {
    relay.link(&from, &to).map(Json).map_err(problem)
}

/// Changes one directed link while traffic flows; absent fields stay as they are.
#[utoipa::path(patch, path = LINK_PATH, request_body = LinkPatch,
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn change(
    State(relay): State<Arc<Relay>>,
    Path((from, to)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<LinkView>, Problem> {
    let patch: LinkPatch = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ErrorCode::BadJson, format!("the body is no link patch: {error}; correct it")))?;
    relay.patch(&from, &to, &patch).map(Json).map_err(problem)
}

/// Puts every link back to its declared profile.
#[utoipa::path(post, path = LINKS_RESET_PATH, responses((status = 200, body = Vec<LinkView>)))]
async fn reset_to_declared(State(relay): State<Arc<Relay>>) -> Json<Vec<LinkView>> {
    Json(relay.reset_to_declared())
}

/// What crossed each link since the start, by cause.
#[utoipa::path(get, path = LINK_BYTES_PATH, responses((status = 200, body = Vec<LinkBytesView>)))]
async fn bytes(State(relay): State<Arc<Relay>>) -> Json<Vec<LinkBytesView>> {
    Json(relay.bytes())
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn problem(error: PatchLinkError) -> Problem {
    let code = match error {
        PatchLinkError::Unknown { .. } => ErrorCode::UnknownName,
        PatchLinkError::OutOfBounds(_) => ErrorCode::BadRequest,
    };
    Problem::new(code, error.to_string())
}
