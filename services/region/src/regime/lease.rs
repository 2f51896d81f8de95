//! The primary's lease: asked for and renewed at every voter, given back in a planned switchover.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use longhaul_core::ids::{Epoch, RegionId};
use longhaul_core::lease::Lease;
use longhaul_core::regime::{ChangeKind, Regime};
use longhaul_core::register::{Intent, Outcome};
use longhaul_core::transition::{Author, reassert};
use longhaul_core::voter::{LeaseRefusal, Release, VoterReply, VoterRequest};
use tokio::time::MissedTickBehavior;

use super::RegimeRole;

/// The lease that this region holds or asks for, if it is the primary.
#[derive(Default)]
pub(super) struct LeaseHolder {
    inner: Mutex<Option<Lease>>,
    /// Whether an attempt to regain a lost lease is under way.
    regaining: AtomicBool,
}

impl LeaseHolder {
    fn with<T>(&self, run: impl FnOnce(&mut Option<Lease>) -> T) -> T {
        run(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the regime: a lease to ask for as long as this region is the primary, none otherwise.
    fn follow(&self, me: RegionId, regime: &Regime, now_boot_ns: u64) {
        self.with(|lease| {
            if !regime.is_primary(me) {
                *lease = None;
                return;
            }
            match lease {
                Some(lease) => lease.advance(regime.epoch, now_boot_ns),
                None => *lease = Some(Lease::new(me, regime, now_boot_ns)),
            }
        });
    }
}

type Answer = Pin<Box<dyn Future<Output = (RegionId, Option<VoterReply>)> + Send>>;

/// Keeps the lease while this region is the primary.
pub(super) async fn run(role: Arc<RegimeRole>) {
    let region = Arc::clone(&role.region);
    let mut regimes = region.watch_regime();
    let mut tick = tokio::time::interval(Duration::from_millis(region.config.timings.lease_renew_ms));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut answers: FuturesUnordered<Answer> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => {
                region.set_lease_until(0);
                return;
            }
            Some((voter, reply)) = answers.next(), if !answers.is_empty() => on_answer(&role, voter, reply.as_ref()),
            changed = regimes.changed() => {
                if changed.is_err() {
                    return;
                }
                tick.reset_immediately();
            }
            _ = tick.tick() => {
                // Whatever is still open when the next round begins came too late to count for much.
                let waiting_for_slow_voters = answers.len() > 4 * role.genesis.members.len();
                if !waiting_for_slow_voters {
                    ask(&role, &mut answers);
                }
            }
        }
        publish(&role);
    }
}

fn ask(role: &Arc<RegimeRole>, answers: &mut FuturesUnordered<Answer>) {
    let now = role.region.clock.boot_ns();
    role.lease.follow(role.region.id(), &role.region.regime(), now);
    let Some(request) = role.lease.with(|lease| lease.as_ref().and_then(|lease| lease.request(now))) else { return };
    for voter in role.genesis.members.keys().copied() {
        let (role, message) = (Arc::clone(role), VoterRequest::Lease(request));
        answers.push(Box::pin(async move { (voter, role.vote(voter, &message).await) }));
    }
}

/// Publishes until when the lease holds; notes when a new primary holds its first one.
fn publish(role: &RegimeRole) {
    let region = &role.region;
    let now = region.clock.boot_ns();
    let regime = region.regime();
    let had = region.lease_valid();
    // Under the lock, so that a lease that is given back at this moment is not published again.
    let until = role.lease.with(|lease| {
        let until = lease.as_ref().filter(|_| regime.is_primary(region.id())).map_or(0, Lease::until_boot_ns);
        region.set_lease_until(until);
        until
    });
    let kind = match regime.change.kind {
        ChangeKind::Failover => "failover",
        ChangeKind::TransitionDone => "switchover",
        _ => return,
    };
    if until > now && !had {
        role.changes.witness(regime.change.id, kind, "activated", regime.change.trace);
    }
}

fn on_answer(role: &Arc<RegimeRole>, voter: RegionId, reply: Option<&VoterReply>) {
    match reply {
        Some(VoterReply::Granted { epoch, sent_boot_ns }) => {
            role.lease.with(|lease| {
                if let Some(lease) = lease {
                    lease.granted(voter, *epoch, *sent_boot_ns);
                }
            });
        }
        Some(VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised })) => regain_aside(role, *promised),
        Some(VoterReply::LeaseRefused(LeaseRefusal::GivenBack { .. })) => {
            regain_aside(role, role.region.regime().epoch.next());
        }
        _ => {}
    }
}

/// Regains beside the loop, so that the other voters' grants go on being renewed meanwhile; one attempt at a time.
fn regain_aside(role: &Arc<RegimeRole>, promised: Epoch) {
    if role.lease.regaining.swap(true, Ordering::AcqRel) {
        return;
    }
    let role = Arc::clone(role);
    role.region.tracker.clone().spawn(async move {
        tokio::select! {
            biased;
            () = role.region.shutdown.cancelled() => {}
            () = regain(&role, promised) => {}
        }
        role.lease.regaining.store(false, Ordering::Release);
    });
}

/// A voter has promised a later epoch than this primary's. Either somebody else leads by now, or an attempt came to
/// nothing: then the primary proposes itself again, under an epoch that the voter accepts.
async fn regain(role: &Arc<RegimeRole>, promised: Epoch) {
    let region = &role.region;
    let before = region.regime();
    if promised <= before.epoch || before.transition.is_some() {
        return;
    }
    let current = match role.change(Intent::Read).await {
        Ok(Outcome::Chosen(current) | Outcome::Stale { current }) => current,
        Ok(_) => return,
        Err(error) => {
            tracing::warn!(%error, "the primary is fenced and cannot read the regime");
            return;
        }
    };
    if !current.is_primary(region.id()) || current.epoch > before.epoch {
        return;
    }
    // Give whoever fenced this primary the time to finish.
    let patience = 2 * region.config.timings.vote_deadline_ms;
    tokio::time::sleep(Duration::from_millis(patience + region.random_below(patience / 2))).await;
    if region.regime().epoch > current.epoch {
        return;
    }
    let author = Author {
        id: region.random_uuid(),
        by: region.id(),
        reason: "the primary goes on: an attempt to replace it came to nothing".to_owned(),
        trace: None,
    };
    let next = reassert(&current, promised, &author);
    if let Err(error) = role.replace(next, current.epoch, None).await {
        tracing::warn!(%error, "the primary cannot go on yet");
    }
}

impl RegimeRole {
    /// Gives the lease back: nothing is acknowledged from here on, and the own voter remembers it.
    pub(super) async fn release_lease(&self) -> Option<Release> {
        // Of the present epoch: the lease's own task may not have seen the last stage yet. It would take the stage for news
        // after the release of the epoch before, ask for a new lease, and the successor would wait for its end.
        self.lease.follow(self.region.id(), &self.region.regime(), self.region.clock.boot_ns());
        let release = self.lease.with(|lease| {
            let release = lease.as_mut().map(Lease::release);
            self.region.set_lease_until(0);
            release
        })?;
        self.voting.handle(&VoterRequest::Release(release)).await.ok()?;
        Some(release)
    }
}
