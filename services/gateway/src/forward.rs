//! Forwarding: routes a request, tries, waits and tries again until it is served, finally refused, or out of time.
//!
//! **Invariant: an unknown outcome stays unknown.** After an attempt to write whose outcome is unknown, the answer is a
//! success of the same operation or an unknown code; a later refusal counts only if it proves that the operation cannot
//! have been accepted anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_core::ids::{Epoch, RegionId};
use longhaul_core::limits::{GATEWAY_HOLD, GATEWAY_POLL_INTERVAL};
use longhaul_core::regime::Regime;
use longhaul_core::routing::{self, Refusal};
use longhaul_http::problem::Problem;
use longhaul_http::trace;
use longhaul_http::watch;
use longhaul_http::wire::records::{ATTEMPTS, REGION};
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::{Failed, Outcome};
use crate::exchange::{Exchange, passed_on};
use crate::gateway::Gateway;
use crate::region::Region;
use crate::retry::{self, Backoff, Next, Unknown};

/// First pause before another attempt, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// How long a request waits for a region to come back where no failover can help: one poll and a spare.
const SHORT_HOLD: Duration = GATEWAY_POLL_INTERVAL.saturating_mul(2);

/// How far a request has come.
struct Progress {
    attempts: u32,
    tried: BTreeSet<RegionId>,
    unknown: Option<Unknown>,
    held: Duration,
    backoff: Backoff,
    /// A newer regime is known to exist and will be here within this time.
    fetching: Option<Duration>,
    /// The epoch of the last attempt and whether that attempt has to be paid for if it is repeated under it.
    last: Option<(Epoch, bool)>,
}

/// Where to go next.
enum Route {
    Go(Arc<Regime>, Vec<Arc<Region>>),
    Wait(Failed, Duration),
    Refuse(Failed),
}

impl Gateway {
    /// Forwards a request and gives the user's answer.
    pub(crate) async fn forward(&self, exchange: &Exchange) -> Response<Bytes> {
        self.counters.requests.add();
        self.budget.deposit();
        let mut changes = self.view.watch();
        let mut progress = Progress {
            attempts: 0,
            tried: BTreeSet::new(),
            unknown: None,
            held: Duration::ZERO,
            backoff: Backoff::new(PAUSE.0, PAUSE.1),
            fetching: None,
            last: None,
        };
        loop {
            changes.borrow_and_update();
            let (regime, order) = match self.route(exchange, &progress) {
                Route::Go(regime, order) => (regime, order),
                Route::Refuse(failed) => return self.failed(exchange, &progress, failed),
                Route::Wait(failed, limit) => {
                    progress.tried.clear();
                    if self.hold(exchange, &mut progress, &mut changes, limit).await {
                        continue;
                    }
                    return self.failed(exchange, &progress, failed);
                }
            };
            let (outcome, region) = self.try_next(exchange, &mut progress, &regime, &order).await;
            let failed = match outcome {
                Ok(answer) => return self.served(&progress, &region, answer),
                Err(failed) => failed,
            };
            if exchange.access.is_write() && failed.effect() == Effect::Unknown {
                progress.unknown = Some(Unknown {
                    region: region.id,
                    mode: regime.mode,
                    code: failed.code,
                    detail: failed.detail.clone(),
                });
            }
            let newer = failed.epoch.is_some_and(|epoch| epoch > regime.epoch.0);
            let next = retry::next(exchange.access, failed.code, newer);
            progress.last = Some((regime.epoch, next != Next::Hold && failed.code != ErrorCode::NotCaughtUp));
            let others = order.iter().any(|region| !progress.tried.contains(&region.id));
            let go_on = match next {
                Next::Answer => false,
                Next::Elsewhere if others => true,
                // Every region that may serve has said that it is behind; a pause of ours is not what it takes.
                Next::Elsewhere if failed.code == ErrorCode::NotCaughtUp => false,
                Next::Elsewhere | Next::Again | Next::Hold => {
                    progress.tried.clear();
                    // A newer regime is being fetched; asking again by the old one would lead nowhere.
                    progress.fetching = newer.then(|| region.attempt_timeout());
                    self.hold(exchange, &mut progress, &mut changes, GATEWAY_HOLD).await
                }
            };
            if !go_on || exchange.left(Instant::now()).is_zero() || !self.affords_another(&progress) {
                return self.failed(exchange, &progress, failed);
            }
        }
    }

