//! The role's HTTP API.
#![allow(clippy::result_large_err, reason = "a problem is made once for each refused request and sent at once")]

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::auth::require_token;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::metrics;
use longhaul_http::problem::Problem;
use longhaul_http::trace::{TraceIds, server_span};
use longhaul_http::wire::traffic::{
    Findings, JudgeRequest, RunPart, RunProgress, RunRequest, RunStarted, TrafficRequest, TrafficStatus,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::TrafficConfig;
use crate::continuous::Continuous;
use crate::ledger::{LedgerFile, Pages};
use crate::metrics::users;
use crate::run::{Means, Run};
use crate::workload;

/// Largest request: a judgement carries every change and adoption of a drill.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The running role.
pub(crate) struct Role {
    client: HttpClient,
    clock: SharedClock,
    config: TrafficConfig,
    tracker: TaskTracker,
    closing: CancellationToken,
    rng: Mutex<SmallRng>,
    played: Mutex<Played>,
}

/// What is played, or was last.
#[derive(Default)]
struct Played {
    run: Option<Arc<Run>>,
    continuous: Option<Continuous>,
}

impl Role {
    pub(crate) fn new(
        client: HttpClient,
        clock: SharedClock,
        config: TrafficConfig,
        closing: CancellationToken,
    ) -> Self {
        // Run ids and run keys must differ from those of an earlier life of the process, so the boot clock takes part.
        let rng = SmallRng::seed_from_u64(config.seed ^ clock.boot_ns());
        Self {
            client,
            clock,
            config,
            tracker: TaskTracker::new(),
            closing,
            rng: Mutex::new(rng),
            played: Mutex::default(),
        }
    }

    /// Stops everything and waits for what is under way.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn draw_id(&self) -> String {
        let bytes = self.rng.lock().unwrap_or_else(PoisonError::into_inner).random();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn played(&self) -> std::sync::MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, id: &str) -> Result<Arc<Run>, Problem> {
        let run = self.played().run.clone().filter(|run| run.id == id);
        run.ok_or_else(|| {
            Problem::new(
                ErrorCode::UnknownName,
                format!("run {id} is not known; only the latest run is kept, so start it again"),
            )
        })
    }
}

impl Played {
    /// Refuses if anything is under way.
    fn must_be_idle(&self) -> Result<(), Problem> {
        if let Some(run) = self.run.as_ref().filter(|run| run.is_busy()) {
            let detail = format!("run {} is under way; wait for it to end, or stop it", run.id);
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        if self.continuous.as_ref().is_some_and(Continuous::is_running) {
            let detail = "continuous traffic is under way and would be measured too; DELETE /v1/traffic first";
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        Ok(())
    }
}

type Answer<T> = Result<Json<T>, Problem>;
/// A body, or why it cannot be read.
type Body<T> = Result<Json<T>, JsonRejection>;

fn read<T>(body: Body<T>) -> Result<T, Problem> {
    match body {
        Ok(Json(body)) => Ok(body),
        Err(rejection) => Err(Problem::new(ErrorCode::BadJson, format!("{}; correct the body", rejection.body_text()))),
    }
}

fn bad_request(error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::BadRequest, error.to_string())
}

/// Refuses a part that cannot be played.
fn check_part(part: &RunPart, request: &RunRequest, now_ns: u64) -> Result<(), Problem> {
    if uuid::Uuid::parse_str(&part.id).is_err() {
        return Err(bad_request(format!("part.id {:?} is no UUID; correct it", part.id)));
    }
    if let Some(edge) = part.edges.iter().find(|name| !request.edges.iter().any(|edge| edge.name == **name)) {
        return Err(bad_request(format!("part.edges names {edge:?}, which is none of the edges; correct it")));
    }
    if part.start_boot_ns < now_ns {
        let late_ms = (now_ns - part.start_boot_ns) / 1_000_000;
        return Err(bad_request(format!(
            "the start of the run passed {late_ms} ms ago; start all roles again, earlier"
        )));
    }
    Ok(())
}

/// Start a measured run.
#[utoipa::path(post, path = "/v1/runs", tag = "runs", request_body = RunRequest, responses(
    (status = 200, description = "The run was started", body = RunStarted),
    (status = 400, description = "The workload cannot be played", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A run or continuous traffic is under way", body = Problem, content_type = "application/problem+json"),
))]
async fn start_run(State(role): State<Arc<Role>>, body: Body<RunRequest>) -> Answer<RunStarted> {
    let request = read(body)?;
    if !(0.0..=3600.0).contains(&request.warm_up_s) {
        return Err(bad_request(format!("warm_up_s is {}, and it must be 0 to 3600; correct it", request.warm_up_s)));
    }
    let seconds = request.warm_up_s + request.duration_s;
    workload::check(&request.workload, request.edges.len(), Some(seconds)).map_err(bad_request)?;
    if request.duration_s < 0.1 {
        return Err(bad_request(format!(
            "duration_s is {}, and it must be at least 0.1; lengthen it",
            request.duration_s
        )));
    }
    role.played().must_be_idle()?;
    if let Some(part) = &request.part {
        check_part(part, &request, role.clock.boot_ns())?;
    }
    let id = request.part.as_ref().map_or_else(|| role.draw_id(), |part| part.id.clone());
    let file = match &role.config.ledger_dir {
        Some(directory) => Some(LedgerFile::open(directory, &id).await.map_err(bad_request)?),
        None => None,
    };
    let mut played = role.played();
    // Somebody else may have started one while the file was opened.
    played.must_be_idle()?;
    let token = role.config.token.clone();
    let means = Means { client: role.client.clone(), clock: Arc::clone(&role.clock), token, file };
    let run = Run::start(id.clone(), request, means, &role.tracker, &role.closing);
    let start_boot_ns = run.start_ns;
    played.run = Some(run);
    Ok(Json(RunStarted { id, start_boot_ns }))
}

