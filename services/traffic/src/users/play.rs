//! Playing an edge: starts every operation of its stream on time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::limits::USERS_IN_FLIGHT_MAX;
use longhaul_core::operation::TraceContext;
use longhaul_core::plan::Workload;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::trace::{TraceIds, anchored};
use longhaul_http::wire::traffic::EdgeTarget;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::Live;
use super::operation::perform;
use super::session::Session;
use crate::canary::RunKey;
use crate::ledger::{Consistency, Entry, Outcome};
use crate::metrics::{EdgeFigures, users};
use crate::value::Observed;
use crate::workload::{EdgeStream, Key, PlannedOperation, Population};

/// Where the traces of operations come from.
#[derive(Clone)]
pub(crate) struct Traces {
    /// Draws them.
    pub(crate) ids: TraceIds,
    /// Whether all are kept, whatever the process's policy says: those of a measured run.
    pub(crate) all: bool,
}

impl Traces {
    /// The root of an operation's trace.
    pub(crate) fn draw(&self) -> TraceContext {
        let drawn = if self.all { self.ids.root() } else { self.ids.request() };
        TraceContext { flags: drawn.flags, ..anchored(drawn.trace_id) }
    }
}

/// Everything that the users of a run share.
pub(crate) struct Cast {
    pub(super) client: HttpClient,
    pub(super) clock: SharedClock,
    pub(super) run: RunKey,
    pub(super) tag: String,
    pub(super) edges: Vec<EdgeTarget>,
    pub(super) population: Population,
    pub(super) workload: Workload,
    pub(super) consistency: Consistency,
    pub(super) seed: u64,
    pub(super) sessions: Vec<Vec<Session>>,
    pub(super) traces: Traces,
    regions: BTreeMap<String, u16>,
    live: Vec<Live>,
    figures: Vec<Arc<EdgeFigures>>,
}

impl Cast {
    /// The users of `edges`. `regions` are the names of all regions in the topology's order.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that all users of a run share")]
    pub(crate) fn new(
        client: HttpClient,
        clock: SharedClock,
        run_key: &str,
        edges: Vec<EdgeTarget>,
        regions: &[String],
        workload: Workload,
        seed: u64,
        traces: Traces,
    ) -> Self {
        let run = RunKey::new(run_key);
        let sessions = |_| (0..workload.sessions_per_edge).map(|_| Session::default()).collect();
        Self {
            client,
            clock,
            tag: run.tag(),
            run,
            population: Population::new(edges.iter().map(|edge| edge.home.as_str())),
            consistency: Consistency::parse(&workload.consistency),
            sessions: (0..edges.len()).map(sessions).collect(),
            live: edges.iter().map(|_| Live::default()).collect(),
            figures: edges.iter().map(|edge| users().edge(&edge.name)).collect(),
            regions: regions.iter().cloned().zip(0..).collect(),
            edges,
            workload,
            seed,
            traces,
        }
    }

    /// The homes of its records, and each edge's.
    pub(crate) fn population(&self) -> &Population {
        &self.population
    }

    /// What the run's values are recognised by.
    pub(crate) fn run(&self) -> &RunKey {
        &self.run
    }

    /// The counters of each edge.
    pub(crate) fn live(&self) -> &[Live] {
        &self.live
    }

    /// Places of the edges that are played here: those that are named, or all.
    pub(crate) fn played(&self, names: Option<&[String]>) -> Vec<usize> {
        let plays = |edge: &EdgeTarget| names.is_none_or(|names| names.contains(&edge.name));
        self.edges.iter().enumerate().filter(|(_, edge)| plays(edge)).map(|(place, _)| place).collect()
    }

    /// The edges.
    pub(crate) fn edges(&self) -> &[EdgeTarget] {
        &self.edges
    }

    /// The stream of an edge.
    pub(crate) fn stream(&self, edge: usize, warm_up_s: f64, seconds: Option<f64>) -> EdgeStream {
        EdgeStream::new(&self.workload, &self.population, edge, self.seed, warm_up_s, seconds)
    }

    pub(super) fn region_name(&self, index: u16) -> Option<&str> {
        self.regions.iter().find(|(_, known)| **known == index).map(|(name, _)| name.as_str())
    }

    pub(super) fn region_index(&self, name: &str) -> Option<u16> {
        self.regions.get(name).copied()
    }

    /// An entry of which nothing has happened yet.
    pub(super) fn blank(&self, planned: &PlannedOperation, intended_ns: u64) -> Entry {
        Entry {
            n: planned.n,
            op_id: self.run.op_id(planned.n),
            edge: planned.edge,
            session: planned.session,
            parent: None,
            key: 0,
            kind: planned.kind,
            consistency: self.consistency,
            intended_ns,
            sent_ns: 0,
            write_ns: 0,
            ended_ns: intended_ns,
            outcome: Outcome::Failed,
            code: None,
            attempts: 0,
            region: None,
            epoch: 0,
            dot: None,
            version: None,
            base: None,
            observed: Observed::Nothing,
            trace: None,
        }
    }
}

/// The start of the traffic on both clocks: the boot clock of the ledger and the timer that sleeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// Nanoseconds since boot.
    pub(crate) boot_ns: u64,
    /// The same moment.
    pub(crate) instant: Instant,
}

impl Origin {
    /// At a moment of the boot clock; now if it has passed.
    pub(crate) fn at(clock: &SharedClock, boot_ns: u64) -> Self {
        let left = Duration::from_nanos(boot_ns.saturating_sub(clock.boot_ns()));
        Self { boot_ns, instant: Instant::now() + left }
    }

    /// `lead` from now.
    pub(crate) fn after(clock: &SharedClock, lead: Duration) -> Self {
        Self { boot_ns: clock.boot_ns() + lead.as_nanos() as u64, instant: Instant::now() + lead }
    }
}

/// A finished operation and its record; the ledger gives the record its index.
pub(crate) type Finished = (Key, Entry);

/// Starts every operation of `stream` at its intended time until it ends or `stop`; returns once all have started.
/// Each runs on `tracker` and is sent to `out` when it ends (dropped if nobody listens).
pub(crate) async fn play_edge(
    cast: Arc<Cast>,
    stream: EdgeStream,
    origin: Origin,
    out: Option<mpsc::Sender<Finished>>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let in_flight = Arc::new(Semaphore::new(USERS_IN_FLIGHT_MAX));
    for planned in stream {
        let start = origin.instant + Duration::from_nanos(planned.at_ns);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(start) => {}
        }
        let intended_ns = origin.boot_ns + planned.at_ns;
        let permit = Arc::clone(&in_flight).try_acquire_owned();
        let (cast, out) = (Arc::clone(&cast), out.clone());
        cast.live[usize::from(planned.edge)].began();
        tracker.spawn(async move {
            let entry = match permit {
                Ok(_permit) => perform(&cast, &planned, intended_ns).await,
                Err(_) => Entry { ended_ns: cast.clock.boot_ns(), ..cast.blank(&planned, intended_ns) },
            };
            let latency_ns = entry.ended_ns.saturating_sub(entry.intended_ns);
            cast.live[usize::from(planned.edge)].ended(entry.ended_ns, entry.outcome, latency_ns);
            cast.figures[usize::from(planned.edge)].ended(&entry);
            if let Some(out) = out {
                // Nobody listens any more only when the whole role is closing.
                let _ = out.send((planned.key, entry)).await;
            }
        });
    }
}