    /// The regions to ask now, best first, without those tried in this round.
    fn route(&self, exchange: &Exchange, progress: &Progress) -> Route {
        let Some(regime) = self.view.current() else {
            let why = "this gateway has not learned the regime yet; it asks every region, try again shortly";
            return Route::Wait(nowhere(ErrorCode::NoRegion, why), GATEWAY_HOLD);
        };
        let reach = self.reach(Instant::now());
        match routing::candidates(&regime, self.config.home, exchange.access, exchange.home, &reach) {
            Ok(order) => {
                let may = |region: &RegionId| {
                    let follows = progress.unknown.as_ref().is_none_or(|unknown| unknown.may_follow(*region, &regime));
                    follows && !progress.tried.contains(region)
                };
                let order: Vec<_> = order.into_iter().filter(may).map(|region| self.regions[&region].clone()).collect();
                if order.is_empty() {
                    let why = "no other region may take this operation";
                    return Route::Wait(nowhere(ErrorCode::NoRegion, why), GATEWAY_HOLD);
                }
                Route::Go(regime, order)
            }
            Err(refusal) => {
                let failed = nowhere(refusal.code, self.reason(refusal, exchange));
                match refusal.code {
                    ErrorCode::NoRegion if refusal.region.is_some() || progress.unknown.is_some() => {
                        Route::Wait(failed, GATEWAY_HOLD)
                    }
                    ErrorCode::NoRegion | ErrorCode::HomeUnavailable => Route::Wait(failed, SHORT_HOLD),
                    _ => Route::Refuse(failed),
                }
            }
        }
    }

    async fn try_next(
        &self,
        exchange: &Exchange,
        progress: &mut Progress,
        regime: &Regime,
        order: &[Arc<Region>],
    ) -> (Outcome, Arc<Region>) {
        let first = &order[0];
        tracing::debug!(epoch = regime.epoch.0, region = first.name, "trying");
        if progress.attempts == 0 && trace::records(exchange.trace) {
            let names: Vec<&str> = order.iter().map(|region| region.name.as_str()).collect();
            let span = tracing::Span::current();
            span.record("longhaul.epoch", regime.epoch.0);
            span.record("longhaul.candidates", names.join(","));
        }
        let (outcome, asked) = if exchange.access.is_write() {
            (self.attempt_write(exchange, first).await, vec![first.clone()])
        } else {
            self.attempt_read(exchange, first, order.get(1)).await
        };
        progress.attempts += asked.len() as u32;
        progress.tried.extend(asked.iter().map(|region| region.id));
        let answered = asked.first().unwrap_or(first).clone();
        (outcome, answered)
    }

    /// Waits for a change or a pause; `false` if there is no time left to wait.
    async fn hold(
        &self,
        exchange: &Exchange,
        progress: &mut Progress,
        changes: &mut watch::Receiver<u64>,
        limit: Duration,
    ) -> bool {
        let start = Instant::now();
        let left = exchange.left(start).min(limit.saturating_sub(progress.held));
        if left.is_zero() {
            return false;
        }
        if progress.held.is_zero() {
            self.counters.held.add();
        }
        let _holding = self.holding.enter();
        let pause = progress.backoff.pause(self.random()).max(progress.fetching.take().unwrap_or_default()).min(left);
        let span = if trace::records(exchange.trace) {
            tracing::debug_span!("gateway.hold", longhaul.epoch = self.view.epoch().0)
        } else {
            tracing::Span::none()
        };
        let held = async {
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        };
        held.instrument(span).await;
        progress.held += start.elapsed();
        !exchange.left(Instant::now()).is_zero()
    }

