//! The testbed from start to stop. Nothing is left half-started, and nothing is left running.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use longhaul_control::{Control, ControlConfig, Deps};
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::{LocationKind, Topology};
use longhaul_http::client::HttpClient;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{Listener, Net, TokioNet};
use longhaul_http::watch;
use longhaul_http::wire::traffic::TRAFFIC_PATH;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::Child;
use super::configs::{Plan, RoleFile};
use super::data::DataDir;
use super::layout::Layout;
use super::stores::Stores;
use super::world::EmbeddedWorld;
use crate::commands::trace::SPANS_FOLDER;
use crate::control_api;
use crate::telemetry;

/// How long all roles may take to get ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often to ask.
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// Deadline of one question.
const READY_ASK: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The topology.
    pub(crate) topology: Topology,
    /// The mode at the start.
    pub(crate) mode: Mode,
    /// The durability at the start.
    pub(crate) durability: Durability,
    /// The primary at the start; the topology's first region if absent.
    pub(crate) primary: Option<String>,
    /// The seed of everything random.
    pub(crate) seed: u64,
    /// Where data lies; a temporary folder if absent.
    pub(crate) data: Option<PathBuf>,
    /// Control's port; any free one if absent.
    pub(crate) control_port: Option<u16>,
    /// The PostgreSQL server that keeps the records; SQLite files if absent.
    pub(crate) database_url: Option<String>,
    /// Where traces go.
    pub(crate) otlp: Option<String>,
    /// Where Jaeger's pages are.
    pub(crate) jaeger: Option<String>,
}

/// A running testbed.
pub(crate) struct Testbed {
    layout: Arc<Layout>,
    children: Vec<Arc<Child>>,
    control: Arc<Control>,
    data: DataDir,
    stores: Stores,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Testbed {
    /// Starts everything and waits until it is ready. On an error nothing is left running, and the error is one line.
    pub(crate) async fn start(start: &Start, stop: &CancellationToken) -> Result<Self, String> {
        let clock = SystemClock::default();
        let unique = clock.boot_ns();
        let data = DataDir::open(start.data.as_deref(), &start.topology, unique)?;
        let layout = Layout::plan(&start.topology, start.control_port, unique ^ u64::from(std::process::id())).await;
        let layout = match layout {
            Ok(layout) => Arc::new(layout),
            Err(reason) => {
                data.discard();
                return Err(reason);
            }
        };
        // Taken first: a port in use must be known before anything is started.
        let listener = match TokioNet.bind(&layout.control).await {
            Ok(listener) => listener,
            Err(error) => {
                data.discard();
                return Err(format!("{error} (--port)"));
            }
        };
        let stores = Stores::new(start.database_url.as_deref(), data.session_secret(), &start.topology);
        if let Err(reason) = stores.check().await {
            data.discard();
            return Err(reason);
        }
        if let Err(reason) = write_targets(&layout, &data) {
            data.discard();
            return Err(reason);
        }
        let mut testbed = Self::assemble(start, layout, data, stores, listener)?;
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => Err("stopped before it was ready".to_owned()),
            ready = testbed.start_children() => ready,
        };
        match ready {
            Ok(()) => Ok(testbed),
            Err(reason) => {
                testbed.halt().await;
                let kept = if stop.is_cancelled() { String::new() } else { testbed.keep_logs() };
                Err(format!("{reason}{kept}"))
            }
        }
    }

