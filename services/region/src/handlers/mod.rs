//! The endpoints of a region. Thin: they read the request, ask, and write the answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use longhaul_core::limits::VALUE_BYTES_MAX;
use longhaul_http::{auth, probe, trace};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::regime::{self, RegimeRole};
use crate::state::Region;
use crate::{anti_entropy, replicator};

mod health;
mod inspection;
mod problems;
mod quarantine;
pub(crate) mod reading;
mod records;
mod request;
pub mod rows;
mod status;

pub(crate) use problems::{gate_problem, problem};
pub(crate) use status::{lag, role};

/// The document's head.
#[derive(OpenApi)]
#[openapi(info(
    title = "longhaul region",
    description = "Records, replication and inspection of one region of a longhaul testbed."
))]
struct Document;

fn public() -> OpenApiRouter<Arc<Region>> {
    OpenApiRouter::new()
        .routes(routes!(records::put_record, records::get_record, records::delete_record))
        .routes(routes!(health::regime))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

fn internal() -> OpenApiRouter<Arc<Region>> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(inspection::operations))
        .routes(routes!(inspection::conflicts))
        .routes(routes!(inspection::digest))
        .routes(routes!(inspection::visibility))
        .routes(routes!(inspection::clock_skew))
        .routes(routes!(inspection::sweep))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::decide))
        .routes(routes!(quarantine::merge))
        .routes(routes!(rows::rows))
}

/// Everything that a region answers.
pub fn router(region: &Arc<Region>, role: &Arc<RegimeRole>) -> Router {
    let (public, _) = public().split_for_parts();
    let (internal, _) = internal().merge(regime::routes(role)).split_for_parts();
    #[cfg(feature = "failpoints")]
    let internal = internal.route(crate::failpoint::FAIL_POINT_PATH, axum::routing::put(crate::failpoint::arm));
    let internal = internal
        .merge(replicator::router())
        .merge(anti_entropy::router())
        .layer(from_fn_with_state(region.config.token.clone(), auth::require_token));
    Router::new()
        .merge(public)
        .merge(internal)
        .with_state(Arc::clone(region))
        .merge(probe::router(region.client.clone(), Arc::clone(&region.clock)))
        .layer(DefaultBodyLimit::max(VALUE_BYTES_MAX * 64))
        .layer(from_fn(problems::unknown_routes))
        .layer(from_fn_with_state(region.trace_ids.clone(), trace::server_span))
}

/// The OpenAPI document of a region's own endpoints.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, document) =
        OpenApiRouter::with_openapi(Document::openapi()).merge(public()).merge(internal()).split_for_parts();
    document
}
