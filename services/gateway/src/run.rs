//! Putting a gateway together and running it.

use std::io;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use longhaul_core::error_code::ErrorCode;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::problem::Problem;
use longhaul_http::{auth, probe, serve, trace};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{ConfigError, GatewayConfig};
use crate::gateway::Gateway;
use crate::{handlers, health};

/// What a gateway is built on.
#[derive(Clone)]
pub struct GatewayDeps {
    /// The network.
    pub net: SharedNet,
    /// The clocks.
    pub clock: SharedClock,
}

/// Why a gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration does not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its listener failed.
    #[error("the gateway of edge {edge} cannot serve: {source}; restart it")]
    Serve {
        /// The edge.
        edge: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs a gateway on `listener` until `shutdown`; open requests may finish.
pub async fn run(
    deps: GatewayDeps,
    config: GatewayConfig,
    listener: Listener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.validate()?;
    let edge = config.edge.to_string();
    let client = HttpClient::new(deps.net);
    let gateway = Arc::new(Gateway::new(config, client.clone(), deps.clock.clone()));
    longhaul_http::metrics::publish(&gateway);
    let tasks = TaskTracker::new();
    // The pollers outlive the listener's drain: requests that are still held need to hear of a newer regime.
    let pollers = CancellationToken::new();
    health::start(&gateway, &tasks, &pollers);
    let router = router(&gateway).merge(internal(&gateway, probe::router(client, deps.clock)));
    let router = router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(gateway.ids.clone(), trace::server_span));
    tracing::info!(edge, "the gateway serves");
    let served = serve::serve(listener, router, shutdown).await;
    pollers.cancel();
    tasks.close();
    tasks.wait().await;
    served.map_err(|source| RunError::Serve { edge, source })
}

/// The OpenAPI document of the gateway.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = public().into_openapi();
    document.merge(guarded().into_openapi());
    "longhaul gateway".clone_into(&mut document.info.title);
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document.info.description = Some(
        "One per edge: routes requests for records to regions by mode, home, role and measured latency.".to_owned(),
    );
    document
}

fn public() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(handlers::get_record, handlers::put_record, handlers::delete_record))
        .routes(routes!(handlers::resolve))
        .routes(routes!(handlers::get_regime))
        .routes(routes!(handlers::healthz))
        .routes(routes!(handlers::readyz))
        .routes(routes!(handlers::metrics))
}

fn guarded() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(handlers::status)).routes(routes!(handlers::put_regime))
}

fn router(gateway: &Arc<Gateway>) -> Router {
    Router::from(public()).with_state(gateway.clone())
}

fn internal(gateway: &Arc<Gateway>, probes: Router) -> Router {
    let token = gateway.config.token.clone();
    Router::from(guarded())
        .with_state(gateway.clone())
        .merge(probes)
        .route_layer(middleware::from_fn_with_state(token, auth::require_token))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::new(ErrorCode::Internal, "the gateway met a defect; its log has the details").into_response()
}
