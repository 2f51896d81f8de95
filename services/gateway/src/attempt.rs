//! One attempt at one region, and the two ways in which reads and writes differ: a read may be hedged, and a write is
//! waited for until its region stops answering or another one takes over.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_core::limits::SESSION_WAIT;
use longhaul_core::operation::TraceContext;
use longhaul_core::routing::{Access, Consistency, Writer, writer};
use longhaul_http::client::CallError;
use longhaul_http::problem::Problem;
use longhaul_http::trace::{self, policy};
use longhaul_http::wire::records::EPOCH;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::exchange::Exchange;
use crate::gateway::Gateway;
use crate::region::{Full, Region};
use crate::retry::{self, Next};

/// An attempt that did not serve the request.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Where; absent if no region was asked.
    pub(crate) region: Option<Arc<Region>>,
    /// What it means. Without an answer: `no_region` (nothing was sent), `upstream_timeout`, `upstream_broken`.
    pub(crate) code: ErrorCode,
    /// One line for people.
    pub(crate) detail: String,
    /// The epoch under which the region answered, if it said so.
    pub(crate) epoch: Option<u64>,
    /// The region's own answer.
    pub(crate) answer: Option<Box<Response<Bytes>>>,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Failed {
    fn new(region: &Arc<Region>, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { region: Some(region.clone()), code, detail: detail.into(), epoch: None, answer: None }
    }

    /// Whether the operation may have taken effect.
    pub(crate) fn effect(&self) -> Effect {
        self.code.effect()
    }
}

/// What came of an attempt.
pub(crate) type Outcome = Result<Response<Bytes>, Failed>;

