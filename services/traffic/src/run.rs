//! A measured run from its first operation to its findings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use longhaul_core::limits::LEDGER_QUEUE_MAX;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::trace::TraceIds;
use longhaul_http::wire::traffic::{Findings, JudgeRequest, RegionTarget, RunPart, RunProgress, RunRequest, RunState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::evidence::{Subject, VisibilityWatch, gather};
use crate::ledger::{Edge, Ledger, LedgerFile, fetch};
use crate::oracle::judge;
use crate::users::{Cast, Finished, Origin, Traces, play_edge};

/// Time between the answer that a run has started and its first operation.
pub(crate) const LEAD: Duration = Duration::from_millis(100);
/// Finished operations that are written at once.
const BATCH: usize = 512;

/// How far a run is.
enum Phase {
    /// Operations are under way.
    Sending,
    /// Every operation has its outcome.
    Sent(Arc<Ledger>),
    /// The evidence is being gathered.
    Judging,
    /// Judged; it may be judged again.
    Judged(Arc<Ledger>, Arc<Findings>),
}

/// What a run needs from the role.
pub(crate) struct Means {
    pub(crate) client: HttpClient,
    pub(crate) clock: SharedClock,
    /// The token of the regions' internal endpoints.
    pub(crate) token: Option<String>,
    /// Where the ledger is written beside memory.
    pub(crate) file: Option<LedgerFile>,
}

/// A measured run.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) start_ns: u64,
    clock: SharedClock,
    client: HttpClient,
    token: Option<String>,
    regions: Vec<RegionTarget>,
    cast: Arc<Cast>,
    /// Places of the edges that are played here.
    played: Vec<usize>,
    stop: CancellationToken,
    watch: Arc<VisibilityWatch>,
    phase: Mutex<Phase>,
}

/// A run cannot be judged now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error("the run still sends; wait until its state is finished_sending, or stop it")]
    StillSending,
    #[error("the run is being judged already; wait for its findings")]
    AlreadyJudging,
}

impl Run {
    /// Starts the traffic on `tracker`; operations end by themselves, at the latest at their deadline.
    pub(crate) fn start(
        id: String,
        request: RunRequest,
        means: Means,
        tracker: &TaskTracker,
        closing: &CancellationToken,
    ) -> Arc<Self> {
        let Means { client, clock, token, file } = means;
        let names: Vec<String> = request.regions.iter().map(|region| region.name.clone()).collect();
        let cast = Arc::new(Cast::new(
            client.clone(),
            Arc::clone(&clock),
            &request.run_key,
            request.edges,
            &names,
            request.workload.clone(),
            request.seed,
            // The boot clock keeps runs of one seed apart, as it does for the ids of operations.
            Traces { ids: TraceIds::new(request.seed ^ clock.boot_ns()), all: true },
        ));
        let part = request.part;
        let origin = match &part {
            Some(RunPart { start_boot_ns, .. }) => Origin::at(&clock, *start_boot_ns),
            None => Origin::after(&clock, LEAD),
        };
        let played = cast.played(part.as_ref().map(|part| part.edges.as_slice()));
        let start_ns = origin.boot_ns + (request.warm_up_s * 1e9) as u64;
        let population = cast.population();
        let edges = cast.edges().iter().zip(&population.home_of);
        let ledger = Ledger {
            edges: edges.map(|(edge, home)| Edge { name: edge.name.clone(), home: *home }).collect(),
            homes: population.homes.clone(),
            regions: names,
            tag: cast.run().tag(),
            start_ns,
            end_ns: start_ns + (request.duration_s * 1e9) as u64,
            deadline_ns: request.workload.deadline_ms * 1_000_000,
            ..Ledger::default()
        };
        let run = Arc::new(Self {
            id,
            start_ns,
            clock,
            client,
            token,
            regions: request.regions,
            cast: Arc::clone(&cast),
            played: played.clone(),
            stop: closing.child_token(),
            watch: Arc::default(),
            phase: Mutex::new(Phase::Sending),
        });
        let watched = closing.child_token();
        let judges = part.is_none_or(|part| part.judges);
        for region in run.regions.iter().filter(|_| judges) {
            let watch = Arc::clone(&run.watch);
            tracker.spawn(watch.run(run.client.clone(), run.token.clone(), region.clone(), watched.clone()));
        }
        let (out, finished) = mpsc::channel(LEDGER_QUEUE_MAX);
        for edge in played {
            let stream = cast.stream(edge, request.warm_up_s, Some(request.duration_s));
            let (cast, stop) = (Arc::clone(&cast), run.stop.clone());
            tracker.spawn(play_edge(cast, stream, origin, Some(out.clone()), stop, tracker.clone()));
        }
        let recorded = Arc::clone(&run);
        tracker.spawn(async move {
            let ledger = record(ledger, finished, file).await;
            watched.cancel();
            recorded.set(Phase::Sent(Arc::new(ledger)));
        });
        run
    }

