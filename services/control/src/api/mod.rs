//! The API of control: thin handlers, one file per resource.

mod conflicts;
mod drills;
mod events;
mod failovers;
mod faults;
mod health;
mod links;
mod regime;
mod regions;
mod topology;
mod traffic;

use std::sync::Arc;

use axum::extract::FromRef;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use http::{Method, Uri};
use longhaul_core::error_code::ErrorCode;
use longhaul_http::auth::require_token;
use longhaul_http::problem::Problem;
use longhaul_http::trace::server_span;
use longhaul_http::wire::control::KNOWN_REGIME_PATH;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::state::Control;

/// Largest request body, bytes: a plan with many steps fits many times over.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What handlers get.
#[derive(Clone)]
pub(crate) struct ApiState {
    control: Arc<Control>,
    /// Ends when the API stops: open event streams end with it.
    serving: CancellationToken,
}

impl FromRef<ApiState> for Arc<Control> {
    fn from_ref(state: &ApiState) -> Self {
        state.control.clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "longhaul control",
        description = "The cockpit of a longhaul testbed: topology, links, faults, the regime and its changes, traffic, \
                       drills and their reports, regions and what they put aside. Control only proposes: regions decide, \
                       and a dead control stops nothing. Errors are problem documents with a stable code.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "testbed", description = "Locations, links, regions, events"),
        (name = "regime", description = "Modes, durability, switchover, failover"),
        (name = "faults", description = "Breaking things on purpose"),
        (name = "drills", description = "Timed plans of traffic and faults, judged by what clients saw"),
        (name = "traffic", description = "Continuous traffic outside of drills"),
        (name = "health", description = "Liveness, readiness, metrics")
    )
)]
struct Document;

/// What needs the token, where one is configured.
fn guarded() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(topology::get_topology))
        .routes(routes!(links::list_links))
        .routes(routes!(links::get_link, links::patch_link))
        .routes(routes!(faults::list_faults, faults::inject_fault, faults::heal_faults))
        .routes(routes!(faults::get_fault, faults::heal_fault))
        .routes(routes!(regime::get_regime, regime::put_regime))
        .routes(routes!(failovers::list_failovers, failovers::start_failover))
        .routes(routes!(failovers::get_failover))
        .routes(routes!(traffic::get_traffic, traffic::start_traffic, traffic::stop_traffic))
        .routes(routes!(drills::list_drills, drills::start_drill))
        .routes(routes!(drills::get_drill))
        .routes(routes!(regions::list_regions))
        .routes(routes!(regions::get_region))
        .routes(routes!(regions::get_divergent, regions::decide_divergent))
        .routes(routes!(conflicts::list_conflicts))
        .routes(routes!(events::follow_events))
}

/// What needs none: it tells nothing about data and changes nothing.
fn open() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .route(KNOWN_REGIME_PATH, get(regime::known_regime))
}

/// The document of the API, OpenAPI 3.1.
pub fn openapi() -> utoipa::openapi::OpenApi {
    guarded().merge(open()).split_for_parts().1
}

/// The router of a control.
pub(crate) fn router(control: Arc<Control>, serving: CancellationToken) -> Router {
    let token = control.config.token.clone();
    let traces = control.traces.clone();
    let guarded = guarded().route_layer(middleware::from_fn_with_state(token, require_token));
    let (routes, document) = guarded.merge(open()).split_for_parts();
    routes
        .with_state(ApiState { control, serving })
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(ErrorCode::Internal, "a defect in longhaul; the log says where").into_response()
        }))
        .layer(middleware::from_fn_with_state(traces, server_span))
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(ErrorCode::UnknownName, format!("there is nothing at {}; /docs lists every path", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let mut problem =
        Problem::new(ErrorCode::BadRequest, format!("{} cannot be used with {method}; see /docs", uri.path()));
    problem.status = 405;
    problem
}

/// A JSON answer that was accepted but is not done.
pub(crate) fn accepted<T: serde::Serialize>(body: T) -> Response {
    (http::StatusCode::ACCEPTED, Json(body)).into_response()
}
