//! Users who write and read while the regime changes, and the ledger of what they saw.
//!
//! Every operation has an id and a record of its own (but for a few contended records), so that afterwards each one can
//! be looked up: acknowledged ones must be there, refused ones must not, and of unknown ones either may be true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::TRANSITION_DEADLINE;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::net::TokioNet;
use longhaul_http::problem::Problem;
use longhaul_http::wire::status::{DigestView, RememberedOperation};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::steering::named;
use crate::world::{NAMES, World};

/// How often a writer writes.
const WRITE_EVERY: Duration = Duration::from_millis(12);
/// How often a reader reads.
const READ_EVERY: Duration = Duration::from_millis(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(6);
/// How long a user tries again where it is safe to.
const PATIENCE: Duration = Duration::from_secs(6);
/// Pause before a user tries again.
const AGAIN: Duration = Duration::from_millis(10);

/// How an operation ended for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged.
    Acknowledged {
        /// By whom.
        by: usize,
        /// Under which epoch.
        epoch: u64,
        /// The durability that was achieved.
        achieved: String,
    },
    /// A definite failure.
    Refused(ErrorCode),
    /// Nobody knows.
    Unknown(String),
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) op_id: String,
    pub(crate) path: String,
    /// The record's home.
    pub(crate) home: usize,
    /// `None`: a delete.
    pub(crate) value: Option<String>,
    /// Nobody else writes this record.
    own: bool,
    /// What the record is before the operation.
    before: Option<String>,
    pub(crate) outcome: Outcome,
    /// What the user was told before it tried again.
    pub(crate) refusals: Vec<ErrorCode>,
    pub(crate) ended: Instant,
}

impl Entry {
    pub(crate) fn acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Acknowledged { .. })
    }

    /// Who acknowledged it, under which epoch.
    pub(crate) fn by(&self) -> Option<(usize, u64)> {
        match &self.outcome {
            Outcome::Acknowledged { by, epoch, .. } => Some((*by, *epoch)),
            _ => None,
        }
    }
}

/// What all users saw.
#[derive(Default)]
struct Seen {
    entries: Vec<Entry>,
    /// Reads that showed something wrong.
    wrong: Vec<String>,
    reads: u64,
}

/// Every user has a number, so that no two draw the same operation id.
static USERS: AtomicU64 = AtomicU64::new(1);

struct User {
    number: u64,
    n: usize,
    addresses: Vec<String>,
    client: HttpClient,
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    /// Records of this user that nobody has deleted, with a token that has seen them.
    kept: Arc<Mutex<Vec<(String, String, String)>>>,
}

/// Users at work.
pub(crate) struct Traffic {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    tasks: TaskTracker,
}

impl Traffic {
    /// A writer and a reader at every region, each writing records of every home.
    pub(crate) fn start(world: &World) -> Self {
        Self::at(world, 0..world.count())
    }

    /// Users at these regions.
    pub(crate) fn at(world: &World, regions: impl IntoIterator<Item = usize>) -> Self {
        let traffic = Self { stop: CancellationToken::new(), seen: Arc::default(), tasks: TaskTracker::new() };
        for n in regions {
            let kept = Arc::default();
            let user = || User {
                number: USERS.fetch_add(1, Ordering::Relaxed),
                n,
                addresses: world.addresses.clone(),
                client: HttpClient::new(Arc::new(TokioNet)),
                stop: traffic.stop.clone(),
                seen: Arc::clone(&traffic.seen),
                kept: Arc::clone(&kept),
            };
            let (writer, reader) = (user(), user());
            traffic.tasks.spawn(async move { writer.write_on().await });
            traffic.tasks.spawn(async move { reader.read_on().await });
        }
        traffic
    }

    /// Waits until this many more operations are acknowledged.
    pub(crate) async fn flows(&self, world: &World, more: usize) {
        self.flows_where(world, more, |_| true).await;
    }

