//! A region whose answers are scripted, and a gateway in front of three of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Epoch, LocationName, RegionId};
use longhaul_core::regime::{Durability, Mode, Regime};
use longhaul_gateway::config::{GatewayConfig, Hedging, RegionTarget, Retries, Steering};
use longhaul_gateway::{GatewayDeps, run};
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SystemClock;
use longhaul_http::net::{BoxIo, Listener, Net, NetFuture, SharedNet, TokioNet};
use longhaul_http::problem::Problem;
use longhaul_http::serve::serve;
use longhaul_http::watch;
use longhaul_http::wire::gateway::{GATEWAY_PATH, GatewayStatus};
use longhaul_http::wire::records::{EPOCH, IDEMPOTENCY_KEY, REGION};
use longhaul_http::wire::regime::REGIME_PATH;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The token of the gateways that have one.
pub(crate) const TOKEN: &str = "of-this-test";

/// What a region answers to a request for a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// 200.
    Ok,
    /// A problem with this code.
    Problem(ErrorCode),
    /// The connection breaks in the middle of the answer.
    Break,
    /// Nothing, until the test opens the region's gate; then 200.
    Gate,
}

/// A network on which new connections can be made to take for ever.
#[derive(Default)]
pub(crate) struct StallingNet(AtomicBool);

impl StallingNet {
    pub(crate) fn stall(&self, stalled: bool) {
        self.0.store(stalled, Ordering::Relaxed);
    }
}

impl Net for StallingNet {
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo> {
        if self.0.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        TokioNet.connect(address)
    }

    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener> {
        TokioNet.bind(address)
    }
}

/// A request that a region saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn key(&self) -> String {
        self.headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned()
    }
}

pub(crate) struct FakeRegion {
    pub(crate) name: String,
    pub(crate) address: String,
    regime: Mutex<Regime>,
    script: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
    polls_fail: Mutex<bool>,
    poll_delay: Duration,
    seen: watch::Sender<Vec<Seen>>,
    gate: watch::Sender<bool>,
    stop: CancellationToken,
}

impl FakeRegion {
    async fn start(number: u16, regime: Regime, tasks: &TaskTracker) -> Arc<Self> {
        let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
        let region = Arc::new(Self {
            name: format!("region-{number}"),
            address: listener.address().unwrap().to_string(),
            regime: Mutex::new(regime),
            script: Mutex::default(),
            otherwise: Mutex::new(Reply::Ok),
            polls_fail: Mutex::new(false),
            poll_delay: Duration::from_millis(u64::from(number - 1) * 60),
            seen: watch::Sender::new(Vec::new()),
            gate: watch::Sender::new(false),
            stop: CancellationToken::new(),
        });
        let router = Router::new()
            .route(REGIME_PATH, get(tell_regime))
            .route("/v1/records/{home}/{id}", any(answer))
            .with_state(region.clone());
        let stop = region.stop.clone();
        tasks.spawn(async move { serve(listener, router, stop).await.unwrap() });
        region
    }

    pub(crate) fn adopt(&self, regime: Regime) {
        *self.regime.lock().unwrap() = regime;
    }

    /// The next answers, in order.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    /// The answer when the script is over.
    pub(crate) fn otherwise(&self, reply: Reply) {
        *self.otherwise.lock().unwrap() = reply;
    }

    /// Polls find a broken connection from now on.
    pub(crate) fn fail_polls(&self) {
        *self.polls_fail.lock().unwrap() = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until it has seen so many requests for records.
    pub(crate) async fn saw(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.seen.subscribe();
        let waiting = seen.wait_for(|seen| seen.len() >= count);
        tokio::time::timeout(PATIENCE, waiting).await.expect("the region sees the requests").unwrap().clone()
    }

    fn epoch(&self) -> u64 {
        self.regime.lock().unwrap().epoch.0
    }
}

async fn tell_regime(State(region): State<Arc<FakeRegion>>) -> Response {
    tokio::time::sleep(region.poll_delay).await;
    if *region.polls_fail.lock().unwrap() {
        return broken();
    }
    let regime = region.regime.lock().unwrap().clone();
    axum::Json(regime).into_response()
}

fn broken() -> Response {
    let stream = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("the connection breaks"))]);
    Response::new(Body::from_stream(stream))
}

async fn answer(State(region): State<Arc<FakeRegion>>, request: Request) -> Response {
    let next = region.script.lock().unwrap().pop_front();
    let reply = next.unwrap_or(*region.otherwise.lock().unwrap());
    let seen = Seen { method: request.method().clone(), headers: request.headers().clone() };
    region.seen.send_modify(|all| all.push(seen));
    let mut response = match reply {
        Reply::Break => return broken(),
        Reply::Problem(code) => {
            let mut problem = Problem::new(code, "as scripted");
            problem.epoch = Some(region.epoch());
            problem.into_response()
        }
        Reply::Gate => {
            region.gate.subscribe().wait_for(|open| *open).await.unwrap();
            (StatusCode::OK, "{}").into_response()
        }
        Reply::Ok => (StatusCode::OK, "{}").into_response(),
    };
    response.headers_mut().insert(EPOCH, HeaderValue::from(region.epoch()));
    response.headers_mut().insert(REGION, HeaderValue::from_str(&region.name).unwrap());
    response
}

