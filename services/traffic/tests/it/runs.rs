//! Measured runs and continuous traffic.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::plan::{KeyDistribution, Workload};
use longhaul_core::regime::{Durability, Mode};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::SystemClock;
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::wire::traffic::{
    EdgeTarget, FaultMark, Findings, JudgeRequest, RUNS_PATH, RegionTarget, RunProgress, RunRequest, RunStarted,
    RunState, TRAFFIC_PATH, TrafficRequest, TrafficStatus, run_findings_path, run_judge_path, run_path, run_stop_path,
};
use longhaul_traffic::{Deps, TrafficConfig};

use crate::testbed::{Running, Script, Testbed};

const DEADLINE: Duration = Duration::from_secs(30);

/// The role against a testbed.
pub(crate) struct Play {
    bed: Running,
    client: HttpClient,
    pub(crate) traffic: String,
    ledgers: tempfile::TempDir,
}

impl Play {
    pub(crate) async fn new(script: Script) -> Self {
        let bed = Testbed::start(script).await;
        let ledgers = tempfile::tempdir().unwrap();
        let traffic = role(&bed, Some(ledgers.path().to_owned())).await;
        Self { bed, client: HttpClient::new(Arc::new(TokioNet)), traffic, ledgers }
    }

    /// One more traffic role beside the first; answers where it listens.
    pub(crate) async fn another_role(&self) -> String {
        role(&self.bed, None).await
    }

    fn edges(&self) -> Vec<EdgeTarget> {
        let edge = |name: &str, home: &str| EdgeTarget {
            name: name.to_owned(),
            home: home.to_owned(),
            gateway: self.bed.gateway.clone(),
        };
        vec![edge("london", "eu"), edge("new-york", "us")]
    }

    pub(crate) fn request(&self, duration_s: f64) -> RunRequest {
        let region = |(name, address): &(String, String)| RegionTarget { name: name.clone(), address: address.clone() };
        RunRequest {
            workload: Workload {
                rate_per_s: 300.0,
                keys_per_home: 10,
                keys: KeyDistribution::Uniform,
                ..Workload::default()
            },
            edges: self.edges(),
            regions: self.bed.regions.iter().map(region).collect(),
            seed: 7,
            warm_up_s: 0.2,
            duration_s,
            mode: Mode::ActivePassive,
            run_key: "a key of this test".to_owned(),
            part: None,
        }
    }

    /// Waits until a role has tested its oracle and answers.
    pub(crate) async fn answers(&self, role: &str) {
        let _: TrafficStatus = self.client.get(role, TRAFFIC_PATH, DEADLINE).await.unwrap();
    }

    pub(crate) async fn start(&self, request: &RunRequest) -> RunStarted {
        self.start_at(&self.traffic, request).await.unwrap()
    }

    pub(crate) async fn start_at(&self, role: &str, request: &RunRequest) -> Result<RunStarted, CallError> {
        self.client.post(role, RUNS_PATH, request, DEADLINE).await
    }

    pub(crate) async fn finish(&self, id: &str) -> RunProgress {
        self.finish_at(&self.traffic, id).await
    }

