//! A testbed under traffic, and what the tests do to it.

use std::time::Duration;

use http::{Method, Response};
use longhaul_core::plan::Workload;
use longhaul_core::topology::Topology;
use longhaul_http::wire::regime::{ChangeState, ChangeStatus};
use longhaul_http::wire::status::RegionStatus;
use longhaul_http::wire::traffic::{Findings, RunProgress, RunState};
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};

/// The topology of every chaos test.
pub(crate) const TOPOLOGY: &str = "three-continents";
/// Its regions; the first one is primary at the start.
pub(crate) const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];
/// How long traffic may flow before it ends by itself, seconds.
const RUN_S: f64 = 600.0;
/// Deadline of a question to a region that may be gone.
const ASK: Duration = Duration::from_secs(2);

/// Three regions, three edges, and users.
pub(crate) struct Testbed {
    pub(crate) cluster: Cluster,
    mode: String,
    durability: String,
}

/// Traffic under way.
pub(crate) struct Run {
    id: String,
}

impl Testbed {
    /// A testbed in active-passive.
    pub(crate) fn with(durability: &str) -> Self {
        Self::start(tempfile::tempdir().unwrap(), "active-passive", durability)
    }

    /// A testbed with the data in a folder.
    pub(crate) fn start(folder: tempfile::TempDir, mode: &str, durability: &str) -> Self {
        let arguments = ["--topology", TOPOLOGY, "--mode", mode, "--durability", durability, "--keep-going"];
        let cluster = Cluster::up_in(folder, &arguments);
        let testbed = Self { cluster, mode: mode.to_owned(), durability: durability.to_owned() };
        testbed.settles();
        testbed
    }

    /// What a region says of itself, if it answers.
    pub(crate) fn status(&self, region: &str) -> Option<RegionStatus> {
        let answer = self.cluster.try_send(Method::GET, region, "/internal/v1/status", None, ASK).ok()?;
        serde_json::from_slice(answer.body()).ok()
    }

    /// Whether there is a process, as control sees it: only what has ended for control can be started again.
    pub(crate) fn lives(&self, region: &str) -> bool {
        self.cluster.control(&format!("/v1/regions/{region}"))["running"] == true
    }

    /// Waits until a process has died.
    pub(crate) fn dies(&self, region: &str) {
        until(&format!("{region} dies"), || self.has_died(region));
    }

    fn has_died(&self, region: &str) -> bool {
        // Somebody must use it, or it would never come to where it dies.
        self.write(region, "bait");
        !self.lives(region)
    }

    /// The same for a region that is to die while it fails over by command: it is asked again if an attempt comes to
    /// nothing before it has got there.
    pub(crate) fn dies_failing_over(&self, driver: &str) {
        let mut id = self.begin_failover(driver, Some(driver));
        until(&format!("{driver} dies"), || {
            self.insist(driver, &mut id);
            self.has_died(driver)
        });
    }

    /// Waits until every region serves and follows the same regime, and the primary writes.
    pub(crate) fn settles(&self) {
        until("the testbed settles", || {
            let all: Vec<Option<RegionStatus>> = REGIONS.iter().map(|region| self.status(region)).collect();
            let settled = |status: &RegionStatus| {
                status.ready
                    && status.trouble.is_none()
                    && status.stopped_links.is_empty()
                    && status.lag.values().all(|lag| lag.operations < 200 && lag.knowledge_age_ms < 1500.0)
            };
            let epoch = all[0].as_ref().map(|status| status.epoch);
            let agreed = all.iter().all(|status| status.as_ref().map(|status| status.epoch) == epoch);
            let settled = agreed && all.iter().flatten().filter(|status| settled(status)).count() == REGIONS.len();
            let writer = self.mode != "active-passive" || self.writer().is_some();
            settled && writer
        });
    }

