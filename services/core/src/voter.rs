//! The voter of a region: acceptor of the register, giver of leases, and fence.
//!
//! Durable is [`VoterState`]; the time until which a lease grant holds is not. Whatever a call returns with
//! `persist: true` must be on stable storage **before** the reply leaves.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, RegionId};
use crate::limits;
use crate::regime::{Mode, Regime};
use crate::register::{Accept, Acceptor, Ballot, Prepare, Promise};

/// The holder gives its lease back; it acknowledges nothing more under this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// Its holder.
    pub holder: RegionId,
}

/// The primary asks for its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The epoch of the regime that names it.
    pub epoch: Epoch,
    /// The primary.
    pub holder: RegionId,
    /// When the holder sent this, on the holder's boot clock; comes back in the answer.
    pub sent_boot_ns: u64,
}

/// What is asked of a voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterRequest {
    /// First phase of a register change.
    Prepare(Prepare),
    /// Second phase of a register change.
    Accept(Box<Accept>),
    /// A lease, or its renewal.
    Lease(LeaseRequest),
    /// The end of a lease before its time.
    Release(Release),
}

/// A voter's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterReply {
    /// To [`Prepare`]: promised.
    Promise(Box<Promise>),
    /// To [`Accept`]: accepted.
    Accepted {
        /// The attempt.
        ballot: Ballot,
    },
    /// To [`Prepare`] and [`Accept`]: a higher ballot was promised.
    Nack {
        /// The refused attempt.
        ballot: Ballot,
        /// The promised one.
        promised: Ballot,
    },
    /// To [`Prepare`] and [`Accept`]: a lease that this voter granted is unexpired. No new grant will prolong it; send
    /// the same message again after this many milliseconds.
    Wait {
        /// The attempt.
        ballot: Ballot,
        /// How long the grant still holds, milliseconds, rounded up.
        after_ms: u64,
    },
    /// To [`LeaseRequest`]: granted for [`limits::LEASE`] from now.
    Granted {
        /// The epoch of the lease.
        epoch: Epoch,
        /// Copied from the request.
        sent_boot_ns: u64,
    },
    /// To [`LeaseRequest`]: not granted.
    LeaseRefused(LeaseRefusal),
    /// To [`Release`].
    Released,
}

/// Why a lease is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LeaseRefusal {
    /// The voter has promised a higher epoch. The primary reads the register and, if it is still primary there,
    /// proposes itself again under at least this epoch.
    #[error("the voter has promised epoch {promised}; read the register")]
    Fenced {
        /// The promised epoch.
        promised: Epoch,
    },
    /// Another holder's grant is unexpired.
    #[error("the lease of region {holder} holds for another {after_ms} ms")]
    HeldByAnother {
        /// Who holds it.
        holder: RegionId,
        /// For how long, milliseconds, rounded up.
        after_ms: u64,
    },
    /// The holder gave back its lease of this epoch; it needs a new epoch.
    #[error("the lease of epoch {epoch} was given back; a lease needs a new epoch")]
    GivenBack {
        /// The epoch.
        epoch: Epoch,
    },
}

/// The durable part of a lease grant: to whom, not until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// Who holds it.
    pub holder: RegionId,
    /// Whether the holder gave it back.
    pub released: bool,
}

/// Everything that a voter must not forget.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VoterState {
    /// Its part in the register.
    pub acceptor: Acceptor,
    /// Operations, acknowledgements and leases of older epochs are refused.
    pub promised_epoch: Epoch,
    /// The last lease that it granted.
    pub grant: Option<Grant>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether [`Voter::state`] changed and must be on stable storage before the reply leaves.
    pub persist: bool,
    /// The reply.
    pub reply: VoterReply,
}

/// A region's voter.
#[derive(Debug, Clone)]
pub struct Voter {
    state: VoterState,
    /// Until when the grant holds, on this region's boot clock.
    grant_until_ns: u64,
}

impl Voter {
    /// The voter of a region that starts for the first time, under the genesis regime.
    pub fn new(genesis: &Regime) -> Self {
        let state = VoterState { promised_epoch: genesis.epoch, ..VoterState::default() };
        Self { state, grant_until_ns: 0 }
    }

    /// The voter after a restart. It has forgotten when it granted its last lease, so the grant holds for a full
    /// [`limits::LEASE`] from now.
    pub fn restore(state: VoterState, now_boot_ns: u64) -> Self {
        Self { state, grant_until_ns: now_boot_ns.saturating_add(lease_ns()) }
    }