    pub(crate) async fn finish_at(&self, role: &str, id: &str) -> RunProgress {
        loop {
            let progress: RunProgress = self.client.get(role, &run_path(id), DEADLINE).await.unwrap();
            if progress.state == RunState::FinishedSending {
                return progress;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn judge(&self, id: &str, request: &JudgeRequest) -> Result<Findings, CallError> {
        self.client.post(&self.traffic, &run_judge_path(id), request, DEADLINE).await
    }

    pub(crate) async fn findings(&self, request: &RunRequest) -> Findings {
        let started = self.start(request).await;
        self.finish(&started.id).await;
        self.judge(&started.id, &circumstances()).await.unwrap()
    }

    pub(crate) async fn end(self) {
        self.bed.stop.cancel();
        self.bed.tasks.close();
        self.bed.tasks.wait().await;
    }
}

/// A traffic role on the tasks of a testbed; answers where it listens.
async fn role(bed: &Running, ledger_dir: Option<std::path::PathBuf>) -> String {
    let net = Arc::new(TokioNet);
    let listener = net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let deps = Deps { net, clock: Arc::new(SystemClock::default()) };
    let config = TrafficConfig { seed: 1, ledger_dir, token: None };
    let stop = bed.stop.clone();
    bed.tasks.spawn(async move { longhaul_traffic::run(deps, config, listener, stop).await.unwrap() });
    address
}

pub(crate) fn circumstances() -> JudgeRequest {
    JudgeRequest {
        faults: Vec::new(),
        changes: Vec::new(),
        gateway_adoptions: Vec::new(),
        start_mode: Mode::ActivePassive,
        durability: Durability::Local,
        modes: Vec::new(),
        settle_s: 2.0,
        regions_expected_down: Vec::new(),
        others: Vec::new(),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> ErrorCode {
    match result {
        Err(CallError::Problem { problem, .. }) => problem.code,
        other => panic!("{other:?} is no problem"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_testbed_is_found_without_fault_and_the_ledger_has_every_operation() {
    let play = Play::new(Script::Honest).await;
    let started = play.start(&play.request(1.5)).await;
    let progress = play.finish(&started.id).await;
    let found = play.judge(&started.id, &circumstances()).await.unwrap();
    assert!(found.invalid.is_empty(), "{:?}", found.invalid);
    assert!((350..550).contains(&found.operations), "{}", found.operations);
    assert_eq!((found.outcomes.ok, found.outcomes.failed), (found.operations, 0));
    assert_eq!((found.rpo.writes, found.anomalies.total(), found.lost_updates), (0, 0, found.conflicts.unexplained));
    assert!(found.converged && found.appends > 5);
    assert!(found.availability.values().all(|share| (share - 1.0).abs() < 1e-12), "{:?}", found.availability);
    let sent: u64 = progress.edges.values().map(|edge| edge.sent).sum();
    let file = play.ledgers.path().join(format!("ledger-{}.jsonl", started.id));
    let lines = std::fs::read_to_string(file).unwrap();
    assert_eq!(lines.lines().count() as u64, sent);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["op_id"].is_string()));
    let again: Findings = play.client.get(&play.traffic, &run_findings_path(&started.id), DEADLINE).await.unwrap();
    assert_eq!(again, found);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_that_were_forgotten_are_the_recovery_point() {
    let play = Play::new(Script::ForgetsAcknowledged).await;
    let found = play.findings(&play.request(3.0)).await;
    assert!(play.bed.testbed.planted() > 0);
    assert_eq!((found.rpo.writes, found.anomalies.total()), (play.bed.testbed.planted(), 0), "{:?}", found.anomalies);
    assert_eq!(found.rpo.lost.len() as u64, found.rpo.writes);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_at_two_places_are_duplicates() {
    let play = Play::new(Script::RemembersTwice).await;
    let found = play.findings(&play.request(2.0)).await;
    assert!(play.bed.testbed.planted() > 0);
    assert_eq!(found.anomalies.duplicates, play.bed.testbed.planted());
    assert_eq!(found.anomalies.total(), found.anomalies.duplicates, "{:?}", found.anomalies.examples);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_writes_that_took_effect_are_found() {
    let play = Play::new(Script::StoresRefused).await;
    let found = play.findings(&play.request(2.0)).await;
    assert!(play.bed.testbed.planted() > 0);
    assert_eq!(found.anomalies.failed_but_present, play.bed.testbed.planted());
    assert_eq!(found.anomalies.total(), found.anomalies.failed_but_present, "{:?}", found.anomalies.examples);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_values_are_staleness_and_against_a_promise_an_anomaly() {
    let play = Play::new(Script::ServesOld).await;
    let eventual = play.findings(&play.request(2.0)).await;
    assert!(play.bed.testbed.planted() > 0);
    assert_eq!(eventual.anomalies.total(), 0, "{:?}", eventual.anomalies.examples);
    assert!(eventual.stale_read_share > 0.02 && eventual.staleness_ms.max > 0.0);
    let mut request = play.request(2.0);
    request.workload.consistency = "primary".to_owned();
    request.run_key = "another key".to_owned();
    let promised = play.findings(&request).await;
    assert!(promised.anomalies.stale_reads > 0);
    assert_eq!(promised.anomalies.total(), promised.anomalies.stale_reads, "{:?}", promised.anomalies.examples);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_under_the_same_id() {
    let play = Play::new(Script::LosesAnswers).await;
    let found = play.findings(&play.request(2.0)).await;
    assert!(play.bed.testbed.planted() > 0);
    assert_eq!((found.outcomes.unknown, found.outcomes.failed), (0, 0));
    assert_eq!((found.anomalies.total(), found.rpo.writes), (0, 0), "{:?}", found.anomalies);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_writes_is_measured_from_the_fault_and_reads_did_not_notice() {
    let play = Play::new(Script::Honest).await;
    let mut request = play.request(5.0);
    request.workload.deadline_ms = 200;
    let started = play.start(&request).await;
    let (from, to) = (started.start_boot_ns + 1_500_000_000, started.start_boot_ns + 2_500_000_000);
    play.bed.testbed.follow(Script::Outage(from, to));
    play.finish(&started.id).await;
    let mut request = circumstances();
    request.faults.push(FaultMark {
        boot_ns: from,
        kind: "region-loss".to_owned(),
        what: "eu is lost".to_owned(),
        heal_boot_ns: Some(to),
        region: Some("eu".to_owned()),
    });
    let found = play.judge(&started.id, &request).await.unwrap();
    for (edge, rto) in &found.rto_ms {
        let write = rto.write.unwrap();
        assert!((750.0..1600.0).contains(&write), "{edge}: {write}");
        assert_eq!(rto.read, Some(0.0), "{edge}");
        let phases = found.rto_phases_ms[edge];
        assert!((phases.total - write).abs() < 1e-6, "{phases:?}");
    }
    assert!(found.availability["london"] < 0.95 && found.outcomes.failed > 0);
    assert_eq!((found.rpo.writes, found.anomalies.total()), (0, 0));
    assert_eq!(found.marks.iter().map(|mark| mark.kind.as_str()).collect::<Vec<_>>(), ["fault", "heal"]);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_isolation_foreign_operations_are_denials_and_foreign_bytes_violations() {
    let play = Play::new(Script::Isolated).await;
    let mut request = play.request(2.0);
    request.mode = Mode::RegionalIsolation;
    // Both edges' users belong to eu, but for the records of us that they may not touch.
    request.workload.foreign_share = 0.2;
    request.workload.append_share = 0.0;
    request.edges.truncate(1);
    request.edges.push(EdgeTarget {
        home: "us".to_owned(),
        name: "idle".to_owned(),
        gateway: "127.0.0.1:1".to_owned(),
    });
    let started = play.start(&request).await;
    play.finish(&started.id).await;
    let circumstances = JudgeRequest { start_mode: Mode::RegionalIsolation, ..circumstances() };
    let found = play.judge(&started.id, &circumstances).await.unwrap();
    assert!(found.policy_denials > 10, "{}", found.policy_denials);
    assert!((found.availability["london"] - 1.0).abs() < 1e-12, "{:?}", found.availability);
    assert_eq!(found.residency_violations, 2, "{:?}", found.residency_examples);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_does_not_answer_makes_the_run_invalid() {
    let play = Play::new(Script::Honest).await;
    let mut request = play.request(0.5);
    request.regions[1].address = "127.0.0.1:1".to_owned();
    let started = play.start(&request).await;
    play.finish(&started.id).await;
    let mut circumstances = JudgeRequest { settle_s: 0.5, ..circumstances() };
    let found = play.judge(&started.id, &circumstances).await.unwrap();
    assert!(!found.converged && found.invalid.iter().any(|line| line.starts_with("region us gave no evidence")));
    // Judged again, and told that it is meant to be down.
    circumstances.regions_expected_down.push("us".to_owned());
    let found = play.judge(&started.id, &circumstances).await.unwrap();
    assert!(found.converged && found.invalid.is_empty(), "{:?}", found.invalid);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_at_a_time_and_none_is_judged_while_it_sends() {
    let play = Play::new(Script::Honest).await;
    let request = play.request(60.0);
    let started = play.start(&request).await;
    let second: Result<RunStarted, _> = play.client.post(&play.traffic, RUNS_PATH, &request, DEADLINE).await;
    assert_eq!(code(second), ErrorCode::Conflict);
    assert_eq!(code(play.judge(&started.id, &circumstances()).await), ErrorCode::Conflict);
    let unknown: Result<RunProgress, _> = play.client.get(&play.traffic, &run_path("nobody"), DEADLINE).await;
    assert_eq!(code(unknown), ErrorCode::UnknownName);
    let stopped: Result<RunProgress, _> = play
        .client
        .json::<(), _>(Method::POST, &play.traffic, &run_stop_path(&started.id), http::HeaderMap::new(), None, DEADLINE)
        .await;
    assert!(stopped.is_ok(), "{stopped:?}");
    play.finish(&started.id).await;
    let nonsense = RunRequest { workload: Workload { rate_per_s: 0.0, ..Workload::default() }, ..request };
    let refused: Result<RunStarted, _> = play.client.post(&play.traffic, RUNS_PATH, &nonsense, DEADLINE).await;
    assert_eq!(code(refused), ErrorCode::BadRequest);
    let unreadable: Result<RunStarted, _> = play.client.post(&play.traffic, RUNS_PATH, &"text", DEADLINE).await;
    assert_eq!(code(unreadable), ErrorCode::BadJson);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuous_traffic_flows_until_it_is_stopped_and_keeps_runs_away() {
    let play = Play::new(Script::Honest).await;
    let request = TrafficRequest {
        workload: Workload { rate_per_s: 100.0, ..Workload::default() },
        edges: play.edges(),
        seed: 3,
        seconds: None,
        play: None,
    };
    let status: TrafficStatus = play.client.post(&play.traffic, TRAFFIC_PATH, &request, DEADLINE).await.unwrap();
    assert!(status.running);
    loop {
        let status: TrafficStatus = play.client.get(&play.traffic, TRAFFIC_PATH, DEADLINE).await.unwrap();
        if status.edges.values().all(|edge| edge.ok > 5) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let run: Result<RunStarted, _> = play.client.post(&play.traffic, RUNS_PATH, &play.request(1.0), DEADLINE).await;
    assert_eq!(code(run), ErrorCode::Conflict);
    let stopped: TrafficStatus = play
        .client
        .json::<(), _>(Method::DELETE, &play.traffic, TRAFFIC_PATH, http::HeaderMap::new(), None, DEADLINE)
        .await
        .unwrap();
    assert!(!stopped.running);
    play.start(&play.request(0.2)).await;
    play.end().await;
}

#[test]
fn the_document_names_every_operation() {
    let document = longhaul_traffic::openapi();
    let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
    let expected = [
        "/metrics",
        "/v1/runs",
        "/v1/runs/{id}",
        "/v1/runs/{id}/findings",
        "/v1/runs/{id}/judge",
        "/v1/runs/{id}/ledger",
        "/v1/runs/{id}/stop",
        "/v1/traffic",
    ];
    assert_eq!(paths, expected);
}