/// How far a run has come.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", params(("id" = String, Path, description = "The run")), responses(
    (status = 200, description = "Its progress", body = RunProgress),
    (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
))]
async fn show_run(State(role): State<Arc<Role>>, Path(id): Path<String>) -> Answer<RunProgress> {
    Ok(Json(role.run(&id)?.progress()))
}

/// Send no further operation.
#[utoipa::path(post, path = "/v1/runs/{id}/stop", tag = "runs", params(("id" = String, Path, description = "The run")), responses(
    (status = 200, description = "It sends no more; operations under way end by themselves", body = RunProgress),
    (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
))]
async fn stop_run(State(role): State<Arc<Role>>, Path(id): Path<String>) -> Answer<RunProgress> {
    let run = role.run(&id)?;
    run.stop();
    Ok(Json(run.progress()))
}

/// Gather the evidence and judge.
#[utoipa::path(post, path = "/v1/runs/{id}/judge", tag = "runs", params(("id" = String, Path, description = "The run")), request_body = JudgeRequest, responses(
    (status = 200, description = "What was found", body = Findings),
    (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It still sends, or is being judged", body = Problem, content_type = "application/problem+json"),
))]
async fn judge_run(
    State(role): State<Arc<Role>>,
    Path(id): Path<String>,
    body: Body<JudgeRequest>,
) -> Answer<Findings> {
    let request = read(body)?;
    let run = role.run(&id)?;
    let ledger = run.begin_judging().map_err(|error| Problem::new(ErrorCode::Conflict, error.to_string()))?;
    // On a task of its own: a caller that goes away must not leave the run half judged.
    let judging = role.tracker.spawn(async move { run.judge(ledger, request).await });
    let waited = tokio::select! {
        biased;
        () = role.closing.cancelled() => None,
        judged = judging => judged.ok(),
    };
    match waited {
        Some(findings) => Ok(Json(Findings::clone(&findings))),
        None => Err(Problem::new(ErrorCode::ShuttingDown, "the traffic role is closing; start it and the run again")),
    }
}

/// The ledger of a run, for the role that judges it.
#[utoipa::path(get, path = "/v1/runs/{id}/ledger", tag = "runs", params(("id" = String, Path, description = "The run")), responses(
    (status = 200, description = "Every operation (postcard)", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It still sends, or is being judged", body = Problem, content_type = "application/problem+json"),
))]
async fn show_ledger(State(role): State<Arc<Role>>, Path(id): Path<String>) -> Result<Bytes, Problem> {
    let ledger = role.run(&id)?.ledger().map_err(|error| Problem::new(ErrorCode::Conflict, error.to_string()))?;
    Pages::of(&ledger).to_bytes().map_err(|error| Problem::new(ErrorCode::Internal, error))
}

