//! A world of regions with links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use longhaul_core::ids::{LocationName, RegionId};
use longhaul_core::regime::{Durability, Mode};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{BoxIo, Listener, Net, NetFuture, TokioNet};
use longhaul_http::problem::Problem;
use longhaul_http::wire::status::RegionStatus;
use longhaul_region::config::{Addresses, Genesis, StoreConfig, Timings};
use longhaul_region::store::memory::MemoryStore;
use longhaul_region::{Deps, RegionConfig, RunError, run};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const NAMES: [&str; 5] = ["eu-west", "us-east", "ap-south", "sa-east", "af-south"];
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// How the request that opens a replication stream begins on the connection.
const STREAM_REQUEST: &[u8] = b"GET /internal/v1/replicate";

/// What the tests do to an open connection.
#[derive(Default)]
struct Connection {
    cut: AtomicBool,
    /// It became a replication stream.
    stream: AtomicBool,
}

/// Connections that end when their link is cut.
struct CutIo {
    inner: BoxIo,
    connection: Arc<Connection>,
    from: usize,
    links: Arc<Mutex<Links>>,
}

impl CutIo {
    fn check(&self) -> io::Result<()> {
        if self.connection.cut.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Streams are not opened from a region that is to get no operations.
    fn check_stream(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.starts_with(STREAM_REQUEST) {
            self.connection.stream.store(true, Ordering::SeqCst);
            if self.links.lock().unwrap().starved.contains(&self.from) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for CutIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CutIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        self.check_stream(buf)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The links between regions: cut ones refuse new connections and end open ones.
#[derive(Default)]
struct Links {
    cut: BTreeSet<(usize, String)>,
    open: BTreeMap<(usize, String), Vec<Arc<Connection>>>,
    /// Regions that pull operations from nobody; everything else goes through.
    starved: BTreeSet<usize>,
}

struct RegionNet {
    from: usize,
    links: Arc<Mutex<Links>>,
}

impl Net for RegionNet {
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo> {
        Box::pin(async move {
            let place = (self.from, address.to_owned());
            if self.links.lock().unwrap().cut.contains(&place) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let inner = TokioNet.connect(address).await?;
            let connection = Arc::new(Connection::default());
            self.links.lock().unwrap().open.entry(place).or_default().push(Arc::clone(&connection));
            let (from, links) = (self.from, Arc::clone(&self.links));
            Ok(Box::new(CutIo { inner, connection, from, links }) as BoxIo)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener> {
        TokioNet.bind(address)
    }
}

/// The machine's clocks, with a boot clock that a test can move on, as a suspend does.
#[derive(Default)]
pub(crate) struct SuspendedClock {
    machine: SystemClock,
    slept_ns: AtomicU64,
}

impl SuspendedClock {
    /// Lets so much time pass that nothing on the machine noticed.
    pub(crate) fn sleep(&self, time: Duration) {
        self.slept_ns.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for SuspendedClock {
    fn wall_ns(&self) -> u64 {
        self.machine.wall_ns()
    }
    fn boot_ns(&self) -> u64 {
        self.machine.boot_ns() + self.slept_ns.load(Ordering::SeqCst)
    }
    fn set_skew_ms(&self, skew_ms: i64) {
        self.machine.set_skew_ms(skew_ms);
    }
    fn skew_ms(&self) -> i64 {
        self.machine.skew_ms()
    }
}

/// A region that runs.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

/// Regions 0, 1, 2 of the tests are regions 1, 2, 3 of the topology.
pub(crate) struct World {
    pub(crate) addresses: Vec<String>,
    pub(crate) stores: Vec<MemoryStore>,
    pub(crate) clocks: Vec<Arc<SuspendedClock>>,
    configs: Vec<RegionConfig>,
    running: Vec<Option<Running>>,
    links: Arc<Mutex<Links>>,
    tracker: TaskTracker,
    pub(crate) client: HttpClient,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    pub(crate) fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no problem: {} {:?}", self.status, self.body))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.is_success(), "{} {}", self.status, String::from_utf8_lossy(&self.body));
        self
    }
}

impl World {
    pub(crate) async fn active_active() -> Self {
        Self::start(Mode::ActiveActive, Durability::Local, |_| {}).await
    }

    /// Starts three regions and waits until each is ready and may write as far as its own log is concerned.
    pub(crate) async fn start(mode: Mode, durability: Durability, tune: impl Fn(&mut RegionConfig)) -> Self {
        Self::start_with(3, mode, durability, tune).await
    }

    /// The same with another number of regions.
    pub(crate) async fn start_with(
        count: usize,
        mode: Mode,
        durability: Durability,
        tune: impl Fn(&mut RegionConfig),
    ) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TokioNet.bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<String> = listeners.iter().map(|l| l.address().unwrap().to_string()).collect();
        let ids = || (0..count).map(|n| RegionId(n as u16 + 1));
        let regions: BTreeMap<_, _> = ids().zip(NAMES.iter().map(|name| LocationName::new(*name).unwrap())).collect();
        let configs: Vec<RegionConfig> = ids()
            .map(|region| {
                let peers = ids()
                    .zip(addresses.iter().cloned().map(Addresses::from))
                    .filter(|(peer, _)| *peer != region)
                    .collect();
                let timings =
                    Timings { heartbeat_ms: 50, noop_ms: 100, collect_ms: 100, digest_ms: 200, ..Timings::default() };
                let mut config = RegionConfig {
                    region,
                    regions: regions.clone(),
                    listen: addresses[usize::from(region.0) - 1].clone(),
                    advertise: None,
                    store: StoreConfig::Memory,
                    topology_fingerprint: "test".to_owned(),
                    peers,
                    genesis: Genesis { mode, primary: Some(RegionId(1)), durability },
                    seed: 7,
                    session_secret: "secret".to_owned(),
                    token: None,
                    timings,
                    visibility_sample: 1,
                    unsafe_boot: false,
                };
                tune(&mut config);
                config
            })
            .collect();
        let mut world = Self {
            addresses,
            stores: (0..count).map(|_| MemoryStore::new()).collect(),
            clocks: (0..count).map(|_| Arc::default()).collect(),
            running: configs.iter().map(|_| None).collect(),
            configs,
            links: Arc::default(),
            tracker: TaskTracker::new(),
            client: HttpClient::new(Arc::new(TokioNet)),
        };
        for (n, listener) in listeners.into_iter().enumerate() {
            world.launch(n, listener);
        }
        for n in 0..count {
            world
                .until(
                    |world| async move { world.status(n).await.is_some_and(|s| s.ready && s.trouble.is_none()) },
                    "ready",
                )
                .await;
        }
        if mode == Mode::ActivePassive {
            world.until(|world| async move { world.status(0).await.unwrap().lease_remaining_ms > 0 }, "a lease").await;
        }
        world
    }

    fn launch(&mut self, n: usize, listener: Listener) {
        let stop = CancellationToken::new();
        // A new process knows nothing of what was injected into the one before.
        self.clocks[n].set_skew_ms(0);
        let deps = Deps {
            net: Arc::new(RegionNet { from: n, links: Arc::clone(&self.links) }),
            clock: Arc::clone(&self.clocks[n]) as Arc<dyn Clock>,
            store: Arc::new(self.stores[n].clone()),
        };
        let task = self.tracker.spawn(run(deps, self.configs[n].clone(), listener, stop.clone()));
        self.running[n] = Some(Running { stop, task });
    }

    /// Stops a region as an operator does.
    pub(crate) async fn stop(&mut self, n: usize) -> Result<(), RunError> {
        let running = self.running[n].take().expect("the region runs");
        running.stop.cancel();
        tokio::time::timeout(PATIENCE, running.task).await.expect("the region stops in time").unwrap()
    }

    /// How a region ended that was not told to.
    pub(crate) async fn ended(&mut self, n: usize) -> Result<(), RunError> {
        let running = self.running[n].take().expect("the region runs");
        tokio::time::timeout(PATIENCE, running.task).await.expect("the region ends by itself").unwrap()
    }

    /// Starts a stopped region again, on its address.
    pub(crate) async fn restart(&mut self, n: usize) {
        let address = self.addresses[n].clone();
        let listener = loop {
            match TokioNet.bind(&address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        // Connections to the former life are not to be used again.
        self.client = HttpClient::new(Arc::new(TokioNet));
        self.launch(n, listener);
    }

    /// Cuts the links between two regions, both ways, open connections included.
    pub(crate) fn cut(&self, a: usize, b: usize) {
        let mut links = self.links.lock().unwrap();
        for place in [(a, self.addresses[b].clone()), (b, self.addresses[a].clone())] {
            for open in links.open.remove(&place).unwrap_or_default() {
                open.cut.store(true, Ordering::SeqCst);
            }
            links.cut.insert(place);
        }
    }

    pub(crate) fn heal(&self, a: usize, b: usize) {
        let mut links = self.links.lock().unwrap();
        links.cut.remove(&(a, self.addresses[b].clone()));
        links.cut.remove(&(b, self.addresses[a].clone()));
    }

    pub(crate) fn isolate(&self, n: usize) {
        (0..self.count()).filter(|other| *other != n).for_each(|other| self.cut(n, other));
    }

    /// How many regions there are.
    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// From here on the region gets no operations from anybody, although everybody reaches it and hears it.
    pub(crate) fn starve(&self, n: usize) {
        let mut links = self.links.lock().unwrap();
        links.starved.insert(n);
        for (_, open) in links.open.iter().filter(|((from, _), _)| *from == n) {
            for connection in open.iter().filter(|connection| connection.stream.load(Ordering::SeqCst)) {
                connection.cut.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Ends [`World::starve`].
    pub(crate) fn feed(&self, n: usize) {
        self.links.lock().unwrap().starved.remove(&n);
    }

    pub(crate) fn heal_all(&self) {
        self.links.lock().unwrap().cut.clear();
    }

    /// Waits until the condition holds.
    pub(crate) async fn until<'a, F>(&'a self, mut condition: impl FnMut(&'a Self) -> F, what: &str)
    where
        F: Future<Output = bool>,
    {
        let wait = async {
            while !condition(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            for n in 0..self.count() {
                eprintln!("{n}: {:?}", self.status(n).await);
            }
            panic!("not within {PATIENCE:?}: {what}");
        }
    }

    pub(crate) async fn try_send(
        &self,
        n: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, CallError> {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        let (parts, body) = self.client.send(&self.addresses[n], request, REQUEST).await?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    pub(crate) async fn send(
        &self,
        n: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(n, method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn put(&self, n: usize, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(n, Method::PUT, path, headers, body.to_owned()).await
    }

    pub(crate) async fn get(&self, n: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(n, Method::GET, path, headers, "").await
    }

    pub(crate) async fn delete(&self, n: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(n, Method::DELETE, path, headers, "").await
    }

    pub(crate) async fn status(&self, n: usize) -> Option<RegionStatus> {
        self.client.get(&self.addresses[n], "/internal/v1/status", REQUEST).await.ok()
    }

    /// A counter of the region.
    pub(crate) async fn metric(&self, n: usize, name: &str) -> u64 {
        let text = self.get(n, "/metrics", &[]).await.ok().body;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("longhaul_region_{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until a record has this value in a region.
    pub(crate) async fn shows(&self, n: usize, path: &str, value: &str) {
        let what = format!("{path} is {value} in {}", NAMES[n]);
        self.until(
            |world| async move {
                let answer = world.get(n, path, &[]).await;
                answer.status.is_success() && answer.body == value.as_bytes()
            },
            &what,
        )
        .await;
    }
}
