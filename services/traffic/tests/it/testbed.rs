//! A testbed that fits into one lock: one gateway and two regions over one store, with a script of misdeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::RegionId;
use longhaul_core::version::Version;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{Net, TokioNet};
use longhaul_http::problem::Problem;
use longhaul_http::serve::serve;
use longhaul_http::wire::records::{EPOCH, IDEMPOTENCY_KEY, RECORD_PATH, REGION, SESSION, Written};
use longhaul_http::wire::status::{
    CONFLICTS_PATH, DIGEST_PATH, DigestView, OPERATIONS_PATH, QUARANTINE_PATH, RememberedOperation, SWEEP_PATH,
    SweepRequest, SweepResult, VISIBILITY_PATH, VisibilityPage,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the testbed does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Nothing.
    Honest,
    /// Every 20th write of a new record is acknowledged and forgotten.
    ForgetsAcknowledged,
    /// Every 20th write is remembered at two places.
    RemembersTwice,
    /// Every 20th write is refused and stored.
    StoresRefused,
    /// Every 5th read shows the value before the newest.
    ServesOld,
    /// Every 20th first attempt of a write is stored and its answer lost.
    LosesAnswers,
    /// Writes are refused between two moments (nanoseconds since boot).
    Outage(u64, u64),
    /// Records of `us` are forbidden here, and two of them are found in the store.
    Isolated,
}

/// A record's versions, newest first: value (`None`: deleted) and version.
type Versions = Vec<(Option<Bytes>, Version)>;

#[derive(Default)]
struct Store {
    /// By home and id.
    records: BTreeMap<(String, String), Versions>,
    remembered: BTreeMap<String, (RememberedOperation, Written)>,
    second_places: Vec<RememberedOperation>,
    attempted: BTreeSet<String>,
    seq: u64,
    writes: u64,
    created: u64,
    reads: u64,
    /// Misdeeds so far.
    planted: u64,
}

pub(crate) struct Testbed {
    pub(crate) clock: SystemClock,
    script: Mutex<Script>,
    store: Mutex<Store>,
}

