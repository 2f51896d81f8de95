//! What control holds, and its life: created, watching, serving, closed.

use std::io;
use std::sync::Arc;

use axum::Router;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::net::Listener;
use longhaul_http::serve::serve;
use longhaul_http::trace::TraceIds;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ControlConfig, Deps};
use crate::drill::DrillBook;
use crate::events::EventLog;
use crate::faults::FaultBook;
use crate::ids::Ids;
use crate::known::KnownRegime;
use crate::world::World;
use crate::{api, watch};

/// Control. One for a testbed; it may serve its API several times (`kill control` takes the API away, drills go on).
pub struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) world: Arc<dyn World>,
    pub(crate) client: HttpClient,
    pub(crate) clock: SharedClock,
    pub(crate) events: EventLog,
    pub(crate) faults: FaultBook,
    pub(crate) drills: DrillBook,
    pub(crate) ids: Ids,
    pub(crate) known: KnownRegime,
    pub(crate) traces: TraceIds,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Control {
    /// Creates control and starts to watch the regions. [`Control::close`] ends what it started.
    pub fn start(deps: Deps, config: ControlConfig) -> Arc<Self> {
        let control = Arc::new(Self {
            world: deps.world,
            client: HttpClient::new(deps.net),
            events: EventLog::new(deps.clock.clone()),
            faults: FaultBook::default(),
            drills: DrillBook::default(),
            known: KnownRegime::default(),
            ids: Ids::new(config.seed, deps.clock.boot_ns()),
            traces: TraceIds::new(config.seed ^ deps.clock.boot_ns()),
            clock: deps.clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            config,
        });
        longhaul_http::metrics::publish(&control);
        control.tasks.spawn(watch::watch(control.clone()));
        control
    }

    /// The API.
    pub fn router(self: &Arc<Self>, serving: CancellationToken) -> Router {
        api::router(self.clone(), serving)
    }

    /// Serves the API until `shutdown`; open event streams end with it.
    pub async fn serve(self: &Arc<Self>, listener: Listener, shutdown: CancellationToken) -> io::Result<()> {
        serve(listener, self.router(shutdown.clone()), shutdown).await
    }

    /// Ends running drills and the watch, and waits for both.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts control, serves its API until `shutdown`, and closes it.
pub async fn run(deps: Deps, config: ControlConfig, listener: Listener, shutdown: CancellationToken) -> io::Result<()> {
    let control = Control::start(deps, config);
    let served = control.serve(listener, shutdown).await;
    control.close().await;
    served
}
