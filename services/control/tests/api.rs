//! Control's API against a world that only remembers: what is done, in which order, and what is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, Method};
use longhaul_control::world::{Player, World, WorldError, WorldFuture};
use longhaul_control::{Control, ControlConfig, Deps};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile, LinkState};
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::Topology;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::SystemClock;
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::TopologyView;
use longhaul_http::wire::faults::{FaultState, FaultView, Healed};
use longhaul_http::wire::links::{LINK_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkView};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What was done, in order.
type Journal = Arc<Mutex<Vec<String>>>;

/// A world of processes that are only names.
struct Remembering {
    journal: Journal,
    dead: Mutex<BTreeSet<String>>,
    /// Kills nothing, and says that it did.
    stubborn: bool,
    agent: String,
}

impl Remembering {
    fn note(&self, what: &str, target: &str) {
        self.journal.lock().unwrap().push(format!("{what} {target}"));
    }
}

impl World for Remembering {
    fn kind(&self) -> &'static str {
        "simulated"
    }
    fn kill<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            self.note("kill", target);
            if self.dead.lock().unwrap().contains(target) {
                return Err(WorldError(format!("{target} does not run; restart it first")));
            }
            if !self.stubborn {
                self.dead.lock().unwrap().insert(target.to_owned());
            }
            Ok(())
        })
    }
    fn restart<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        Box::pin(async move {
            self.note("restart", target);
            self.dead.lock().unwrap().remove(target);
            Ok(())
        })
    }
    fn pause<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        self.kill(target)
    }
    fn resume<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()> {
        self.restart(target)
    }
    fn is_running(&self, target: &str) -> bool {
        !self.dead.lock().unwrap().contains(target)
    }
    fn region_address(&self, _: &LocationName) -> Option<String> {
        None
    }
    fn gateway_address(&self, _: &LocationName) -> Option<String> {
        None
    }
    fn players(&self) -> Vec<Player> {
        vec![Player { address: "127.0.0.1:9".to_owned(), edges: None }]
    }
    fn link_agents_of(&self, _: &LocationName, _: &LocationName) -> Vec<String> {
        vec![self.agent.clone()]
    }
    fn link_agents(&self) -> Vec<String> {
        vec![self.agent.clone()]
    }
    fn probe<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> WorldFuture<'a, Option<f64>> {
        Box::pin(async { Ok(None) })
    }
    fn measure_links(&self) -> WorldFuture<'_, Vec<LinkCheck>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// An agent of links that remembers every profile.
#[derive(Clone)]
struct Agent {
    journal: Journal,
    declared: BTreeMap<(String, String), LinkProfile>,
    links: Arc<Mutex<BTreeMap<(String, String), LinkProfile>>>,
    /// Links that it does not cut, by their ends.
    broken: Arc<Mutex<BTreeSet<(&'static str, &'static str)>>>,
    /// Links that it does not let through again.
    stuck: Arc<Mutex<BTreeSet<(&'static str, &'static str)>>>,
}

impl Agent {
    fn view(&self, from: &str, to: &str) -> LinkView {
        let pair = (from.to_owned(), to.to_owned());
        let (declared, current) = (self.declared[&pair].clone(), self.links.lock().unwrap()[&pair].clone());
        let (from, to) = pair;
        LinkView { from, to, declared, current, flap_ms: None, connections: 0, dead_connections: 0 }
    }

    fn all(&self) -> Vec<LinkView> {
        let pairs: Vec<_> = self.links.lock().unwrap().keys().cloned().collect();
        pairs.iter().map(|(from, to)| self.view(from, to)).collect()
    }

    fn router(self) -> Router {
        Router::new()
            .route(LINKS_PATH, get(async |State(agent): State<Self>| Json(agent.all())))
            .route(LINKS_RESET_PATH, post(async |State(agent): State<Self>| Json(agent.all())))
            .route(LINK_PATH, get(Self::show).patch(Self::change))
            .with_state(self)
    }

    #[expect(clippy::unused_async, reason = "a handler is async")]
    async fn show(State(agent): State<Self>, Path((from, to)): Path<(String, String)>) -> Json<LinkView> {
        Json(agent.view(&from, &to))
    }