/// The findings of a judged run, again.
#[utoipa::path(get, path = "/v1/runs/{id}/findings", tag = "runs", params(("id" = String, Path, description = "The run")), responses(
    (status = 200, description = "What was found", body = Findings),
    (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It has not been judged", body = Problem, content_type = "application/problem+json"),
))]
async fn show_findings(State(role): State<Arc<Role>>, Path(id): Path<String>) -> Answer<Findings> {
    let findings = role.run(&id)?.findings();
    let missing = || Problem::new(ErrorCode::Conflict, format!("run {id} has not been judged; judge it first"));
    findings.map(|findings| Json(Findings::clone(&findings))).ok_or_else(missing)
}

/// Start continuous traffic, in place of what flows.
#[utoipa::path(post, path = "/v1/traffic", tag = "traffic", request_body = TrafficRequest, responses(
    (status = 200, description = "It flows", body = TrafficStatus),
    (status = 400, description = "The workload cannot be played", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A measured run is under way", body = Problem, content_type = "application/problem+json"),
))]
async fn start_traffic(State(role): State<Arc<Role>>, body: Body<TrafficRequest>) -> Answer<TrafficStatus> {
    let request = read(body)?;
    // Whatever its end, it is checked as if it had none: its length is no reason to refuse it.
    workload::check(&request.workload, request.edges.len(), None).map_err(bad_request)?;
    if let Some(seconds) = request.seconds.filter(|seconds| !(0.1..=7.0 * 86_400.0).contains(seconds)) {
        return Err(bad_request(format!("seconds is {seconds}, and it must be 0.1 to 604800; correct it")));
    }
    let run_key = role.draw_id();
    let mut played = role.played();
    if let Some(flowing) = played.continuous.take() {
        flowing.stop();
    }
    played.must_be_idle()?;
    let clock = Arc::clone(&role.clock);
    let started = Continuous::start(request, &run_key, role.client.clone(), clock, &role.tracker, &role.closing);
    let status = started.status();
    played.continuous = Some(started);
    Ok(Json(status))
}

/// How continuous traffic goes.
#[utoipa::path(get, path = "/v1/traffic", tag = "traffic", responses(
    (status = 200, description = "How it goes; all zero if there was none", body = TrafficStatus),
))]
async fn show_traffic(State(role): State<Arc<Role>>) -> Json<TrafficStatus> {
    Json(role.played().continuous.as_ref().map(Continuous::status).unwrap_or_default())
}

/// Stop continuous traffic.
#[utoipa::path(delete, path = "/v1/traffic", tag = "traffic", responses(
    (status = 200, description = "It sends no more; operations under way end by themselves", body = TrafficStatus),
))]
async fn stop_traffic(State(role): State<Arc<Role>>) -> Json<TrafficStatus> {
    let played = role.played();
    let status = played.continuous.as_ref().map(|continuous| {
        continuous.stop();
        continuous.status()
    });
    Json(status.unwrap_or_default())
}

/// What users see, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "traffic", responses(
    (status = 200, description = "Text exposition format", body = String, content_type = "text/plain")
))]
async fn show_metrics() -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text_with(users().as_ref()))
}

#[derive(OpenApi)]
#[openapi(info(
    title = "longhaul traffic",
    description = "Plays the users of all edges, keeps the ledger, gathers the evidence and judges.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

fn routes() -> OpenApiRouter<Arc<Role>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(start_run))
        .routes(routes!(show_run))
        .routes(routes!(stop_run))
        .routes(routes!(judge_run))
        .routes(routes!(show_ledger))
        .routes(routes!(show_findings))
        .routes(routes!(start_traffic, show_traffic, stop_traffic))
        .routes(routes!(show_metrics))
}

/// The API's document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The API.
pub(crate) fn router(role: Arc<Role>) -> Router {
    let (router, _) = routes().split_for_parts();
    let token = role.config.token.clone();
    let traces = TraceIds::new(role.config.seed);
    router
        .with_state(role)
        .layer(middleware::from_fn_with_state(token, require_token))
        .layer(middleware::from_fn_with_state(traces, server_span))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}
