//! The link role: drives links and serves their state and changes over HTTP, whatever the driver.

use std::io;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::link::LinkPatch;
use longhaul_http::clock::SharedClock;
use longhaul_http::metrics;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::problem::Problem;
use longhaul_http::wire::links::{LINK_BYTES_PATH, LINK_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkBytesView, LinkView};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::relay::{PatchLinkError, Relay, RelayConfig, StartRelayError};
use crate::tc::Tc;

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

/// Links, by whatever drives them.
pub enum Links {
    /// Userspace relays.
    Relay(Relay),
    /// The kernel's traffic control.
    Kernel(Tc),
    /// A network that is what it is: there is nothing to drive.
    Real,
}

impl Links {
    fn list(&self) -> Vec<LinkView> {
        match self {
            Self::Relay(relay) => relay.links(),
            Self::Kernel(tc) => tc.links(),
            Self::Real => Vec::new(),
        }
    }

    fn show(&self, from: &str, to: &str) -> Result<LinkView, PatchLinkError> {
        match self {
            Self::Relay(relay) => relay.link(from, to),
            Self::Kernel(tc) => tc.link(from, to),
            Self::Real => Err(PatchLinkError::Unknown { from: from.to_owned(), to: to.to_owned() }),
        }
    }

    async fn patch(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, PatchLinkError> {
        match self {
            Self::Relay(relay) => relay.patch(from, to, patch),
            Self::Kernel(tc) => tc.patch(from, to, patch).await,
            Self::Real => Err(PatchLinkError::Unknown { from: from.to_owned(), to: to.to_owned() }),
        }
    }

    async fn reset_to_declared(&self) -> Result<Vec<LinkView>, PatchLinkError> {
        match self {
            Self::Relay(relay) => Ok(relay.reset_to_declared()),
            Self::Kernel(tc) => tc.reset_to_declared().await,
            Self::Real => Ok(Vec::new()),
        }
    }

    async fn bytes(&self) -> Vec<LinkBytesView> {
        match self {
            Self::Relay(relay) => relay.bytes(),
            Self::Kernel(tc) => tc.bytes().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the counters of the links cannot be read");
                Vec::new()
            }),
            Self::Real => Vec::new(),
        }
    }

    /// Waits, after the driver was told to stop, until nothing of it is left.
    pub async fn join(&self) {
        match self {
            Self::Relay(relay) => relay.join().await,
            Self::Kernel(tc) => tc.join().await,
            Self::Real => {}
        }
    }
}

/// Runs relays and API until `shutdown`. All relays listen before the API answers.
pub async fn run(deps: Deps, listener: Listener, shutdown: CancellationToken) -> Result<(), RunLinkError> {
    // Relays also end when the API breaks.
    let stop = shutdown.child_token();
    let relay = Relay::start(deps.net, deps.clock, deps.relay, stop.clone()).await?;
    let links = Arc::new(Links::Relay(relay));
    metrics::publish(&links);
    let served = longhaul_http::serve::serve(listener, router(links.clone(), deps.token), shutdown).await;
    stop.cancel();
    links.join().await;
    Ok(served?)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "longhaul link", description = "Links between locations, and changing them while traffic flows."),
    paths(list, show, change, reset_to_declared, bytes, figures)
)]
struct Document;

/// The OpenAPI document of the link role.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The API over running links.
pub fn router(links: Arc<Links>, token: Option<String>) -> Router {
    Router::new()
        .route(LINKS_PATH, get(list))
        .route(LINKS_RESET_PATH, post(reset_to_declared))
        .route(LINK_PATH, get(show).patch(change))
        .route(LINK_BYTES_PATH, get(bytes))
        .layer(middleware::from_fn_with_state(token, longhaul_http::auth::require_token))
        .route("/healthz", get(async || StatusCode::NO_CONTENT))
        .route("/metrics", get(figures))
        .with_state(links)
}

/// Every directed link, declared and as it is now.
#[utoipa::path(get, path = LINKS_PATH, responses((status = 200, body = Vec<LinkView>)))]
async fn list(State(links): State<Arc<Links>>) -> Json<Vec<LinkView>> {
    Json(links.list())
}

/// One directed link.
#[utoipa::path(get, path = LINK_PATH,
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 404, body = Problem)))]
async fn show(
    State(links): State<Arc<Links>>,
    Path((from, to)): Path<(String, String)>,
) -> Result<Json<LinkView>, Problem> {
    links.show(&from, &to).map(Json).map_err(problem)
}

/// Changes one directed link while traffic flows; absent fields stay as they are.
#[utoipa::path(patch, path = LINK_PATH, request_body = LinkPatch,
    params(("from" = String, Path, description = "From which location"), ("to" = String, Path, description = "To which location")),
    responses((status = 200, body = LinkView), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn change(
    State(links): State<Arc<Links>>,
    Path((from, to)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<LinkView>, Problem> {
    let patch: LinkPatch = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ErrorCode::BadJson, format!("the body is no link patch: {error}; correct it")))?;
    links.patch(&from, &to, &patch).await.map(Json).map_err(problem)
}

/// Puts every link back to its declared profile.
#[utoipa::path(post, path = LINKS_RESET_PATH, responses((status = 200, body = Vec<LinkView>)))]
async fn reset_to_declared(State(links): State<Arc<Links>>) -> Result<Json<Vec<LinkView>>, Problem> {
    links.reset_to_declared().await.map(Json).map_err(problem)
}

/// What crossed each link since the start, by cause.
#[utoipa::path(get, path = LINK_BYTES_PATH, responses((status = 200, body = Vec<LinkBytesView>)))]
async fn bytes(State(links): State<Arc<Links>>) -> Json<Vec<LinkBytesView>> {
    Json(links.bytes().await)
}

/// Every figure of the links in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn figures(State(links): State<Arc<Links>>) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text_with(links.as_ref()))
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn problem(error: PatchLinkError) -> Problem {
    let code = match error {
        PatchLinkError::Unknown { .. } => ErrorCode::UnknownName,
        PatchLinkError::OutOfBounds(_) => ErrorCode::BadRequest,
        PatchLinkError::Driver(_) => ErrorCode::Conflict,
    };
    Problem::new(code, error.to_string())
}
