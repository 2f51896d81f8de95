//! The agent of a location: holds its network namespace, drives the links that begin there, and on control's word
//! kills, stops and brings back its processes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::net::Listener;
use longhaul_http::problem::Problem;
use longhaul_http::wire::location::{
    ADMISSION_PATH, Admission, KILL_PATH, LocationView, PAUSE_PATH, PROCESSES_PATH, RESTART_PATH, RESUME_PATH,
};
use longhaul_netem::agent;
use tokio_util::sync::CancellationToken;

use super::Site;
use super::processes::Processes;

/// How long a process waits for its admission before it is told to ask again.
const ADMISSION_WAIT: Duration = Duration::from_secs(10);

/// Serves links and processes of the site's location until `stop`. All links are as declared before it answers.
pub(crate) async fn run(site: &Site, listener: Listener, stop: CancellationToken) -> Result<(), String> {
    let location = site.location()?.name.clone();
    let ending = stop.child_token();
    let links = Arc::new(super::links::start(site, &location, &ending).await?);
    let processes = Arc::new(Processes::new(location.as_str()));
    let router = agent::router(links.clone(), None).merge(router(processes));
    let served = longhaul_http::serve::serve(listener, router, stop).await;
    ending.cancel();
    links.join().await;
    served.map_err(|error| format!("the API broke: {error}; start the container again"))
}

/// The API of the processes.
fn router(processes: Arc<Processes>) -> Router {
    Router::new()
        .route(PROCESSES_PATH, get(async |State(processes): State<Arc<Processes>>| Json(processes.view())))
        .route(KILL_PATH, post(async |State(processes): State<Arc<Processes>>| answer(processes.kill().await)))
        .route(RESTART_PATH, post(async |State(processes): State<Arc<Processes>>| answer(processes.restart().await)))
        .route(PAUSE_PATH, post(async |State(processes): State<Arc<Processes>>| answer(processes.pause().await)))
        .route(RESUME_PATH, post(async |State(processes): State<Arc<Processes>>| answer(processes.resume().await)))
        .route(ADMISSION_PATH, post(admit))
        .with_state(processes)
}

#[expect(clippy::result_large_err, reason = "the answer itself, on a path that is not hot")]
fn answer(done: Result<LocationView, String>) -> Result<Json<LocationView>, Problem> {
    done.map(Json).map_err(|reason| Problem::new(ErrorCode::Conflict, reason))
}

async fn admit(
    State(processes): State<Arc<Processes>>,
    Json(admission): Json<Admission>,
) -> Result<StatusCode, Problem> {
    if processes.admit(admission, ADMISSION_WAIT).await {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(ErrorCode::NotReady, "the location is held down; ask again"))
}
