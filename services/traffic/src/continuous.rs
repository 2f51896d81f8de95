//! Continuous traffic, outside of any run: users play until they are stopped, and only counters are kept.

use std::sync::Arc;

use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::trace::TraceIds;
use longhaul_http::wire::traffic::{TrafficRequest, TrafficStatus};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::run::{LEAD, edges_progress};
use crate::users::{Cast, Origin, Traces, play_edge};

/// Continuous traffic that was started.
pub(crate) struct Continuous {
    cast: Arc<Cast>,
    clock: SharedClock,
    /// Places of the edges that are played here.
    played: Vec<usize>,
    rate_per_s: f64,
    start_ns: u64,
    end_ns: Option<u64>,
    stop: CancellationToken,
    players: TaskTracker,
}

impl Continuous {
    /// Starts it on `tracker`.
    pub(crate) fn start(
        request: TrafficRequest,
        run_key: &str,
        client: HttpClient,
        clock: SharedClock,
        tracker: &TaskTracker,
        closing: &CancellationToken,
    ) -> Self {
        let play = request.play;
        let all = request.edges.len().max(1) as f64;
        let rate_per_s = request.workload.rate_per_s;
        let traces = Traces { ids: TraceIds::new(clock.boot_ns()), all: false };
        let (edges, workload) = (request.edges, request.workload);
        let cast = Cast::new(client, Arc::clone(&clock), run_key, edges, &[], workload, request.seed, traces);
        let cast = Arc::new(cast);
        let origin = Origin::after(&clock, LEAD);
        let stop = closing.child_token();
        let players = TaskTracker::new();
        let played = cast.played(play.as_deref());
        let rate_per_s = rate_per_s * played.len() as f64 / all;
        for edge in played.clone() {
            let stream = cast.stream(edge, 0.0, request.seconds);
            let play = play_edge(Arc::clone(&cast), stream, origin, None, stop.clone(), tracker.clone());
            tracker.spawn(players.track_future(play));
        }
        players.close();
        let end_ns = request.seconds.map(|seconds| origin.boot_ns + (seconds * 1e9) as u64);
        Self { cast, clock, played, rate_per_s, start_ns: origin.boot_ns, end_ns, stop, players }
    }

    /// Sends no further operation.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether operations are still being started.
    pub(crate) fn is_running(&self) -> bool {
        !self.stop.is_cancelled() && !self.players.is_empty()
    }

    /// How it goes.
    pub(crate) fn status(&self) -> TrafficStatus {
        let now_ns = self.clock.boot_ns();
        let until_ns = self.end_ns.map_or(now_ns, |end_ns| end_ns.min(now_ns));
        TrafficStatus {
            running: self.is_running(),
            rate_per_s: self.rate_per_s,
            elapsed_s: until_ns.saturating_sub(self.start_ns) as f64 / 1e9,
            edges: edges_progress(&self.cast, &self.played, now_ns),
        }
    }
}