impl Gateway {
    /// Sends the request to a region and waits at most `limit`.
    pub(crate) async fn attempt(&self, exchange: &Exchange, region: &Arc<Region>, limit: Duration) -> Outcome {
        let context = self.ids.child(exchange.trace);
        let begun = Instant::now();
        let resent = exchange.sent.fetch_add(1, Ordering::Relaxed);
        let recorded = trace::records(context);
        let span = if recorded { attempt_span(exchange, region, context, None, resent) } else { tracing::Span::none() };
        let outcome = async {
            let start = Instant::now();
            let permit = match region.admit(start, self.config.balancing, self.random(), exchange.uri.path()) {
                Ok(permit) => permit,
                Err(Full::Busy) => {
                    self.counters.shed.add();
                    let detail = format!("{} has as many requests under way as it copes with", region.name);
                    return Err(Failed::new(region, ErrorCode::Overloaded, detail));
                }
                Err(Full::Broken) => {
                    let detail = format!("the circuit breaker of {} is open", region.name);
                    return Err(Failed::new(region, ErrorCode::NoRegion, detail));
                }
            };
            self.counters.attempts.add();
            let sent = self.client.send(permit.address(), exchange.attempt(context, limit), limit).await;
            let now = Instant::now();
            let outcome = self.understood(region, sent);
            let turn = match &outcome {
                Err(failed) if failed.code == ErrorCode::Overloaded => permit.overloaded(now),
                Ok(_) | Err(Failed { answer: Some(_), .. }) => {
                    let sample = exchange.access == Access::Read(Consistency::Eventual);
                    permit.answered(now, sample.then(|| now.duration_since(start)))
                }
                // A wait that was short because the user's time was up says nothing about the region, be it for an answer
                // or for a connection.
                Err(_) if now.duration_since(start) >= limit && limit < region.attempt_timeout() => return outcome,
                Err(failed) if failed.code == ErrorCode::UpstreamTimeout => {
                    permit.timed_out(now);
                    return outcome;
                }
                Err(_) => permit.broke(now),
            };
            self.turned(region, turn);
            outcome
        }
        .instrument(span.clone())
        .await;
        region.durations.record(begun.elapsed());
        if recorded {
            tell(&span, &outcome);
        } else if matters(&outcome, begun.elapsed()) {
            let parent = Some(trace::kept(exchange.trace));
            let span = attempt_span(exchange, region, trace::kept(context), parent, resent);
            span.record("longhaul.lasted_ns", begun.elapsed().as_nanos() as u64);
            span.record("longhaul.late", true);
            tell(&span, &outcome);
            exchange.kept.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Reads what the region said, and under which epoch.
    fn understood(&self, region: &Arc<Region>, sent: Result<Response<Bytes>, CallError>) -> Outcome {
        let answer = sent.map_err(|error| Failed::new(region, error.code(), error.to_string()))?;
        let header = answer.headers().get(EPOCH).and_then(|value| value.to_str().ok()?.parse().ok());
        if answer.status().as_u16() < 400 {
            self.learn(region, header.unwrap_or(0));
            return Ok(answer);
        }
        let Ok(problem) = serde_json::from_slice::<Problem>(answer.body()) else {
            let status = answer.status();
            let detail = format!("{} answered {status} without a problem document", region.name);
            return Err(Failed::new(region, ErrorCode::UpstreamBroken, detail));
        };
        let epoch = problem.epoch.max(header);
        self.learn(region, epoch.unwrap_or(0));
        Err(Failed {
            region: Some(region.clone()),
            code: problem.code,
            detail: problem.detail,
            epoch,
            answer: Some(Box::new(answer)),
        })
    }

    /// An attempt to write: waits until the user's time is up, the region stops answering, or another region has become
    /// the writer and this one has had time to tell how the write ended.
    pub(crate) async fn attempt_write(&self, exchange: &Exchange, region: &Arc<Region>) -> Outcome {
        let sending = self.attempt(exchange, region, exchange.left(Instant::now()));
        tokio::select! {
            biased;
            outcome = sending => outcome,
            why = self.gone(exchange, region) => {
                self.counters.abandoned.add();
                Err(Failed::new(region, ErrorCode::UpstreamTimeout, why))
            }
        }
    }

    async fn gone(&self, exchange: &Exchange, region: &Region) -> String {
        let mut changes = self.view.watch();
        loop {
            changes.borrow_and_update();
            if !region.is_up() {
                return format!("{} stopped answering while the write was under way", region.name);
            }
            let now = self.view.current().map(|regime| writer(&regime, exchange.home));
            if let Some(Writer::One(other)) = now
                && other != region.id
            {
                tokio::time::sleep(region.attempt_timeout()).await;
                return format!(
                    "{} took over from {} while the write was under way",
                    self.view.name(other),
                    region.name
                );
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// An attempt to read, hedged: if the first region takes longer than it nearly always does, a second one is asked,
    /// and the first good answer wins. Tells which regions were asked, the one whose outcome it is first.
    pub(crate) async fn attempt_read(
        &self,
        exchange: &Exchange,
        first: &Arc<Region>,
        second: Option<&Arc<Region>>,
    ) -> (Outcome, Vec<Arc<Region>>) {
        let limit = |region: &Region| {
            // A read of a session may wait at the region for what the session has seen.
            let wait =
                if exchange.access == Access::Read(Consistency::Session) { SESSION_WAIT } else { Duration::ZERO };
            (region.attempt_timeout() + wait).min(exchange.left(Instant::now()))
        };
        let mut one = pin!(self.attempt(exchange, first, limit(first)));
        let hedges = self.config.hedging.enabled && exchange.access == Access::Read(Consistency::Eventual);
        let Some((second, p95)) = second.zip(first.read_p95()).filter(|_| hedges) else {
            return (one.await, vec![first.clone()]);
        };
        tokio::select! {
            biased;
            outcome = &mut one => return (outcome, vec![first.clone()]),
            () = tokio::time::sleep(p95.max(self.config.hedging.floor())) => {}
        }
        if !self.budget.withdraw() {
            return (one.await, vec![first.clone()]);
        }
        self.counters.hedges.add();
        let two = pin!(self.attempt(exchange, second, limit(second)));
        let (outcome, by_second) = first_good(one, two).await;
        if !by_second {
            return (outcome, vec![first.clone(), second.clone()]);
        }
        if is_good(&outcome) {
            self.counters.hedge_wins.add();
        }
        (outcome, vec![second.clone(), first.clone()])
    }
}

/// The client span of an attempt, by the conventions for HTTP.
fn attempt_span(
    exchange: &Exchange,
    region: &Region,
    context: TraceContext,
    parent: Option<TraceContext>,
    resent: u32,
) -> tracing::Span {
    tracing::debug_span!(
        "gateway.attempt",
        otel.name = %exchange.method,
        otel.kind = "client",
        longhaul.context = %trace::Text(context),
        longhaul.parent = parent.map(trace::Text).map(tracing::field::display),
        longhaul.lasted_ns = Empty,
        longhaul.late = Empty,
        longhaul.region = region.name,
        longhaul.code = Empty,
        http.request.method = %exchange.method,
        http.request.resend_count = (resent > 0).then_some(resent),
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

fn tell(span: &tracing::Span, outcome: &Outcome) {
    match outcome {
        Ok(answer) => {
            span.record("http.response.status_code", answer.status().as_u16());
        }
        Err(failed) => {
            span.record("longhaul.code", failed.code.as_str());
            match &failed.answer {
                Some(answer) => span.record("http.response.status_code", answer.status().as_u16()),
                None => span.record("otel.status_code", "ERROR"),
            };
            span.record("error.type", failed.code.as_str());
        }
    }
}

/// Whether an attempt is worth a span although its trace was not chosen: it failed, was slow, or its region kept it.
fn matters(outcome: &Outcome, took: Duration) -> bool {
    if !policy::is_recording() {
        return false;
    }
    let kept = |answer: &Response<Bytes>| {
        trace::extract(answer.headers()).is_some_and(|context| context.flags & trace::SAMPLED != 0)
    };
    policy::is_slow(took)
        || match outcome {
            Ok(answer) => kept(answer),
            Err(failed) => failed.code.status() >= 500 || failed.answer.as_deref().is_some_and(kept),
        }
}

/// The first good outcome of two, and whether it is the second's; if neither is good, that of the one that ended last.
async fn first_good(
    mut one: impl Future<Output = Outcome> + Unpin,
    mut two: impl Future<Output = Outcome> + Unpin,
) -> (Outcome, bool) {
    tokio::select! {
        biased;
        outcome = &mut one => {
            if is_good(&outcome) { (outcome, false) } else { (two.await, true) }
        }
        outcome = &mut two => {
            if is_good(&outcome) { (outcome, true) } else { (one.await, false) }
        }
    }
}

/// Whether nothing better can be had elsewhere: it was served, or the answer is final.
fn is_good(outcome: &Outcome) -> bool {
    match outcome {
        Ok(_) => true,
        Err(failed) => retry::next(Access::Read(Consistency::Eventual), failed.code, false) == Next::Answer,
    }
}