    /// The voter of a region that lost its disk, from the states of enough other voters. It promises and has accepted
    /// whatever any of them did, and grants no lease for a full [`limits::LEASE`].
    ///
    /// Every majority in which the lost voter took part contains `majority - 1` others, so `members - majority + 1`
    /// answers of others meet it. `None` if there are fewer.
    pub fn rejoin(me: RegionId, genesis: &Regime, others: &[(RegionId, VoterState)], now_boot_ns: u64) -> Option<Self> {
        let mut heard: Vec<RegionId> = others
            .iter()
            .map(|(region, _)| *region)
            .filter(|region| *region != me && genesis.members.contains_key(region))
            .collect();
        heard.sort_unstable();
        heard.dedup();
        if heard.len() < genesis.meets_every_majority() {
            return None;
        }
        let states = || others.iter().map(|(_, state)| state);
        let acceptor = Acceptor {
            promised: states().map(|state| state.acceptor.promised).max().unwrap_or(Ballot::GENESIS),
            accepted: states().filter_map(|state| state.acceptor.accepted.clone()).max_by_key(|(ballot, _)| *ballot),
        };
        let promised_epoch = states().map(|state| state.promised_epoch).max().unwrap_or(genesis.epoch);
        // Nobody has number 0: the grant blocks every holder until it has run out.
        let grant = Some(Grant { epoch: promised_epoch, holder: RegionId(0), released: false });
        let state = VoterState { acceptor, promised_epoch, grant };
        Some(Self { state, grant_until_ns: now_boot_ns.saturating_add(lease_ns()) })
    }

    /// What has to be durable.
    pub const fn state(&self) -> &VoterState {
        &self.state
    }

    /// The epoch below which operations, acknowledgements and leases are refused.
    pub const fn promised_epoch(&self) -> Epoch {
        self.state.promised_epoch
    }

    /// Draws a ballot for an attempt of this region, above everything that its voter met and `above`. The state has
    /// changed: persist it before anything is sent under the ballot, or a restart could use it twice.
    pub fn next_ballot(&mut self, me: RegionId, above: Ballot) -> Ballot {
        let round = self.state.acceptor.promised.round.max(above.round).saturating_add(1);
        let ballot = Ballot { round, region: me };
        self.state.acceptor.promised = ballot;
        ballot
    }

    /// Notes that the region adopts a chosen regime. Returns whether to persist.
    pub fn adopt(&mut self, epoch: Epoch) -> bool {
        self.raise_epoch(epoch)
    }

    /// Answers a request at a time of this region's boot clock.
    pub fn handle(&mut self, request: &VoterRequest, now_boot_ns: u64) -> Effect {
        match request {
            VoterRequest::Prepare(prepare) => self.prepare(prepare, now_boot_ns),
            VoterRequest::Accept(accept) => self.accept(accept, now_boot_ns),
            VoterRequest::Lease(lease) => self.lease(lease, now_boot_ns),
            VoterRequest::Release(release) => Effect { persist: self.release(*release), reply: VoterReply::Released },
        }
    }

    fn prepare(&mut self, prepare: &Prepare, now_boot_ns: u64) -> Effect {
        let ballot = prepare.ballot;
        if let Some(refusal) = self.refuse(ballot) {
            return refusal;
        }
        let mut persist = self.raise_ballot(ballot);
        if let Some(fence) = prepare.fence {
            // At once, so that nobody prolongs the lease for which the proposer now waits. It waits for its own lease as
            // well: a primary that fences itself off must have given the lease back, or it would go on acknowledging
            // beyond the position that it reports with the promise.
            persist |= self.raise_epoch(fence);
            if let Some((_, left_ns)) = self.live_grant(now_boot_ns) {
                return Effect { persist, reply: VoterReply::Wait { ballot, after_ms: millis_up(left_ns) } };
            }
        }
        let promise = Promise {
            ballot,
            accepted: self.state.acceptor.accepted.clone(),
            promised_epoch: self.state.promised_epoch,
        };
        Effect { persist, reply: VoterReply::Promise(Box::new(promise)) }
    }