    /// Waits until this many more operations of a kind are acknowledged.
    pub(crate) async fn flows_where(&self, world: &World, more: usize, of: impl Fn(&Entry) -> bool) {
        let count = || {
            let seen = self.seen.lock().unwrap();
            seen.entries.iter().filter(|entry| entry.acknowledged() && of(entry)).count()
        };
        let wanted = count() + more;
        let enough = || count() >= wanted;
        world.until(|_| std::future::ready(enough()), "traffic flows").await;
    }

    /// Ends it, and gives the ledger.
    pub(crate) async fn end(self) -> Ledger {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut seen = self.seen.lock().unwrap();
        Ledger { entries: std::mem::take(&mut seen.entries), wrong: std::mem::take(&mut seen.wrong), reads: seen.reads }
    }
}

impl User {
    async fn write_on(&self) {
        let mut pace = tokio::time::interval(WRITE_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let homes = self.addresses.len();
        for i in 0_usize.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = pace.tick() => {}
            }
            let op_id = Uuid::from_u64_pair(self.number, i as u64).to_string();
            let home = (self.n + i) % homes;
            let doomed = if i % 6 == 5 { self.take_kept() } else { None };
            let (path, value, own, before) = match doomed {
                Some((path, value)) => (path, None, true, Some(value)),
                None if i % 7 == 3 => (
                    format!("/v1/records/{}/contended-{}", NAMES[home], i % 4),
                    Some(format!("\"{op_id}\"")),
                    false,
                    None,
                ),
                None => (format!("/v1/records/{}/{op_id}", NAMES[home]), Some(format!("\"{op_id}\"")), true, None),
            };
            let home = named(path.split('/').nth(3).unwrap());
            self.operate(Entry {
                op_id,
                path,
                home,
                value,
                own,
                before,
                outcome: Outcome::Unknown(String::new()),
                refusals: Vec::new(),
                ended: Instant::now(),
            })
            .await;
        }
    }

    fn take_kept(&self) -> Option<(String, String)> {
        let mut kept = self.kept.lock().unwrap();
        // The newest stay, for the readers.
        (kept.len() > 20).then(|| kept.remove(0)).map(|(path, value, _)| (path, value))
    }

    /// One operation, tried again while that is safe, where the answers send it.
    async fn operate(&self, mut entry: Entry) {
        let give_up = Instant::now() + PATIENCE;
        let mut ask = self.n;
        loop {
            let method = if entry.value.is_some() { Method::PUT } else { Method::DELETE };
            let headers = [("idempotency-key", entry.op_id.as_str())];
            let body = entry.value.clone().unwrap_or_default();
            let again = match self.send(ask, method, &entry.path, &headers, body).await {
                Ok((status, headers, _)) if status.is_success() => {
                    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
                    let epoch = text("longhaul-epoch").parse().unwrap();
                    let achieved = text("longhaul-durability-achieved");
                    entry.outcome = Outcome::Acknowledged { by: ask, epoch, achieved };
                    if let Some(value) = entry.value.clone().filter(|_| entry.own) {
                        self.kept.lock().unwrap().push((entry.path.clone(), value, text("longhaul-session")));
                    }
                    None
                }
                Ok((status, _, body)) => {
                    let problem: Problem =
                        serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no problem: {status} {body:?}"));
                    let hint = problem.primary.as_deref().or(problem.home.as_deref()).map(named);
                    if problem.outcome_unknown {
                        entry.outcome = Outcome::Unknown(problem.detail);
                        None
                    } else if problem.retryable || problem.code == ErrorCode::WrongHome {
                        entry.refusals.push(problem.code);
                        let elsewhere = matches!(problem.code, ErrorCode::NotReady | ErrorCode::NoLease);
                        Some(hint.unwrap_or(if elsewhere { (ask + 1) % self.addresses.len() } else { ask }))
                    } else {
                        entry.outcome = Outcome::Refused(problem.code);
                        None
                    }
                }
                Err(CallError::Unreachable { .. }) => {
                    entry.refusals.push(ErrorCode::NoRegion);
                    Some((ask + 1) % self.addresses.len())
                }
                Err(error) => {
                    entry.outcome = Outcome::Unknown(error.to_string());
                    None
                }
            };
            match again {
                Some(next) if Instant::now() < give_up && !self.stop.is_cancelled() => {
                    if next == ask || entry.refusals.len() > 3 {
                        tokio::time::sleep(AGAIN).await;
                    }
                    ask = next;
                }
                Some(_) => {
                    entry.outcome = Outcome::Refused(*entry.refusals.last().unwrap());
                    break;
                }
                None => break,
            }
        }
        entry.ended = Instant::now();
        self.seen.lock().unwrap().entries.push(entry);
    }

    /// Reads, anywhere, what this user was told is written.
    async fn read_on(&self) {
        let mut pace = tokio::time::interval(READ_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for i in 0_usize.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = pace.tick() => {}
            }
            let newest = self.kept.lock().unwrap().iter().rev().nth(i % 4).cloned();
            let Some((path, value, token)) = newest else { continue };
            let at = i % self.addresses.len();
            let headers = [("longhaul-session", token.as_str()), ("longhaul-consistency", "session")];
            let Ok((status, _, body)) = self.send(at, Method::GET, &path, &headers, String::new()).await else {
                continue;
            };
            let mut seen = self.seen.lock().unwrap();
            seen.reads += u64::from(status.is_success());
            let right = if status.is_success() { body == value.as_bytes() } else { status != StatusCode::NOT_FOUND };
            if !right {
                let text = String::from_utf8_lossy(&body);
                seen.wrong.push(format!("{path} at {} is {status} {text} and not {value}", NAMES[at]));
            }
        }
    }

    async fn send(
        &self,
        at: usize,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Result<(StatusCode, HeaderMap, Bytes), CallError> {
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (parts, body) = self.client.send(&self.addresses[at], request, ANSWER).await?.into_parts();
        Ok((parts.status, parts.headers, body))
    }
}

