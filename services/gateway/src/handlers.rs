//! The endpoints. Each one reads its request, asks the gateway and writes the answer.
#![expect(clippy::result_large_err, reason = "a problem is built once, on its way out to the user")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::{GATEWAY_REQUESTS_MAX, REQUEST_DEADLINE, VALUE_BYTES_MAX};
use longhaul_core::operation::TraceContext;
use longhaul_core::regime::Regime;
use longhaul_core::routing::{self, Access, Consistency};
use longhaul_http::metrics;
use longhaul_http::problem::Problem;
use longhaul_http::trace;
use longhaul_http::wire::gateway::{DEADLINE_MS, GatewayStatus, Resolved};
use longhaul_http::wire::records::{CONSISTENCY, Written};
use serde::Deserialize;
use tokio::time::{Duration, Instant};
use tracing::Instrument;

use crate::exchange::Exchange;
use crate::gateway::Gateway;

type Shared = State<Arc<Gateway>>;
type Key = Path<(String, String)>;

/// Sets a record.
#[utoipa::path(
    put, path = "/v1/records/{home}/{id}", tag = "records",
    params(
        ("home" = String, Path, description = "The record's home, by name"),
        ("id" = String, Path, description = "1 to 128 characters out of A-Z a-z 0-9 . _ ~ -"),
        ("idempotency-key" = Option<String>, Header, description = "The operation's id, a UUID; drawn if absent"),
        ("if-match" = Option<String>, Header, description = "The version that the write is based on"),
        ("longhaul-session" = Option<String>, Header, description = "The session token of the last answer"),
        ("longhaul-deadline-ms" = Option<u64>, Header, description = "Milliseconds that the caller still waits"),
    ),
    request_body(content = serde_json::Value, description = "Any JSON up to 64 KiB"),
    responses(
        (status = 200, description = "Accepted", body = Written),
        (status = 421, description = "`wrong_home`: the problem names the home", body = Problem),
        (status = 429, description = "`overloaded`: nothing was accepted", body = Problem),
        (status = 503, description = "Nothing was accepted; the code says why", body = Problem),
        (status = 504, description = "The outcome is unknown", body = Problem),
    )
)]
pub(crate) async fn put_record(
    gateway: Shared,
    key: Key,
    trace: Extension<TraceContext>,
    request: Request,
) -> Response {
    record(gateway, key, trace, request).await
}

/// Reads a record.
#[utoipa::path(
    get, path = "/v1/records/{home}/{id}", tag = "records",
    params(
        ("home" = String, Path, description = "The record's home, by name"),
        ("id" = String, Path, description = "1 to 128 characters out of A-Z a-z 0-9 . _ ~ -"),
        ("longhaul-consistency" = Option<Consistency>, Header, description = "`eventual` if absent"),
        ("longhaul-session" = Option<String>, Header, description = "The session token of the last answer"),
        ("longhaul-deadline-ms" = Option<u64>, Header, description = "Milliseconds that the caller still waits"),
    ),
    responses(
        (status = 200, description = "The value; its version is the `ETag`", body = serde_json::Value),
        (status = 404, description = "`not_found` or `unknown_home`", body = Problem),
        (status = 421, description = "`wrong_home`: the problem names the home", body = Problem),
        (status = 503, description = "No region may serve it now", body = Problem),
    )
)]
pub(crate) async fn get_record(
    gateway: Shared,
    key: Key,
    trace: Extension<TraceContext>,
    request: Request,
) -> Response {
    record(gateway, key, trace, request).await
}

/// Deletes a record.
#[utoipa::path(
    delete, path = "/v1/records/{home}/{id}", tag = "records",
    params(
        ("home" = String, Path, description = "The record's home, by name"),
        ("id" = String, Path, description = "1 to 128 characters out of A-Z a-z 0-9 . _ ~ -"),
        ("idempotency-key" = Option<String>, Header, description = "The operation's id, a UUID; drawn if absent"),
        ("if-match" = Option<String>, Header, description = "The version that the write is based on"),
        ("longhaul-session" = Option<String>, Header, description = "The session token of the last answer"),
    ),
    responses(
        (status = 200, description = "Accepted", body = Written),
        (status = 421, description = "`wrong_home`: the problem names the home", body = Problem),
        (status = 503, description = "Nothing was accepted; the code says why", body = Problem),
        (status = 504, description = "The outcome is unknown", body = Problem),
    )
)]
pub(crate) async fn delete_record(
    gateway: Shared,
    key: Key,
    trace: Extension<TraceContext>,
    request: Request,
) -> Response {
    record(gateway, key, trace, request).await
}