    /// The region that holds the lease, as the regions say.
    pub(crate) fn writer(&self) -> Option<&'static str> {
        let leads = |status: RegionStatus| status.ready && status.role == "primary" && status.lease_remaining_ms > 0;
        REGIONS.into_iter().find(|region| self.status(region).is_some_and(leads))
    }

    /// Waits until some region leads, and takes a write; which one.
    pub(crate) fn has_a_writer(&self) -> &'static str {
        let mut found = None;
        until("there is a writer", || {
            found =
                self.writer().filter(|region| self.write(region, "probe").is_some_and(|answer| answer.status() == 200));
            found.is_some()
        });
        found.unwrap()
    }

    /// Writes to a region directly, as its own users would; `None` if it does not answer.
    pub(crate) fn write(&self, region: &str, id: &str) -> Option<Response<bytes::Bytes>> {
        let path = format!("/v1/records/{region}/{id}");
        self.cluster.try_send(Method::PUT, region, &path, Some(&json!({"probe": id})), Duration::from_secs(6)).ok()
    }

    /// Has a region die when it has come to a place in its code so many times more.
    pub(crate) fn arm(&self, region: &str, point: &str, passes: u32) {
        let body = json!({"point": point, "passes": passes});
        let answer = self.cluster.send(Method::PUT, region, "/internal/v1/fail-point", Some(&body));
        assert_eq!(answer.status(), 204, "{region} cannot be armed: {:?}", answer.body());
    }

    /// Breaks or heals something, through control.
    pub(crate) fn fault(&self, action: &Value) -> Value {
        self.cluster.json(Method::POST, "control", "/v1/faults", Some(action))
    }

    pub(crate) fn restart(&self, region: &str) {
        self.fault(&json!({"do": "restart", "target": region}));
    }

    pub(crate) fn kill(&self, region: &str) {
        self.fault(&json!({"do": "kill", "target": region}));
    }

    /// Changes a link; both directions if asked for.
    pub(crate) fn link(&self, from: &str, to: &str, both: bool, change: &Value) {
        self.fault(&json!({"do": "link", "from": from, "to": to, "both": both, "change": change}));
    }

    pub(crate) fn heal_links(&self) {
        self.fault(&json!({"do": "heal-links"}));
    }

    /// Asks one region to lead a failover; the id of the change.
    pub(crate) fn begin_failover(&self, driver: &str, to: Option<&str>) -> String {
        let to = to.map(|to| REGIONS.iter().position(|region| *region == to).unwrap() + 1);
        let body = json!({"to": to, "allow_data_loss": false});
        let started = self.cluster.json(Method::POST, driver, "/internal/v1/failovers", Some(&body));
        started["id"].as_str().unwrap().to_owned()
    }

    /// Fails over by command and waits for the end. An attempt comes to nothing if a vote takes longer than its deadline
    /// or others change the regime meanwhile; a person would ask again, and so does this.
    pub(crate) fn fail_over(&self, driver: &str) {
        let mut id = self.begin_failover(driver, Some(driver));
        until("the failover ends", || {
            self.insist(driver, &mut id) == Some(ChangeState::Done) || self.writer() == Some(driver)
        });
    }

    /// How a commanded failover stands; one that came to nothing is asked for again.
    fn insist(&self, driver: &str, id: &mut String) -> Option<ChangeState> {
        let change = self.changes(driver).into_iter().find(|change| change.id == *id)?;
        if change.state == ChangeState::Aborted {
            println!("again: {}", change.reason);
            *id = self.begin_failover(driver, Some(driver));
        }
        Some(change.state)
    }

    pub(crate) fn changes(&self, region: &str) -> Vec<ChangeStatus> {
        let answer = self.cluster.try_send(Method::GET, region, "/internal/v1/changes", None, ASK);
        answer.ok().and_then(|answer| serde_json::from_slice(answer.body()).ok()).unwrap_or_default()
    }

    /// How many failovers the regions know of.
    pub(crate) fn failovers(&self) -> usize {
        let mut done: Vec<String> = REGIONS
            .iter()
            .flat_map(|region| self.changes(region))
            .filter(|change| change.kind == "failover" && change.state == ChangeState::Done)
            .map(|change| change.id)
            .collect();
        done.sort_unstable();
        done.dedup();
        done.len()
    }

    pub(crate) fn epoch(&self) -> u64 {
        REGIONS.iter().filter_map(|region| self.status(region)).map(|status| status.epoch).max().unwrap_or(0)
    }

    /// A person gives up what was put aside, so that planned changes are not refused for it.
    pub(crate) fn discard_quarantine(&self) {
        for region in REGIONS {
            let decision = json!({"decision": "discard"});
            self.cluster.json(Method::POST, region, "/internal/v1/quarantine/decide", Some(&decision));
        }
    }

    /// Traffic of all edges, until it is judged.
    pub(crate) fn traffic(&self) -> Run {
        let topology = Topology::shipped(TOPOLOGY).unwrap().unwrap();
        let edges: Vec<Value> = topology
            .edges()
            .map(|edge| {
                let home = topology.region_name(edge.home.unwrap()).unwrap();
                json!({"name": edge.name, "home": home, "gateway": self.cluster.address(edge.name.as_str())})
            })
            .collect();
        let regions: Vec<Value> =
            REGIONS.iter().map(|region| json!({"name": region, "address": self.cluster.address(region)})).collect();
        let workload = Workload { rate_per_s: 60.0, consistency: "session".to_owned(), ..Workload::default() };
        let body = json!({
            "workload": workload, "edges": edges, "regions": regions, "seed": 1, "warm_up_s": 0.0,
            "duration_s": RUN_S, "mode": self.mode, "run_key": "chaos",
        });
        let started = self.cluster.json(Method::POST, "traffic", "/v1/runs", Some(&body));
        let run = Run { id: started["id"].as_str().unwrap().to_owned() };
        self.flows(&run, 60);
        run
    }

    fn progress(&self, run: &Run) -> RunProgress {
        let path = format!("/v1/runs/{}", run.id);
        serde_json::from_value(self.cluster.json(Method::GET, "traffic", &path, None)).unwrap()
    }

    /// Waits until users have had so many more successes.
    pub(crate) fn flows(&self, run: &Run, more: u64) {
        let successes = || self.progress(run).edges.values().map(|edge| edge.ok).sum::<u64>();
        let before = successes();
        until("users are served", || successes() >= before + more);
    }

    /// Ends the traffic and has the oracle judge it.
    pub(crate) fn judge(&self, run: &Run) -> Findings {
        self.cluster.json(Method::POST, "traffic", &format!("/v1/runs/{}/stop", run.id), None);
        until("every operation has ended", || self.progress(run).state == RunState::FinishedSending);
        let body = json!({"start_mode": self.mode, "durability": self.durability, "settle_s": 25.0});
        let path = format!("/v1/runs/{}/judge", run.id);
        let judged = self.cluster.try_send(Method::POST, "traffic", &path, Some(&body), Duration::from_secs(60));
        serde_json::from_slice(judged.unwrap().body()).unwrap()
    }

    /// Ends the traffic: nothing that was acknowledged is lost, nothing happened that must not, and all regions agree.
    pub(crate) fn nothing_was_lost(&self, run: &Run) {
        let found = self.judge(run);
        let operations = found.outcomes;
        println!("{operations:?}, converged within {:.1} s", found.convergence_s);
        self.nothing_wrong(&found);
        assert_eq!(found.rpo.writes, 0, "acknowledged and lost: {:#?}", found.rpo.lost);
    }

    /// Nothing happened that must not, whatever was lost.
    pub(crate) fn nothing_wrong(&self, found: &Findings) {
        assert_eq!(found.anomalies.total(), 0, "{:#?}", found.anomalies);
        let sessions = found.sessions;
        assert_eq!((sessions.read_your_writes, sessions.monotonic_reads), (0, 0), "{sessions:?}");
        assert!(found.converged, "the regions do not agree: {:#?}", found.notes);
        let alarms: u64 = REGIONS.iter().filter_map(|region| self.status(region)).map(|s| s.divergence_alarms).sum();
        assert_eq!(alarms, 0, "two histories");
        let proves = found.invalid.iter().filter(|line| !line.contains("fell behind")).collect::<Vec<_>>();
        assert!(proves.is_empty(), "{proves:?}");
    }
}