/// A running testbed; it ends with its token.
pub(crate) struct Running {
    pub(crate) testbed: Arc<Testbed>,
    pub(crate) gateway: String,
    pub(crate) regions: Vec<(String, String)>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Testbed {
    pub(crate) async fn start(script: Script) -> Running {
        let testbed =
            Arc::new(Self { clock: SystemClock::default(), script: Mutex::new(script), store: Mutex::default() });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut addresses = Vec::new();
        for name in ["gateway", "eu", "us"] {
            let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
            addresses.push((name.to_owned(), listener.address().unwrap().to_string()));
            let router = testbed.router(name);
            tasks.spawn(serve(listener, router, stop.clone()));
        }
        let gateway = addresses.remove(0).1;
        Running { testbed, gateway, regions: addresses, stop, tasks }
    }

    pub(crate) fn follow(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    pub(crate) fn planted(&self) -> u64 {
        self.store().planted
    }

    fn script(&self) -> Script {
        *self.script.lock().unwrap()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn router(self: &Arc<Self>, at: &str) -> Router {
        let me = Place { testbed: Arc::clone(self), name: at.to_owned() };
        Router::new()
            .route(RECORD_PATH, get(read).put(write).delete(write))
            .route(DIGEST_PATH, get(digest))
            .route(OPERATIONS_PATH, get(operations))
            .route(CONFLICTS_PATH, get(async || Json(Vec::<()>::new())))
            .route(QUARANTINE_PATH, get(async || Json(Vec::<()>::new())))
            .route(VISIBILITY_PATH, get(async || Json(VisibilityPage::default())))
            .route(SWEEP_PATH, post(sweep))
            .with_state(me)
    }
}

#[derive(Clone)]
struct Place {
    testbed: Arc<Testbed>,
    name: String,
}

fn headers(version: Option<Version>) -> Vec<(&'static str, String)> {
    let mut headers = vec![(REGION, "eu".to_owned()), (EPOCH, "1".to_owned()), (SESSION, "opaque".to_owned())];
    headers.extend(version.map(|version| ("etag", format!("\"{version}\""))));
    headers
}

fn answer(status: StatusCode, version: Option<Version>, body: Bytes) -> Response {
    let mut response = (status, body).into_response();
    for (name, value) in headers(version) {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

async fn read(State(place): State<Place>, Path((home, id)): Path<(String, String)>) -> Response {
    let (script, at_gateway) = (place.testbed.script(), place.name == "gateway");
    let allowed = if at_gateway { "eu" } else { place.name.as_str() };
    if script == Script::Isolated && home != allowed {
        return Problem::new(ErrorCode::WrongHome, "not here").into_response();
    }
    let mut guard = place.testbed.store();
    let store = &mut *guard;
    let versions = store.records.get(&(home, id)).map_or(&[][..], Vec::as_slice);
    let mut newest = versions.first();
    if at_gateway && script == Script::ServesOld {
        store.reads += 1;
        // An old value only, so that what is planted is one stale read and nothing else.
        if let [_, older @ (Some(_), _), ..] = versions
            && store.reads.is_multiple_of(5)
        {
            newest = Some(older);
            store.planted += 1;
        }
    }
    match newest {
        Some((Some(value), version)) => answer(StatusCode::OK, Some(*version), value.clone()),
        _ => Problem::new(ErrorCode::NotFound, "no such record").into_response(),
    }
}

async fn write(
    State(place): State<Place>,
    Path((home, id)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (script, now_ns) = (place.testbed.script(), place.testbed.clock.boot_ns());
    let op_id = headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned();
    if script == Script::Isolated && home != "eu" {
        return Problem::new(ErrorCode::WrongHome, "not here").into_response();
    }
    if matches!(script, Script::Outage(from, to) if (from..to).contains(&now_ns)) {
        return Problem::new(ErrorCode::NoRegion, "an outage").into_response();
    }
    let mut guard = place.testbed.store();
    let store = &mut *guard;
    if let Some((_, written)) = store.remembered.get(&op_id) {
        let written = Written { repeated: true, ..written.clone() };
        let version = written.version.parse().ok();
        return answer(StatusCode::OK, version, serde_json::to_vec(&written).unwrap().into());
    }
    store.writes += 1;
    store.seq += 1;
    let misdeed = store.writes.is_multiple_of(20);
    let version = Version { time_ns: now_ns, count: store.seq as u32, region: RegionId(1) };
    let dot = format!("1.1:{}", store.seq);
    let written = Written {
        version: version.to_string(),
        dot: dot.clone(),
        region: "eu".to_owned(),
        epoch: 1,
        op_id: op_id.clone(),
        repeated: false,
    };
    let success = answer(StatusCode::OK, Some(version), serde_json::to_vec(&written).unwrap().into());
    if script == Script::ForgetsAcknowledged && id.contains("-i") {
        store.created += 1;
        if store.created.is_multiple_of(20) {
            store.planted += 1;
            return success;
        }
    }
    let value = (method == Method::PUT).then_some(body);
    store.records.entry((home.clone(), id)).or_default().insert(0, (value, version));
    let remembered = RememberedOperation { op_id: op_id.clone(), dot, home, version: written.version.clone() };
    store.remembered.insert(op_id.clone(), (remembered.clone(), written));
    match script {
        Script::RemembersTwice if misdeed => {
            store.planted += 1;
            store.second_places.push(RememberedOperation { dot: format!("2.1:{}", store.seq), ..remembered });
            success
        }
        Script::StoresRefused if misdeed => {
            store.planted += 1;
            Problem::new(ErrorCode::TooLarge, "refused, or so it says").into_response()
        }
        Script::LosesAnswers if misdeed && store.attempted.insert(op_id) => {
            store.planted += 1;
            Problem::new(ErrorCode::UpstreamBroken, "the answer was lost").into_response()
        }
        _ => success,
    }
}

async fn digest(State(place): State<Place>) -> Json<DigestView> {
    let store = place.testbed.store();
    Json(DigestView {
        vector: BTreeMap::from([("1.1".to_owned(), store.seq)]),
        homes: BTreeMap::from([("eu".to_owned(), format!("{:x}", store.seq))]),
        rows: BTreeMap::from([("eu".to_owned(), store.records.len() as u64)]),
    })
}

#[derive(serde::Deserialize)]
struct Page {
    after: String,
    limit: usize,
}

async fn operations(State(place): State<Place>, Query(page): Query<Page>) -> Json<Vec<RememberedOperation>> {
    let store = place.testbed.store();
    let range = store.remembered.range((std::ops::Bound::Excluded(page.after), std::ops::Bound::Unbounded));
    let second = |operation: &RememberedOperation| {
        let place = store.second_places.iter().find(|second| second.op_id == operation.op_id);
        place.cloned().unwrap_or_else(|| operation.clone())
    };
    // The second place is what the other region says.
    let shown = range.take(page.limit).map(
        |(_, (operation, _))| {
            if place.name == "us" { second(operation) } else { operation.clone() }
        },
    );
    Json(shown.collect())
}

async fn sweep(State(place): State<Place>, Json(request): Json<SweepRequest>) -> Json<SweepResult> {
    // Two records in one place, one of them found by two needles at the same place.
    let found = if place.name == "eu" && request.needles.len() > 2 {
        vec![(0, "records".to_owned()), (0, "records".to_owned()), (1, "records".to_owned())]
    } else {
        Vec::new()
    };
    Json(SweepResult { found })
}