async fn record(
    State(gateway): Shared,
    Path((home, _)): Key,
    Extension(trace): Extension<TraceContext>,
    request: Request,
) -> Response {
    let _in_flight = gateway.in_flight.enter();
    let method = request.method().clone();
    let answer = async {
        match accept(&gateway, &home, trace, request).await {
            Ok(exchange) => {
                let mut answer = gateway.forward(&exchange).await.map(Body::from);
                if exchange.kept.load(Ordering::Relaxed) {
                    answer.extensions_mut().insert(trace::Kept);
                }
                answer
            }
            Err(problem) => {
                let trace_id = Some(trace::trace_id_text(trace));
                Problem { trace_id, ..problem }.into_response()
            }
        }
    };
    // No id of the record: under regional isolation traces cross borders that records must not.
    let span = if trace::records(trace) {
        tracing::debug_span!(
            "gateway.request",
            http.request.method = %method,
            longhaul.home = home,
            longhaul.epoch = tracing::field::Empty,
            longhaul.candidates = tracing::field::Empty,
        )
    } else {
        tracing::Span::none()
    };
    answer.instrument(span).await
}

/// Reads what the gateway must know of a request.
async fn accept(gateway: &Gateway, home: &str, trace: TraceContext, request: Request) -> Result<Exchange, Problem> {
    if gateway.in_flight.get() > GATEWAY_REQUESTS_MAX as u64 {
        let detail =
            format!("{GATEWAY_REQUESTS_MAX} requests are open at this gateway; send fewer, or try again later");
        return Err(Problem::new(ErrorCode::Overloaded, detail));
    }
    let arrival = Instant::now();
    let home = gateway.region_named(home).ok_or_else(|| unknown_home(gateway, home))?;
    let (parts, body) = request.into_parts();
    let wait = deadline(&parts.headers)?;
    let access = if parts.method == Method::GET { Access::Read(consistency(&parts.headers)?) } else { Access::Write };
    let body = tokio::time::timeout(wait, axum::body::to_bytes(body, VALUE_BYTES_MAX))
        .await
        .map_err(|_| Problem::new(ErrorCode::BadRequest, "the request's body did not arrive before its deadline"))?
        .map_err(|error| {
            let detail = format!("the body could not be read: {error}; a value may have {VALUE_BYTES_MAX} bytes");
            Problem::new(ErrorCode::TooLarge, detail)
        })?;
    let mut exchange = Exchange {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
        access,
        home,
        deadline: arrival + wait,
        trace,
        sent: AtomicU32::new(0),
        kept: AtomicBool::new(false),
    };
    exchange.prepare(|| gateway.random_bytes());
    Ok(exchange)
}

/// How long the request may take: what the user says, at most [`REQUEST_DEADLINE`], less a fortieth in which the answer
/// travels back. An answer that comes when the user has gone is no answer.
fn deadline(headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(given) = headers.get(DEADLINE_MS) else { return Ok(REQUEST_DEADLINE * 39 / 40) };
    let ms: u64 = given.to_str().ok().and_then(|text| text.parse().ok()).filter(|ms| *ms > 0).ok_or_else(|| {
        Problem::new(ErrorCode::BadRequest, format!("{DEADLINE_MS} must be a number of milliseconds from 1"))
    })?;
    let wait = Duration::from_millis(ms).min(REQUEST_DEADLINE);
    Ok(wait * 39 / 40)
}

fn consistency(headers: &HeaderMap) -> Result<Consistency, Problem> {
    let Some(given) = headers.get(CONSISTENCY) else { return Ok(Consistency::default()) };
    given
        .to_str()
        .map_err(|error| error.to_string())
        .and_then(str::parse)
        .map_err(|why| Problem::new(ErrorCode::BadRequest, why))
}

fn unknown_home(gateway: &Gateway, home: &str) -> Problem {
    let names: Vec<_> = gateway.regions.values().map(|region| region.name.as_str()).collect();
    let detail = format!("home {home:?} is no region of this topology; it has {}", names.join(", "));
    Problem::new(ErrorCode::UnknownHome, detail)
}

/// What to resolve.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResolveQuery {
    /// The home of the records, by name.
    home: String,
    /// `write` (default) or `read`.
    access: Option<String>,
}