    /// Whether another attempt is free (the region asked for it, or the regime is a newer one) or can be paid.
    fn affords_another(&self, progress: &Progress) -> bool {
        let Some((epoch, paid)) = progress.last else { return true };
        if !paid || self.view.epoch() > epoch {
            return true;
        }
        let affordable = self.budget.withdraw();
        if affordable {
            self.counters.retries.add();
        } else {
            self.counters.retries_denied.add();
        }
        affordable
    }

    fn reason(&self, refusal: Refusal, exchange: &Exchange) -> String {
        let named = |region: Option<RegionId>| region.map_or_else(|| "any region".to_owned(), |id| self.view.name(id));
        match refusal.code {
            ErrorCode::WrongHome => format!(
                "the record belongs to {}, and under regional isolation nothing of it may pass this edge; \
                 ask an edge of its home",
                named(refusal.region)
            ),
            ErrorCode::HomeUnavailable => format!(
                "{} does not answer, and under regional isolation no other region may serve its records; \
                 try again when it is back",
                named(refusal.region)
            ),
            ErrorCode::UnknownHome => format!("home {} is no region of this topology", exchange.home),
            _ => format!("{} does not answer; try again, or fail over", named(refusal.region)),
        }
    }

    fn served(&self, progress: &Progress, region: &Region, answer: Response<Bytes>) -> Response<Bytes> {
        self.counters.served.add();
        let mut answer = passed_on(answer);
        stamp(&mut answer, progress.attempts, Some(&region.name));
        answer
    }

    /// The answer to a request that was not served.
    fn failed(&self, exchange: &Exchange, progress: &Progress, failed: Failed) -> Response<Bytes> {
        let region = failed.region.as_ref().map(|region| region.name.clone());
        let unresolved = progress.unknown.as_ref().filter(|_| !retry::refutes_earlier(failed.code));
        let unknown = exchange.access.is_write() && (unresolved.is_some() || failed.effect() == Effect::Unknown);
        if unknown {
            self.counters.unknown.add();
        } else {
            self.counters.refused.add();
        }
        let mut answer = match (failed.answer, unresolved) {
            // The region's own words, unless they would turn an unknown outcome into a failure.
            (Some(answer), None) => passed_on(*answer),
            (Some(answer), Some(_)) if failed.code.effect() == Effect::Unknown => passed_on(*answer),
            (_, Some(unresolved)) => {
                let detail = format!(
                    "the write may or may not have taken effect: {}; send it again with the same Idempotency-Key",
                    unresolved.detail
                );
                self.problem(exchange, Problem::new(unresolved.code, detail), Some(self.view.name(unresolved.region)))
            }
            (None, None) => {
                let mut problem = Problem::new(failed.code, failed.detail);
                // A read has no effect, so nothing about it is unknown.
                problem.outcome_unknown = unknown;
                if failed.code == ErrorCode::WrongHome || failed.code == ErrorCode::HomeUnavailable {
                    problem.home = Some(self.view.name(exchange.home));
                }
                self.problem(exchange, problem, region.clone())
            }
        };
        stamp(&mut answer, progress.attempts, region.as_deref());
        answer
    }

    fn problem(&self, exchange: &Exchange, mut problem: Problem, region: Option<String>) -> Response<Bytes> {
        problem.region = region;
        problem.epoch = Some(self.view.epoch().0);
        problem.trace_id = Some(trace::trace_id_text(exchange.trace));
        problem.primary = self.view.current().and_then(|regime| regime.primary).map(|id| self.view.name(id));
        written(&problem)
    }
}

/// A problem document as an answer.
pub(crate) fn written(problem: &Problem) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(serde_json::to_vec(problem).unwrap_or_default()));
    *answer.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

fn nowhere(code: ErrorCode, detail: impl Into<String>) -> Failed {
    Failed { region: None, code, detail: detail.into(), epoch: None, answer: None }
}

/// Says how many attempts there were and who answered.
fn stamp(answer: &mut Response<Bytes>, attempts: u32, region: Option<&str>) {
    let headers = answer.headers_mut();
    headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    if let Some(region) = region.and_then(|region| HeaderValue::from_str(region).ok())
        && !headers.contains_key(REGION)
    {
        headers.insert(REGION, region);
    }
}
