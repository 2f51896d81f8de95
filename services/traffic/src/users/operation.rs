//! One operation from its first attempt to its outcome.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::operation::TraceContext;
use longhaul_core::version::Version;
use longhaul_http::trace::{self, Text};
use longhaul_http::wire::records::{CONSISTENCY, IDEMPOTENCY_KEY, SESSION, record_path};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::answer::{Answer, Attempt, read_answer};
use super::play::Cast;
use super::session::Session;
use crate::ledger::{Entry, Outcome};
use crate::value::{Observed, Value, inspect};
use crate::workload::{Kind, PlannedOperation};

/// Most attempts of one operation.
pub(super) const ATTEMPTS_MAX: u8 = 4;
/// Pause before the second attempt; it doubles with each further one, and half of it is drawn at random.
const BACKOFF: Duration = Duration::from_millis(100);

/// A body that was sent and may have arrived: only this very request may be sent under the same id again.
struct SentWrite {
    body: Bytes,
    if_match: Option<Condition>,
}

#[derive(Clone)]
enum Condition {
    Match(Version),
    Absent,
}

/// An operation under way.
pub(super) struct Performance<'a> {
    cast: &'a Cast,
    session: &'a Session,
    planned: &'a PlannedOperation,
    home: &'a str,
    path: String,
    address: &'a str,
    deadline_ns: u64,
    token: Option<String>,
    sent: Option<SentWrite>,
    entry: Entry,
    trace: TraceContext,
    /// Somebody on the way recorded something of it although its trace was not chosen.
    kept: bool,
}

/// Plays one operation; `intended_ns` is its intended start.
pub(super) async fn perform(cast: &Cast, planned: &PlannedOperation, intended_ns: u64) -> Entry {
    let session = &cast.sessions[usize::from(planned.edge)][usize::from(planned.session)];
    let carried = session.carried();
    let home = &cast.population.homes[usize::from(planned.key.home)];
    let mut entry = cast.blank(planned, intended_ns);
    let trace = cast.traces.draw();
    entry.trace = Some(trace);
    entry.parent = carried.as_ref().map(|carried| carried.from);
    Performance {
        cast,
        session,
        planned,
        home,
        path: record_path(home, &planned.key.record_id(&cast.tag)),
        address: &cast.edges[usize::from(planned.edge)].gateway,
        deadline_ns: intended_ns + cast.workload.deadline_ms * 1_000_000,
        token: carried.map(|carried| carried.token),
        sent: None,
        entry,
        trace,
        kept: false,
    }
    .run()
    .await
}