    /// Sends no further operation.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether operations or the judgement are under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(*self.lock(), Phase::Sending | Phase::Judging)
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> RunProgress {
        let now_ns = self.clock.boot_ns();
        let state = match *self.lock() {
            Phase::Sending if now_ns < self.start_ns => RunState::Warming,
            Phase::Sending => RunState::Running,
            Phase::Sent(_) => RunState::FinishedSending,
            Phase::Judging => RunState::Judging,
            Phase::Judged(..) => RunState::Done,
        };
        let elapsed_s = (now_ns as f64 - self.start_ns as f64) / 1e9;
        RunProgress { id: self.id.clone(), state, elapsed_s, edges: edges_progress(&self.cast, &self.played, now_ns) }
    }

    /// The findings, once judged.
    pub(crate) fn findings(&self) -> Option<Arc<Findings>> {
        match &*self.lock() {
            Phase::Judged(_, findings) => Some(Arc::clone(findings)),
            Phase::Sending | Phase::Sent(_) | Phase::Judging => None,
        }
    }

    /// The ledger, once every operation has its outcome: for the role that judges the run.
    pub(crate) fn ledger(&self) -> Result<Arc<Ledger>, JudgeError> {
        match &*self.lock() {
            Phase::Sending => Err(JudgeError::StillSending),
            Phase::Judging => Err(JudgeError::AlreadyJudging),
            Phase::Sent(ledger) | Phase::Judged(ledger, _) => Ok(Arc::clone(ledger)),
        }
    }

    /// Takes the ledger for a judgement; [`Run::judge`] must follow.
    pub(crate) fn begin_judging(&self) -> Result<Arc<Ledger>, JudgeError> {
        let mut phase = self.lock();
        let ledger = match &*phase {
            Phase::Sending => return Err(JudgeError::StillSending),
            Phase::Judging => return Err(JudgeError::AlreadyJudging),
            Phase::Sent(ledger) | Phase::Judged(ledger, _) => Arc::clone(ledger),
        };
        *phase = Phase::Judging;
        Ok(ledger)
    }

    /// Gathers the evidence and judges.
    pub(crate) async fn judge(&self, ledger: Arc<Ledger>, circumstances: JudgeRequest) -> Arc<Findings> {
        let down = &circumstances.regions_expected_down;
        let last_mode = circumstances.modes.iter().max_by_key(|span| span.boot_ns).map(|span| span.mode);
        let subject = Subject {
            client: self.client.clone(),
            clock: Arc::clone(&self.clock),
            token: self.token.clone(),
            regions: self.regions.iter().filter(|region| !down.contains(&region.name)).cloned().collect(),
            run: self.cast.run().clone(),
            mode: last_mode.unwrap_or(circumstances.start_mode),
            settle: Duration::from_secs_f64(circumstances.settle_s.clamp(0.0, 3600.0)),
            watch: Arc::clone(&self.watch),
        };
        let judged = match self.join(&ledger, &circumstances.others).await {
            Ok(joined) => joined,
            Err(reason) => {
                let findings = Arc::new(Findings { invalid: vec![reason], ..Findings::default() });
                self.set(Phase::Judged(ledger, Arc::clone(&findings)));
                return findings;
            }
        };
        let evidence = gather(&subject, &judged).await;
        // Seconds of pure computation for a large ledger: not on a thread that serves requests.
        let findings = tokio::task::spawn_blocking(move || judge(&judged, &evidence, &circumstances)).await;
        let findings = Arc::new(findings.unwrap_or_else(|error| Findings {
            invalid: vec![format!("the oracle failed: {error}; this is a defect, please report it")],
            ..Findings::default()
        }));
        self.set(Phase::Judged(ledger, Arc::clone(&findings)));
        findings
    }

    /// The ledger of all roles that played a part of the run.
    async fn join(&self, own: &Arc<Ledger>, others: &[String]) -> Result<Arc<Ledger>, String> {
        if others.is_empty() {
            return Ok(Arc::clone(own));
        }
        let fetched = others.iter().map(|address| fetch(&self.client, self.token.as_deref(), address, &self.id));
        let mut all = Ledger::clone(own);
        for pages in try_join_all(fetched).await? {
            all.join(&pages);
        }
        Ok(Arc::new(all))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.lock() = phase;
    }
}

/// The counters of the edges that are played here.
pub(crate) fn edges_progress(
    cast: &Cast,
    played: &[usize],
    now_ns: u64,
) -> BTreeMap<String, longhaul_http::wire::traffic::EdgeProgress> {
    let (edges, live) = (cast.edges(), cast.live());
    played.iter().map(|place| (edges[*place].name.clone(), live[*place].progress(now_ns))).collect()
}

/// Writes every finished operation into the ledger, and into its file if there is one.
async fn record(mut ledger: Ledger, mut finished: mpsc::Receiver<Finished>, file: Option<LedgerFile>) -> Ledger {
    let mut file = file;
    let mut batch = Vec::with_capacity(BATCH);
    while finished.recv_many(&mut batch, BATCH).await > 0 {
        let first = ledger.entries.len();
        for (key, mut entry) in batch.drain(..) {
            entry.key = ledger.intern(key);
            ledger.entries.push(entry);
        }
        if let Some(open) = &mut file
            && let Err(error) = open.append(&ledger, &ledger.entries[first..]).await
        {
            tracing::error!(%error, path = %open.path().display(), "the ledger's file cannot be written; the run goes on in memory");
            file = None;
        }
    }
    ledger
}