    fn assemble(
        start: &Start,
        layout: Arc<Layout>,
        data: DataDir,
        stores: Stores,
        listener: Listener,
    ) -> Result<Self, String> {
        let plan = Plan {
            topology: &start.topology,
            layout: &layout,
            seed: start.seed,
            mode: start.mode,
            durability: start.durability,
            primary: start.primary.clone(),
            session_secret: data.session_secret().to_owned(),
        };
        let child = |name: &str, role: &'static str, config: &dyn Fn() -> Result<serde_json::Value, String>| {
            let spans = data.join(&format!("{SPANS_FOLDER}/{name}.jsonl"));
            let file =
                RoleFile { role: config()?, otlp: start.otlp.clone(), spans: Some(spans), location: name.to_owned() };
            let path = write(&data, name, &file)?;
            Ok::<_, String>(Arc::new(Child::new(name, role, path, data.join(&format!("logs/{name}.log")))))
        };
        let json = |value: Result<serde_json::Value, serde_json::Error>| value.map_err(|error| error.to_string());
        // In the order of starting: links first, since everybody dials through them.
        let mut children = vec![child("link", "link", &|| json(serde_json::to_value(plan.link()?)))?];
        for location in &start.topology.locations {
            let name = location.name.as_str();
            let folder = data.join(name);
            children.push(match location.kind {
                LocationKind::Region => {
                    std::fs::create_dir_all(&folder)
                        .map_err(|error| format!("{} cannot be created: {error}", folder.display()))?;
                    child(name, "region", &|| {
                        json(serde_json::to_value(plan.region(location, stores.of(location, &folder))?))
                    })?
                }
                LocationKind::Edge => child(name, "gateway", &|| json(serde_json::to_value(plan.gateway(location)?)))?,
            });
        }
        children.push(child("traffic", "traffic", &|| json(serde_json::to_value(plan.traffic(&data.join("logs")))))?);
        let by_name: BTreeMap<_, _> = children.iter().map(|child| (child.name().to_owned(), child.clone())).collect();
        let (up, is_up) = watch::channel(true);
        let net = Arc::new(TokioNet);
        let world =
            EmbeddedWorld::new(start.topology.clone(), layout.clone(), by_name, HttpClient::new(net.clone()), up);
        let deps = Deps { net, clock: Arc::new(SystemClock::default()), world: Arc::new(world) };
        let config = ControlConfig {
            jaeger: start.jaeger.clone(),
            ..ControlConfig::new(start.topology.clone(), start.seed, env!("CARGO_PKG_VERSION"))
        };
        telemetry::write_spans_to(Some(data.join(&format!("{SPANS_FOLDER}/control.jsonl"))));
        let control = Control::start(deps, config);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(control_api::serve(control.clone(), listener, layout.control.clone(), is_up, stop.clone()));
        Ok(Self { layout, children, control, data, stores, tasks, stop })
    }

    async fn start_children(&mut self) -> Result<(), String> {
        for child in &self.children {
            child.start()?;
            if child.name() == "link" {
                let link = [(child.clone(), self.layout.link.clone(), "/healthz")];
                wait_ready(&link, &self.children).await?;
            }
        }
        let others: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.name() != "link")
            .map(|child| {
                let service = self.layout.services.iter().find(|(name, _)| name.as_str() == child.name());
                let address = service.map_or_else(|| self.layout.traffic.clone(), |(_, address)| address.clone());
                // Users are ready as soon as their oracle has tested itself and the API answers.
                let path = if service.is_some() { "/readyz" } else { TRAFFIC_PATH };
                (child.clone(), address, path)
            })
            .collect();
        wait_ready(&others, &self.children).await
    }

    /// Where control answers, `host:port`.
    pub(crate) fn control(&self) -> &str {
        &self.layout.control
    }

    /// Where a location answers, by name.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, &str)> {
        self.layout.services.iter().map(|(name, address)| (name.as_str(), address.as_str()))
    }

    /// The folder of stores and logs.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// A process that ended by itself, in one line.
    pub(crate) fn surprise(&self) -> Option<String> {
        self.children.iter().find_map(|child| child.surprise())
    }

    async fn halt(&self) {
        self.control.close().await;
        self.stop.cancel();
        // Users first, links last: nobody is cut off from whom it talks to while it says goodbye.
        let (links, others): (Vec<_>, Vec<_>) = self.children.iter().partition(|child| child.name() == "link");
        futures::future::join_all(others.iter().map(|child| child.stop())).await;
        futures::future::join_all(links.iter().map(|child| child.stop())).await;
        self.tasks.close();
        self.tasks.wait().await;
        telemetry::flush().await;
        telemetry::write_spans_to(None);
    }

    fn keep_logs(&self) -> String {
        format!("; logs: {}", self.data.join("logs").display())
    }

    /// Stops everything: no process and no port is left. A temporary folder goes, too.
    pub(crate) async fn stop(self) {
        self.stop_after(|_| ()).await;
    }

    /// The same, and reads something out of the folder before it goes, when everybody has written what there was.
    pub(crate) async fn stop_after<T>(self, read: impl FnOnce(&Path) -> T) -> T {
        self.halt().await;
        let read = read(self.data.path());
        if self.data.is_temporary() {
            self.stores.discard().await;
        }
        self.data.discard();
        read
    }

    /// Stops everything and keeps the folder; answers where the logs are.
    pub(crate) async fn stop_and_keep(self) -> PathBuf {
        self.halt().await;
        self.data.join("logs")
    }
}

/// Keeps `targets.json` in the folder: where Prometheus finds every role (its file-based service discovery).
fn write_targets(layout: &Layout, data: &DataDir) -> Result<(), String> {
    let own = [("control", &layout.control), ("traffic", &layout.traffic), ("link", &layout.link)];
    let services = layout.services.iter().map(|(name, address)| (name.as_str(), address));
    let target =
        |(name, address): (&str, &String)| serde_json::json!({"targets": [address], "labels": {"location": name}});
    let targets: Vec<_> = own.into_iter().chain(services).map(target).collect();
    let path = data.join("targets.json");
    let text = serde_json::to_string_pretty(&targets).map_err(|error| error.to_string())?;
    std::fs::write(&path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn write<T: Serialize>(data: &DataDir, name: &str, file: &T) -> Result<PathBuf, String> {
    let path = data.join(&format!("{name}.json"));
    let text = serde_json::to_string_pretty(file).map_err(|error| error.to_string())?;
    std::fs::write(&path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(path)
}

/// Waits until every role answers that it is ready. A process that ends early is the reason at once.
async fn wait_ready(roles: &[(Arc<Child>, String, &'static str)], all: &[Arc<Child>]) -> Result<(), String> {
    let client = HttpClient::new(Arc::new(TokioNet));
    let mut waiting: Vec<_> = roles.iter().collect();
    let mut said = String::new();
    let wait = async {
        loop {
            if let Some(reason) = all.iter().find_map(|child| child.surprise()) {
                return Err(reason);
            }
            let mut still = Vec::new();
            for role in waiting {
                let (child, address, path) = role;
                let mut request = Request::new(Bytes::new());
                *request.uri_mut() = http::Uri::from_static(path);
                match client.send(address, request, READY_ASK).await {
                    Ok(answer) if answer.status().is_success() => {}
                    Ok(answer) => {
                        said = format!(
                            "{}: {}",
                            child.name(),
                            crate::outcome::one_line(&String::from_utf8_lossy(answer.body()))
                        );
                        still.push(role);
                    }
                    Err(error) => {
                        said = format!("{}: {error} (log: {})", child.name(), child.log().display());
                        still.push(role);
                    }
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            waiting = still;
            tokio::time::sleep(READY_INTERVAL).await;
        }
    };
    match tokio::time::timeout(READY_DEADLINE, wait).await {
        Ok(result) => result,
        Err(_) => Err(format!("not ready within {} s: {said}", READY_DEADLINE.as_secs())),
    }
}