    fn accept(&mut self, accept: &Accept, now_boot_ns: u64) -> Effect {
        let ballot = accept.ballot;
        if let Some(refusal) = self.refuse(ballot) {
            return refusal;
        }
        let mut persist = self.raise_ballot(ballot);
        if let Some(release) = accept.release.filter(|release| release.holder == ballot.region) {
            persist |= self.release(release);
        }
        if let Some((holder, left_ns)) = self.live_grant(now_boot_ns)
            && !keeps_primary(&accept.value, holder)
        {
            persist |= self.raise_epoch(accept.value.epoch);
            return Effect { persist, reply: VoterReply::Wait { ballot, after_ms: millis_up(left_ns) } };
        }
        if self.state.grant.is_some_and(|grant| !keeps_primary(&accept.value, grant.holder)) {
            // The former holder must not come back under its old epoch once somebody else may have been chosen.
            self.raise_epoch(accept.value.epoch);
        }
        if self.state.acceptor.accepted.as_ref().is_none_or(|(accepted, _)| *accepted != ballot) {
            self.state.acceptor.accepted = Some((ballot, accept.value.clone()));
            persist = true;
        }
        Effect { persist, reply: VoterReply::Accepted { ballot } }
    }

    fn lease(&mut self, request: &LeaseRequest, now_boot_ns: u64) -> Effect {
        let refused = |refusal| Effect { persist: false, reply: VoterReply::LeaseRefused(refusal) };
        if request.epoch < self.state.promised_epoch {
            return refused(LeaseRefusal::Fenced { promised: self.state.promised_epoch });
        }
        if let Some((holder, left_ns)) = self.live_grant(now_boot_ns).filter(|(holder, _)| *holder != request.holder) {
            return refused(LeaseRefusal::HeldByAnother { holder, after_ms: millis_up(left_ns) });
        }
        if self
            .state
            .grant
            .is_some_and(|grant| grant.released && grant.holder == request.holder && grant.epoch >= request.epoch)
        {
            return refused(LeaseRefusal::GivenBack { epoch: request.epoch });
        }
        let grant = Grant { epoch: request.epoch, holder: request.holder, released: false };
        let persist = self.raise_epoch(request.epoch) || self.state.grant != Some(grant);
        self.state.grant = Some(grant);
        self.grant_until_ns = now_boot_ns.saturating_add(lease_ns());
        Effect { persist, reply: VoterReply::Granted { epoch: request.epoch, sent_boot_ns: request.sent_boot_ns } }
    }

    /// Returns whether to persist. A release of an epoch for which nothing was granted is kept as well: the request
    /// that it overtook must not be granted afterwards.
    fn release(&mut self, release: Release) -> bool {
        let released = Grant { epoch: release.epoch, holder: release.holder, released: true };
        match self.state.grant {
            Some(grant) if grant.holder == release.holder && grant.epoch <= release.epoch => {
                self.state.grant = Some(released);
                grant != released
            }
            None => {
                self.state.grant = Some(released);
                true
            }
            // A newer or another's grant stays.
            Some(_) => false,
        }
    }

    fn refuse(&self, ballot: Ballot) -> Option<Effect> {
        let promised = self.state.acceptor.promised;
        (ballot < promised).then_some(Effect { persist: false, reply: VoterReply::Nack { ballot, promised } })
    }

    fn raise_ballot(&mut self, ballot: Ballot) -> bool {
        let higher = ballot > self.state.acceptor.promised;
        self.state.acceptor.promised = self.state.acceptor.promised.max(ballot);
        higher
    }

    fn raise_epoch(&mut self, epoch: Epoch) -> bool {
        let higher = epoch > self.state.promised_epoch;
        self.state.promised_epoch = self.state.promised_epoch.max(epoch);
        higher
    }

    /// The holder of an unexpired grant that was not given back, and the time left in nanoseconds.
    fn live_grant(&self, now_boot_ns: u64) -> Option<(RegionId, u64)> {
        let grant = self.state.grant.filter(|grant| !grant.released)?;
        let left_ns = self.grant_until_ns.checked_sub(now_boot_ns).filter(|left| *left > 0)?;
        Some((grant.holder, left_ns))
    }
}

/// Whether a holder that still acknowledges under its lease does nothing wrong once this regime is chosen.
fn keeps_primary(value: &Regime, holder: RegionId) -> bool {
    value.mode == Mode::ActivePassive && value.primary == Some(holder)
}

const fn lease_ns() -> u64 {
    limits::LEASE.as_nanos() as u64
}

const fn millis_up(ns: u64) -> u64 {
    ns.div_ceil(1_000_000)
}

#[cfg(test)]
#[path = "voter_tests.rs"]
mod tests;