impl Performance<'_> {
    async fn run(mut self) -> Entry {
        let mut rng = SmallRng::seed_from_u64(self.cast.seed ^ u64::from(self.planned.n));
        let mut unknown = false;
        let mut outcome = Outcome::Failed;
        while self.entry.attempts < ATTEMPTS_MAX {
            if self.remaining().is_zero() {
                break;
            }
            self.entry.attempts += 1;
            let backoff = BACKOFF * (1 << (self.entry.attempts - 1));
            let mut pause = backoff / 2 + backoff.mul_f64(rng.random::<f64>() / 2.0);
            match self.attempt().await {
                Attempt::Answered(answer) => {
                    // A delete that finds nothing says nothing about an earlier attempt: whoever answers may not have
                    // what that one did, and may never get it.
                    let of_this_attempt = !self.planned.kind.writes() || answer.version.is_some() || !unknown;
                    self.accept(answer);
                    if of_this_attempt {
                        outcome = Outcome::Ok;
                    }
                    break;
                }
                Attempt::Refused { code: Some(ErrorCode::PreconditionFailed), kept, .. } => {
                    self.note(Some(ErrorCode::PreconditionFailed), kept);
                    // An answer to what was asked, unless an earlier attempt is what made the condition fail.
                    if !unknown {
                        outcome = Outcome::Ok;
                    }
                    break;
                }
                Attempt::Refused { code, retryable, after_ms, kept } => {
                    self.note(code, kept);
                    let token_refused = matches!(code, Some(ErrorCode::HistoryTruncated | ErrorCode::BadToken));
                    if token_refused && let Some(token) = self.token.take() {
                        self.session.refused(&token);
                        self.entry.parent = None;
                        continue;
                    }
                    if !retryable {
                        break;
                    }
                    if let Some(after_ms) = after_ms {
                        pause = pause.max(Duration::from_millis(after_ms));
                    }
                }
                Attempt::Unknown { code, kept } => {
                    self.note(code, kept);
                    // An append that could not even read has sent no write.
                    unknown |= !self.planned.kind.writes() || self.sent.is_some();
                }
            }
            if pause >= self.remaining() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        self.entry.outcome = if outcome == Outcome::Failed && unknown { Outcome::Unknown } else { outcome };
        self.entry.ended_ns = self.cast.clock.boot_ns();
        self.record();
        self.entry
    }

    /// The root of the operation's trace, from its intended start: what its user waited for.
    fn record(&self) {
        let entry = &self.entry;
        let chosen = trace::records(self.trace);
        let matters = || {
            let took_ns = entry.ended_ns.saturating_sub(entry.intended_ns);
            trace::policy::is_slow_ns(took_ns) || self.kept || entry.outcome != Outcome::Ok
        };
        if !(chosen || trace::policy::is_recording() && matters()) {
            return;
        }
        let outcome = match entry.outcome {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        };
        let region = entry.region.and_then(|index| self.cast.region_name(index));
        tracing::debug_span!(
            "user.operation",
            otel.name = if entry.kind.writes() { "user write" } else { "user read" },
            otel.kind = "client",
            // Unknown is no error: it may well have taken effect.
            otel.status_code = (entry.outcome == Outcome::Failed).then_some("ERROR"),
            longhaul.context = %Text(trace::kept(self.trace)),
            longhaul.from_ns = entry.intended_ns,
            longhaul.to_ns = entry.ended_ns,
            longhaul.late = (!chosen).then_some(true),
            longhaul.edge = self.cast.edges[usize::from(entry.edge)].name,
            longhaul.home = self.home,
            longhaul.region = region,
            longhaul.epoch = (entry.epoch > 0).then_some(entry.epoch),
            longhaul.outcome = outcome,
            longhaul.attempts = entry.attempts,
            longhaul.code = entry.code.map(ErrorCode::as_str),
        );
    }

    fn note(&mut self, code: Option<ErrorCode>, kept: bool) {
        self.entry.code = code;
        self.kept |= kept;
    }

    fn remaining(&self) -> Duration {
        Duration::from_nanos(self.deadline_ns.saturating_sub(self.cast.clock.boot_ns()))
    }

    fn accept(&mut self, answer: Answer) {
        self.kept |= answer.kept;
        let entry = &mut self.entry;
        entry.code = None;
        entry.epoch = answer.epoch;
        entry.region = answer.region.and_then(|name| self.cast.region_index(&name));
        entry.version = answer.version;
        entry.dot = answer.dot;
        if entry.kind == Kind::Read {
            entry.observed = match &answer.value {
                None => Observed::Absent,
                Some(value) => inspect(&self.cast.run, self.home, value).0,
            };
        }
        if let Some(token) = answer.token {
            self.session.answered(entry.n, token);
        }
    }

    async fn attempt(&mut self) -> Attempt {
        match self.planned.kind {
            Kind::Read => self.get().await,
            Kind::Delete => {
                self.sent.get_or_insert(SentWrite { body: Bytes::new(), if_match: None });
                self.write(Method::DELETE).await
            }
            Kind::Put | Kind::Insert => {
                if self.sent.is_none() {
                    let body = self.value(None);
                    self.sent = Some(SentWrite { body, if_match: None });
                }
                self.write(Method::PUT).await
            }
            Kind::Append => {
                if self.sent.is_none() {
                    match self.get().await {
                        Attempt::Answered(answer) => self.build_on(&answer),
                        other => return other,
                    }
                }
                let attempt = self.write(Method::PUT).await;
                if let Attempt::Refused { .. } = attempt
                    && self.entry.outcome != Outcome::Unknown
                {
                    // It left no trace, so the next attempt may build on a fresher list.
                    self.sent = None;
                }
                attempt
            }
        }
    }

    /// Prepares the write of an append from the list that was read.
    fn build_on(&mut self, answer: &Answer) {
        let read = answer.value.as_ref().map(|value| inspect(&self.cast.run, self.home, value));
        let mut list = read.and_then(|(_, list)| list).unwrap_or_default();
        list.push(self.planned.n);
        self.entry.base = answer.version;
        if let Some(token) = &answer.token {
            self.token = Some(token.clone());
        }
        let condition = answer.version.map_or(Condition::Absent, Condition::Match);
        let if_match = self.cast.workload.append_if_match.then_some(condition);
        self.sent = Some(SentWrite { body: self.value(Some(list)), if_match });
    }

    fn value(&self, list: Option<Vec<u32>>) -> Bytes {
        let entry = &self.entry;
        let bytes = self.cast.workload.value_bytes;
        Value::new(&self.cast.run, entry.op_id, entry.n, self.home, list, bytes).to_json().into()
    }

    async fn get(&mut self) -> Attempt {
        let mut headers = HeaderMap::new();
        put(&mut headers, CONSISTENCY, self.cast.consistency.as_str());
        self.exchange(Method::GET, headers, Bytes::new()).await
    }

    async fn write(&mut self, method: Method) -> Attempt {
        let Some(sent) = &self.sent else { unreachable!("a write is prepared before it is sent") };
        let mut headers = HeaderMap::new();
        put(&mut headers, IDEMPOTENCY_KEY, &id_text(self.entry.op_id));
        match &sent.if_match {
            Some(Condition::Match(version)) => put(&mut headers, "if-match", &format!("\"{version}\"")),
            Some(Condition::Absent) => put(&mut headers, "if-none-match", "*"),
            None => {}
        }
        if method == Method::PUT {
            put(&mut headers, "content-type", "application/json");
        }
        let body = sent.body.clone();
        if self.entry.write_ns == 0 {
            self.entry.write_ns = self.cast.clock.boot_ns();
        }
        let attempt = self.exchange(method, headers, body).await;
        if matches!(attempt, Attempt::Unknown { .. }) {
            // From now on only this very request may be repeated.
            self.entry.outcome = Outcome::Unknown;
        }
        attempt
    }

    async fn exchange(&mut self, method: Method, mut headers: HeaderMap, body: Bytes) -> Attempt {
        if let Some(token) = &self.token {
            put(&mut headers, SESSION, token);
        }
        trace::inject(&mut headers, self.trace);
        let write = method != Method::GET;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        match self.path.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return refused_here(),
        }
        let remaining = self.remaining();
        if remaining.is_zero() {
            return refused_here();
        }
        if self.entry.sent_ns == 0 {
            self.entry.sent_ns = self.cast.clock.boot_ns();
        }
        let call = self.cast.client.send(self.address, request, remaining).await;
        read_answer(self.address, call, write)
    }
}

/// Nothing was sent.
fn refused_here() -> Attempt {
    Attempt::Refused { code: None, retryable: false, after_ms: None, kept: false }
}

fn id_text(id: Uuid) -> String {
    id.hyphenated().to_string()
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