/// What the users saw, and the judgement of it.
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Entry>,
    pub(crate) wrong: Vec<String>,
    pub(crate) reads: u64,
}

impl Ledger {
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.acknowledged())
    }

    /// The longest time in which no operation of this kind was acknowledged is shorter than a transition may take. By how
    /// much, the simulation judges (`tests/sim/drills.rs`): there the machine adds nothing.
    #[track_caller]
    pub(crate) fn resumed_in_time(&self, of: impl Fn(&Entry) -> bool) {
        let mut ends: Vec<Instant> = self.acknowledged().filter(|entry| of(entry)).map(|entry| entry.ended).collect();
        ends.sort_unstable();
        let pause = ends.windows(2).map(|pair| pair[1] - pair[0]).max().expect("operations were acknowledged");
        assert!(pause < TRANSITION_DEADLINE, "acknowledgements paused for {pause:?}");
    }

    /// What users were told before they tried again, or in the end, and how often.
    pub(crate) fn refusals(&self) -> BTreeMap<ErrorCode, usize> {
        let mut refusals = BTreeMap::new();
        for entry in &self.entries {
            let last = match entry.outcome {
                Outcome::Refused(code) => Some(code),
                _ => None,
            };
            let told = entry.refusals.iter().copied().chain(last.filter(|last| entry.refusals.last() != Some(last)));
            told.for_each(|code| *refusals.entry(code).or_default() += 1);
        }
        refusals
    }

    /// Nobody was told anything but these, and nothing is unknown.
    #[track_caller]
    pub(crate) fn only_refused_with(&self, allowed: &[ErrorCode]) {
        let refusals = self.refusals();
        let beyond: Vec<_> = refusals.iter().filter(|(code, _)| !allowed.contains(code)).collect();
        assert!(beyond.is_empty(), "refused with {refusals:?}, not only with {allowed:?}");
        let unknown = self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Unknown(_)));
        let unknown: Vec<_> = unknown.map(|entry| &entry.outcome).collect();
        assert!(unknown.is_empty(), "unknown outcomes: {unknown:?}");
    }

    /// No reader saw less than its own writes.
    #[track_caller]
    pub(crate) fn reads_were_right(&self) {
        assert!(self.wrong.is_empty(), "{} wrong reads, first {}", self.wrong.len(), self.wrong[0]);
        assert!(self.reads > 0, "somebody read something");
    }

    /// Waits until all regions hold the same, and checks that every one shows what the users were told.
    pub(crate) async fn holds_everywhere(&self, world: &World) {
        world
            .until(
                |w| async move {
                    let mut views = Vec::new();
                    for n in 0..w.count() {
                        views.push(digest(w, n).await.map(|view| view.homes));
                    }
                    views[0].is_some() && views.iter().all(|view| *view == views[0])
                },
                "equal digests",
            )
            .await;
        for n in 0..world.count() {
            self.shown_at(world, n, |_| true).await;
        }
        self.in_history(world).await;
    }

    /// Checks that every home shows what the users were told of its records, once the purge is over.
    pub(crate) async fn holds_at_home(&self, world: &World) {
        for n in 0..world.count() {
            world
                .until(
                    |w| async move { digest(w, n).await.is_some_and(|view| view.rows.keys().all(|home| home == NAMES[n])) },
                    "only the home's records are left",
                )
                .await;
            self.shown_at(world, n, |entry| entry.home == n).await;
        }
        self.in_history(world).await;
    }

    async fn shown_at(&self, world: &World, n: usize, of: impl Fn(&Entry) -> bool) {
        let mut final_states: BTreeMap<&str, (Vec<Option<&str>>, &Entry)> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.own && of(entry)) {
            let (after, before) = (entry.value.as_deref(), entry.before.as_deref());
            let possible = match entry.outcome {
                Outcome::Acknowledged { .. } => vec![after],
                Outcome::Refused(_) => vec![before],
                Outcome::Unknown(_) => vec![after, before],
            };
            // A later operation on the same record: the delete that follows its acknowledged write.
            final_states.insert(&entry.path, (possible, entry));
        }
        for (path, (possible, entry)) in final_states {
            let answer = world.get(n, path, &[]).await;
            let shown = match answer.status {
                StatusCode::OK => Some(String::from_utf8(answer.body.to_vec()).unwrap()),
                StatusCode::NOT_FOUND => None,
                status => panic!("{path} at {}: {status} {:?}", NAMES[n], answer.body),
            };
            assert!(
                possible.contains(&shown.as_deref()),
                "{path} at {} is {shown:?} and not one of {possible:?}: {entry:?}",
                NAMES[n]
            );
        }
    }

    /// Every acknowledged operation is remembered somewhere, and no refused one is anywhere.
    async fn in_history(&self, world: &World) {
        let mut known = BTreeSet::new();
        for n in 0..world.count() {
            known.extend(operations(world, n).await);
            let status = world.status(n).await.unwrap();
            assert_eq!(status.divergence_alarms, 0, "{status:?}");
            assert_eq!(world.metric(n, "born_dead_total").await, 0);
        }
        for entry in &self.entries {
            match entry.outcome {
                Outcome::Acknowledged { .. } => assert!(known.contains(&entry.op_id), "lost: {entry:?}"),
                Outcome::Refused(_) => assert!(!known.contains(&entry.op_id), "took effect: {entry:?}"),
                Outcome::Unknown(_) => {}
            }
        }
    }
}

/// What a region holds; `None` while it is written.
pub(crate) async fn digest(world: &World, n: usize) -> Option<DigestView> {
    let answer = world.get(n, "/internal/v1/digest", &[]).await;
    answer.status.is_success().then(|| serde_json::from_slice(&answer.body).unwrap())
}

/// The ids of every operation that a region remembers.
pub(crate) async fn operations(world: &World, n: usize) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let mut after = String::new();
    loop {
        let path = format!("/internal/v1/operations?limit=10000{after}");
        let page: Vec<RememberedOperation> = serde_json::from_slice(&world.get(n, &path, &[]).await.ok().body).unwrap();
        let Some(last) = page.last() else { return known };
        after = format!("&after={}", last.op_id);
        known.extend(page.into_iter().map(|row| row.op_id));
    }
}
