//! Round-trip probes: every location answers them and, asked to, measures another one over its own links.

use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use longhaul_core::error_code::ErrorCode;

use crate::client::{CallError, HttpClient};
use crate::clock::SharedClock;
use crate::problem::Problem;
use crate::wire::probe::{PROBE_MEASURE_PATH, PROBE_PATH, ProbeRequest, ProbeResult};

/// What the endpoints need.
#[derive(Clone)]
struct Prober {
    client: HttpClient,
    clock: SharedClock,
}

/// `GET` answers at once; `POST` measures an address.
pub fn router(client: HttpClient, clock: SharedClock) -> Router {
    Router::new()
        .route(PROBE_PATH, get(async || StatusCode::NO_CONTENT))
        .route(PROBE_MEASURE_PATH, post(measure_for))
        .with_state(Prober { client, clock })
}

async fn measure_for(
    State(prober): State<Prober>,
    Json(request): Json<ProbeRequest>,
) -> Result<Json<ProbeResult>, Problem> {
    let samples = request.samples.clamp(1, 200);
    let deadline = Duration::from_millis(request.deadline_ms.clamp(1, 60_000));
    match measure(&prober.client, &prober.clock, &request.address, samples, deadline).await {
        Ok(round_trips_ms) => Ok(Json(ProbeResult { round_trips_ms })),
        Err(error) => Err(Problem::new(ErrorCode::UpstreamTimeout, error.to_string())),
    }
}

/// Measures `samples` round trips, milliseconds, one after the other over one warm connection (the first exchange,
/// which opens it, does not count).
pub async fn measure(
    client: &HttpClient,
    clock: &SharedClock,
    address: &str,
    samples: u32,
    deadline: Duration,
) -> Result<Vec<f64>, CallError> {
    let mut round_trips_ms = Vec::with_capacity(samples as usize);
    for sample in 0..=samples {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = http::Uri::from_static(PROBE_PATH);
        *request.headers_mut() = HeaderMap::new();
        let start = clock.boot_ns();
        client.send(address, request, deadline).await?;
        if sample > 0 {
            round_trips_ms.push((clock.boot_ns() - start) as f64 / 1e6);
        }
    }
    Ok(round_trips_ms)
}