pub(crate) fn regime(epoch: u64, mode: Mode, primary: Option<u16>) -> Regime {
    let genesis = Regime::genesis((1..=3).map(RegionId), mode, primary.map(RegionId), Durability::Local);
    Regime { epoch: Epoch(epoch), ..genesis }
}

/// An edge whose home and nearest region is region 1, then 2, then 3.
pub(crate) struct Edge {
    pub(crate) regions: [Arc<FakeRegion>; 3],
    pub(crate) address: String,
    pub(crate) client: HttpClient,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Edge {
    pub(crate) async fn start(regime: Regime) -> Self {
        Self::start_with(regime, |_| {}).await
    }

    pub(crate) async fn start_with(regime: Regime, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::start_over(Arc::new(TokioNet), regime, change).await
    }

    /// The same with a network of the test's own between the gateway and the regions.
    pub(crate) async fn start_over(net: SharedNet, regime: Regime, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let regions = [
            FakeRegion::start(1, regime.clone(), &tasks).await,
            FakeRegion::start(2, regime.clone(), &tasks).await,
            FakeRegion::start(3, regime, &tasks).await,
        ];
        let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
        let address = listener.address().unwrap().to_string();
        let mut config = GatewayConfig {
            edge: LocationName::new("london").unwrap(),
            home: RegionId(1),
            regions: (1..)
                .zip(&regions)
                .map(|(number, region)| RegionTarget {
                    id: RegionId(number),
                    name: LocationName::new(region.name.clone()).unwrap(),
                    addresses: vec![region.address.clone()],
                    rtt_ms: f64::from(number - 1) * 60.0,
                })
                .collect(),
            listen: address.clone(),
            seed: 1,
            token: None,
            control: None,
            balancing: longhaul_gateway::balance::Balancing::default(),
            steering: Steering::Anycast,
            hedging: Hedging { enabled: false, floor_ms: 10 },
            retries: Retries::default(),
            concurrency: 512,
        };
        change(&mut config);
        let deps = GatewayDeps { net, clock: Arc::new(SystemClock::default()) };
        let ended = stop.clone();
        tasks.spawn(async move { run(deps, config, listener, ended).await.unwrap() });
        let edge = Self { regions, address, client: HttpClient::new(Arc::new(TokioNet)), stop, tasks };
        edge.until("it knows the regime", |status| status.epoch > 0).await;
        edge
    }

    /// All regions adopt a regime.
    pub(crate) fn adopt(&self, regime: &Regime) {
        for region in &self.regions {
            region.adopt(regime.clone());
        }
    }

    pub(crate) async fn ask(&self, method: Method, home: &str, headers: &[(&'static str, &str)]) -> Answer {
        let mut request = http::Request::new(Bytes::from_static(b"{\"v\":1}"));
        *request.method_mut() = method;
        *request.uri_mut() = format!("/v1/records/{home}/secret-id").parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let answer = self.client.send(&self.address, request, PATIENCE).await.unwrap();
        Answer(answer)
    }

    pub(crate) async fn put(&self, home: &str) -> Answer {
        self.ask(Method::PUT, home, &[]).await
    }

    pub(crate) async fn get(&self, home: &str) -> Answer {
        self.ask(Method::GET, home, &[]).await
    }

    pub(crate) async fn status(&self) -> GatewayStatus {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap());
        let status = self.client.json::<(), _>(Method::GET, &self.address, GATEWAY_PATH, headers, None, PATIENCE);
        status.await.unwrap()
    }

    pub(crate) async fn counter(&self, name: &str) -> u64 {
        self.status().await.counters[name]
    }

    /// Waits until the gateway's status is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&GatewayStatus) -> bool) -> GatewayStatus {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let waiting = async {
            loop {
                ticks.tick().await;
                let status = self.status().await;
                if is_so(&status) {
                    return status;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
    }

    /// Stops everything; a test that does not get here leaves it to the runtime.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for region in &self.regions {
            region.open_gate();
            region.stop.cancel();
        }
        drop(self.client);
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("everything stops");
    }
}

#[derive(Debug)]
pub(crate) struct Answer(pub(crate) http::Response<Bytes>);

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.0.headers()[name].to_str().unwrap()
    }

    pub(crate) fn region(&self) -> &str {
        self.header(REGION)
    }

    pub(crate) fn problem(&self) -> Problem {
        serde_json::from_slice(self.0.body()).unwrap_or_else(|error| panic!("{error}: {:?}", self.0))
    }

    pub(crate) fn code(&self) -> ErrorCode {
        self.problem().code
    }
}