/// Tells users who dial regions themselves which one to dial.
#[utoipa::path(
    get, path = "/v1/resolve", tag = "steering", params(ResolveQuery),
    responses(
        (status = 200, description = "The region and how long the answer may be kept", body = Resolved),
        (status = 404, description = "`unknown_home`", body = Problem),
        (status = 421, description = "`wrong_home`: the problem names the home", body = Problem),
        (status = 503, description = "No region may serve now", body = Problem),
    )
)]
pub(crate) async fn resolve(State(gateway): Shared, Query(query): Query<ResolveQuery>) -> Result<Response, Problem> {
    let home = gateway.region_named(&query.home).ok_or_else(|| unknown_home(&gateway, &query.home))?;
    let access = match query.access.as_deref() {
        None | Some("write") => Access::Write,
        Some("read") => Access::Read(Consistency::Eventual),
        Some(other) => {
            return Err(Problem::new(ErrorCode::BadRequest, format!("access {other:?} is not one of write, read")));
        }
    };
    let regime = current(&gateway)?;
    let reach = gateway.reach(Instant::now());
    let order = routing::candidates(&regime, gateway.config.home, access, home, &reach).map_err(|refusal| {
        let named = refusal.region.map(|id| gateway.view.name(id));
        let who = named.clone().unwrap_or_else(|| "any region".to_owned());
        let mut problem = Problem::new(refusal.code, format!("{who} cannot be dialled for this record from here now"));
        problem.home = named;
        problem
    })?;
    let region = order
        .first()
        .and_then(|id| gateway.regions.get(id))
        .ok_or_else(|| Problem::new(ErrorCode::NoRegion, "no region may serve this record now; try again shortly"))?;
    let ttl_ms = gateway.config.steering.ttl_ms();
    let resolved = Resolved {
        region: region.name.clone(),
        addresses: region.instances.iter().map(|instance| instance.address.clone()).collect(),
        ttl_ms,
        epoch: regime.epoch.0,
    };
    let mut answer = Json(resolved).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("max-age={}", ttl_ms / 1000)) {
        answer.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    Ok(answer)
}

fn current(gateway: &Gateway) -> Result<Arc<Regime>, Problem> {
    gateway.view.current().ok_or_else(|| {
        Problem::new(ErrorCode::NotReady, "this gateway has not learned the regime yet; try again shortly")
    })
}

/// The regime by which this gateway routes.
#[utoipa::path(
    get, path = "/v1/regime", tag = "regime",
    responses(
        (status = 200, description = "The regime", body = serde_json::Value),
        (status = 503, description = "`not_ready`: none is known yet", body = Problem),
    )
)]
pub(crate) async fn get_regime(State(gateway): Shared) -> Result<Response, Problem> {
    Ok(Json(&*current(&gateway)?).into_response())
}

/// Tells the gateway a regime. It is adopted if its epoch is higher than that of the one it has.
#[utoipa::path(
    put, path = "/v1/regime", tag = "regime",
    request_body(content = serde_json::Value, description = "The regime"),
    responses(
        (status = 204, description = "It routes by this regime or a newer one"),
        (status = 401, description = "`unauthorized`", body = Problem),
        (status = 400, description = "`bad_json`: it is no regime", body = Problem),
    )
)]
pub(crate) async fn put_regime(State(gateway): Shared, body: axum::body::Bytes) -> Result<StatusCode, Problem> {
    let regime: Regime = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ErrorCode::BadJson, format!("the body is no regime: {error}")))?;
    gateway.view.offer(regime);
    Ok(StatusCode::NO_CONTENT)
}

/// What the gateway says about itself.
#[utoipa::path(
    get, path = "/internal/v1/gateway", tag = "status",
    responses((status = 200, description = "The status", body = GatewayStatus))
)]
pub(crate) async fn status(State(gateway): Shared) -> Json<GatewayStatus> {
    Json(gateway.status())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "It lives")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests can be routed: a regime is known and a region answers.
#[utoipa::path(
    get, path = "/readyz", tag = "status",
    responses(
        (status = 200, description = "It routes"),
        (status = 503, description = "`not_ready`", body = Problem),
    )
)]
pub(crate) async fn readyz(State(gateway): Shared) -> Result<&'static str, Problem> {
    current(&gateway)?;
    if gateway.regions.values().any(|region| region.is_up()) {
        return Ok("ready\n");
    }
    Err(Problem::new(ErrorCode::NotReady, "no region answers this gateway; check the links of its edge"))
}

/// Counters and gauges in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "status",
    responses((status = 200, description = "Text exposition format", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(gateway): Shared) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text_with(gateway.as_ref())).into_response()
}