    #[expect(clippy::unused_async, reason = "a handler is async")]
    async fn change(
        State(agent): State<Self>,
        Path((from, to)): Path<(String, String)>,
        Json(patch): Json<LinkPatch>,
    ) -> Result<Json<LinkView>, Problem> {
        let refuses = |links: &Mutex<BTreeSet<_>>, state| {
            patch.state == Some(state) && links.lock().unwrap().contains(&(from.as_str(), to.as_str()))
        };
        if refuses(&agent.broken, LinkState::Cut) || refuses(&agent.stuck, LinkState::Up) {
            return Err(Problem::new(ErrorCode::Conflict, "tc says no"));
        }
        if let Some(state) = patch.state {
            agent.journal.lock().unwrap().push(format!("link {state:?}").to_lowercase());
        }
        let pair = (from.clone(), to.clone());
        let patched = agent.links.lock().unwrap()[&pair].patched(&patch);
        agent.links.lock().unwrap().insert(pair, patched);
        Ok(Json(agent.view(&from, &to)))
    }
}

struct Cockpit {
    client: HttpClient,
    address: String,
    journal: Journal,
    control: Arc<Control>,
    agent: Agent,
    stop: CancellationToken,
    serving: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Cockpit {
    async fn new(stubborn: bool, token: Option<&str>) -> Self {
        let topology = Topology::shipped("two-regions").unwrap().unwrap();
        let journal = Journal::default();
        let links = topology.links.iter();
        let declared: BTreeMap<_, _> =
            links.map(|((from, to), link)| ((from.to_string(), to.to_string()), link.profile.clone())).collect();
        let links = Arc::new(Mutex::new(declared.clone()));
        let agent = Agent { journal: journal.clone(), declared, links, broken: Arc::default(), stuck: Arc::default() };
        let net = Arc::new(TokioNet);
        let stop = CancellationToken::new();
        let agent_listener = net.bind("127.0.0.1:0").await.unwrap();
        let agent_address = agent_listener.address().unwrap().to_string();
        let tracker = tokio_util::task::TaskTracker::new();
        let serving = tracker.spawn(longhaul_http::serve::serve(agent_listener, agent.clone().router(), stop.clone()));
        let world = Remembering { journal: journal.clone(), dead: Mutex::default(), stubborn, agent: agent_address };
        let deps = Deps { net: net.clone(), clock: Arc::new(SystemClock::default()), world: Arc::new(world) };
        let config = ControlConfig { token: token.map(str::to_owned), ..ControlConfig::new(topology, 7, "0.0.0") };
        let control = Control::start(deps, config);
        let listener = net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.address().unwrap().to_string();
        let (served, token) = (control.clone(), stop.clone());
        let api = tracker.spawn(async move { served.serve(listener, token).await });
        let client = HttpClient::new(net);
        Self { client, address, journal, control, agent, stop, serving: vec![serving, api] }
    }

    async fn ask<A: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<A, CallError> {
        let deadline = Duration::from_secs(10);
        self.client.json(method, &self.address, path, HeaderMap::new(), body.as_ref(), deadline).await
    }

    fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    async fn close(self) {
        self.stop.cancel();
        self.control.close().await;
        for serving in self.serving {
            serving.await.unwrap().unwrap();
        }
    }
}

fn code(error: &CallError) -> ErrorCode {
    match error {
        CallError::Problem { problem, .. } => problem.code,
        other => panic!("no problem document: {other}"),
    }
}

#[tokio::test]
async fn a_lost_region_is_cut_off_before_it_dies_and_returns_before_it_is_started() {
    let cockpit = Cockpit::new(false, None).await;
    let loss = json!({"do": "region-loss", "region": "eu-west-1"});
    let fault: FaultView = cockpit.ask(Method::POST, "/v1/faults", Some(loss)).await.unwrap();
    assert_eq!(fault.state, FaultState::Active);
    assert!(fault.verified_boot_ns.is_some_and(|verified| verified >= fault.started_boot_ns));
    assert_eq!(cockpit.journal(), ["link cut", "link cut", "link cut", "link cut", "kill eu-west-1"]);
    let healed: Healed = cockpit.ask(Method::DELETE, "/v1/faults", None).await.unwrap();
    assert_eq!((healed.healed, healed.trouble), (vec![fault.id.clone()], vec![]));
    assert_eq!(cockpit.journal()[5..], ["link up", "link up", "link up", "link up", "restart eu-west-1"]);
    let fault: FaultView = cockpit.ask(Method::GET, &format!("/v1/faults/{}", fault.id), None).await.unwrap();
    assert_eq!(fault.state, FaultState::Healed);
    cockpit.close().await;
}

#[tokio::test]
async fn links_are_all_cut_or_none_is() {
    let cockpit = Cockpit::new(false, None).await;
    cockpit.agent.broken.lock().unwrap().insert(("paris", "eu-west-1"));
    let loss = json!({"do": "region-loss", "region": "eu-west-1"});
    let error = cockpit.ask::<FaultView>(Method::POST, "/v1/faults", Some(loss.clone())).await.unwrap_err();
    assert!(error.to_string().contains("tc says no; no link is changed"), "{error}");
    assert!(cockpit.agent.all().iter().all(|link| link.current.state == LinkState::Up));
    assert!(!cockpit.journal().iter().any(|done| done.starts_with("kill")));

    // What cannot be put back is named.
    cockpit.agent.stuck.lock().unwrap().insert(("eu-west-1", "paris"));
    let error = cockpit.ask::<FaultView>(Method::POST, "/v1/faults", Some(loss)).await.unwrap_err();
    assert!(error.to_string().contains("may still be changed: eu-west-1 to paris: heal the links"), "{error}");
    cockpit.close().await;
}

#[tokio::test]
async fn a_fault_that_did_not_take_effect_is_a_conflict_and_stays_on_record() {
    let cockpit = Cockpit::new(true, None).await;
    let kill = json!({"do": "kill", "target": "paris"});
    let error = cockpit.ask::<FaultView>(Method::POST, "/v1/faults", Some(kill)).await.unwrap_err();
    assert_eq!(code(&error), ErrorCode::Conflict);
    assert!(error.to_string().contains("still runs"), "{error}");
    let faults: Vec<FaultView> = cockpit.ask(Method::GET, "/v1/faults", None).await.unwrap();
    assert_eq!(faults[0].state, FaultState::Failed);
    cockpit.close().await;
}

#[tokio::test]
async fn healing_one_link_leaves_the_other_faults_in_force() {
    let cockpit = Cockpit::new(false, None).await;
    let cut = |to: &str| json!({"do": "link", "from": "paris", "to": to, "both": true, "change": {"state": "cut"}});
    let one: FaultView = cockpit.ask(Method::POST, "/v1/faults", Some(cut("eu-west-1"))).await.unwrap();
    let two: FaultView = cockpit.ask(Method::POST, "/v1/faults", Some(cut("eu-central-1"))).await.unwrap();
    let healed: FaultView = cockpit.ask(Method::DELETE, &format!("/v1/faults/{}", one.id), None).await.unwrap();
    assert_eq!(healed.state, FaultState::Healed);
    let links: Vec<LinkView> = cockpit.ask(Method::GET, "/v1/links", None).await.unwrap();
    let cut: Vec<_> = links.iter().filter(|link| link.current.state == LinkState::Cut).collect();
    assert_eq!(cut.len(), 2);
    assert!(cut.iter().all(|link| link.from == "eu-central-1" || link.to == "eu-central-1"));
    let again = cockpit.ask::<FaultView>(Method::DELETE, &format!("/v1/faults/{}", one.id), None).await.unwrap_err();
    assert_eq!(code(&again), ErrorCode::Conflict);
    let other: FaultView = cockpit.ask(Method::GET, &format!("/v1/faults/{}", two.id), None).await.unwrap();
    assert_eq!(other.state, FaultState::Active);
    cockpit.close().await;
}

#[tokio::test]
async fn a_changed_link_is_a_fault_until_it_is_as_declared_or_healed() {
    let cockpit = Cockpit::new(false, None).await;
    let path = "/v1/links/paris/eu-west-1";
    let state = |fault: &FaultView| fault.state;
    for heal_by_patch in [true, false] {
        let cut: LinkView = cockpit.ask(Method::PATCH, path, Some(json!({"state": "cut"}))).await.unwrap();
        assert_ne!(cut.current, cut.declared);
        let faults: Vec<FaultView> = cockpit.ask(Method::GET, "/v1/faults", None).await.unwrap();
        assert_eq!(faults.last().map(state), Some(FaultState::Active));
        if heal_by_patch {
            let _: LinkView = cockpit.ask(Method::PATCH, path, Some(json!({"state": "up"}))).await.unwrap();
        } else {
            let healed: Value = cockpit.ask(Method::DELETE, "/v1/faults", None).await.unwrap();
            assert_eq!(healed["healed"].as_array().map(Vec::len), Some(1), "{healed}");
        }
        let link: LinkView = cockpit.ask(Method::GET, path, None).await.unwrap();
        assert_eq!(link.current, link.declared);
        let faults: Vec<FaultView> = cockpit.ask(Method::GET, "/v1/faults", None).await.unwrap();
        assert!(faults.iter().all(|fault| fault.state == FaultState::Healed), "{faults:?}");
    }
    cockpit.close().await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_code() {
    let cockpit = Cockpit::new(false, None).await;
    let cases = [
        (Method::POST, "/v1/faults", Some(json!({"do": "region-loss", "region": "mars"})), ErrorCode::UnknownName),
        (Method::POST, "/v1/faults", Some(json!({"do": "explode"})), ErrorCode::BadRequest),
        (Method::POST, "/v1/faults", Some(json!({"do": "switchover", "to": "eu-west-1"})), ErrorCode::BadRequest),
        (Method::GET, "/v1/faults/none", None, ErrorCode::UnknownName),
        (Method::GET, "/v1/links/paris/mars", None, ErrorCode::UnknownName),
        (Method::PATCH, "/v1/links/paris/eu-west-1", Some(json!({"loss": 2.0})), ErrorCode::BadRequest),
        (Method::GET, "/v1/regime", None, ErrorCode::NoRegion),
        (Method::POST, "/v1/drills", Some(json!({"name": "nothing"})), ErrorCode::UnknownName),
        (Method::POST, "/v1/drills", Some(json!({"nme": "region-loss"})), ErrorCode::BadRequest),
        (Method::GET, "/v1/drills/none", None, ErrorCode::UnknownName),
        (Method::GET, "/v1/regions/mars", None, ErrorCode::UnknownName),
        (Method::POST, "/v1/regions/eu-west-1/divergent", Some(json!({"decision": "burn"})), ErrorCode::BadRequest),
        (Method::GET, "/v1/conflicts?page=2", None, ErrorCode::BadRequest),
        (Method::POST, "/v1/failovers", Some(json!({"planned": true})), ErrorCode::BadRequest),
        (Method::GET, "/nowhere", None, ErrorCode::UnknownName),
        (Method::DELETE, "/v1/topology", None, ErrorCode::BadRequest),
    ];
    for (method, path, body, expected) in cases {
        let error = cockpit.ask::<Value>(method.clone(), path, body.clone()).await.unwrap_err();
        assert_eq!(code(&error), expected, "{method} {path} {body:?}: {error}");
    }
    cockpit.close().await;
}

#[tokio::test]
async fn with_a_token_only_health_is_open() {
    let cockpit = Cockpit::new(false, Some("secret")).await;
    let error = cockpit.ask::<TopologyView>(Method::GET, "/v1/topology", None).await.unwrap_err();
    assert_eq!(code(&error), ErrorCode::Unauthorized);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer secret".parse().unwrap());
    let deadline = Duration::from_secs(5);
    let view: TopologyView = cockpit
        .client
        .json::<(), _>(Method::GET, &cockpit.address, "/v1/topology", headers, None, deadline)
        .await
        .unwrap();
    assert_eq!(view.locations.len(), 3);
    let healthz = http::Request::builder().uri("/healthz").body(bytes::Bytes::new()).unwrap();
    assert!(cockpit.client.send(&cockpit.address, healthz, deadline).await.unwrap().status().is_success());
    cockpit.close().await;
}
