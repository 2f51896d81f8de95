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
        let state = VoterState {
            promised_epoch: genesis.epoch,
            ..VoterState::default()
        };
        Self {
            state,
            grant_until_ns: 0,
        }
    }

    /// The voter after a restart. It has forgotten when it granted its last lease, so the grant holds for a full
    /// [`limits::LEASE`] from now.
    pub fn restore(state: VoterState, now_boot_ns: u64) -> Self {
        Self {
            state,
            grant_until_ns: now_boot_ns.saturating_add(lease_ns()),
        }
    }

    /// The voter of a region that lost its disk, from the states of enough other voters. It promises and has accepted
    /// whatever any of them did, and grants no lease for a full [`limits::LEASE`].
    ///
    /// Every majority in which the lost voter took part contains `majority - 1` others, so `members - majority + 1`
    /// answers of others meet it. `None` if there are fewer.
    pub fn rejoin(
        me: RegionId,
        genesis: &Regime,
        others: &[(RegionId, VoterState)],
        now_boot_ns: u64,
    ) -> Option<Self> {
        let mut heard: Vec<RegionId> = others
            .iter()
            .map(|(region, _)| *region)
            .filter(|region| *region != me && genesis.members.contains_key(region))
            .collect();
        heard.sort_unstable();
        heard.dedup();
        if heard.len() < genesis.members.len() - genesis.majority() + 1 {
            return None;
        }
        let states = || others.iter().map(|(_, state)| state);
        let acceptor = Acceptor {
            promised: states()
                .map(|state| state.acceptor.promised)
                .max()
                .unwrap_or(Ballot::GENESIS),
            accepted: states()
                .filter_map(|state| state.acceptor.accepted.clone())
                .max_by_key(|(ballot, _)| *ballot),
        };
        let promised_epoch = states()
            .map(|state| state.promised_epoch)
            .max()
            .unwrap_or(genesis.epoch);
        // Nobody has number 0: the grant blocks every holder until it has run out.
        let grant = Some(Grant {
            epoch: promised_epoch,
            holder: RegionId(0),
            released: false,
        });
        let state = VoterState {
            acceptor,
            promised_epoch,
            grant,
        };
        Some(Self {
            state,
            grant_until_ns: now_boot_ns.saturating_add(lease_ns()),
        })
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
        let round = self.state.acceptor.promised.round.max(above.round) + 1;
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
            VoterRequest::Release(release) => Effect {
                persist: self.release(*release),
                reply: VoterReply::Released,
            },
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
                return Effect {
                    persist,
                    reply: VoterReply::Wait {
                        ballot,
                        after_ms: millis_up(left_ns),
                    },
                };
            }
        }
        let promise = Promise {
            ballot,
            accepted: self.state.acceptor.accepted.clone(),
            promised_epoch: self.state.promised_epoch,
        };
        Effect {
            persist,
            reply: VoterReply::Promise(Box::new(promise)),
        }
    }

    fn accept(&mut self, accept: &Accept, now_boot_ns: u64) -> Effect {
        let ballot = accept.ballot;
        if let Some(refusal) = self.refuse(ballot) {
            return refusal;
        }
        let mut persist = self.raise_ballot(ballot);
        if let Some(release) = accept
            .release
            .filter(|release| release.holder == ballot.region)
        {
            persist |= self.release(release);
        }
        if let Some((holder, left_ns)) = self.live_grant(now_boot_ns)
            && !keeps_primary(&accept.value, holder)
        {
            persist |= self.raise_epoch(accept.value.epoch);
            return Effect {
                persist,
                reply: VoterReply::Wait {
                    ballot,
                    after_ms: millis_up(left_ns),
                },
            };
        }
        if self
            .state
            .grant
            .is_some_and(|grant| !keeps_primary(&accept.value, grant.holder))
        {
            // The former holder must not come back under its old epoch once somebody else may have been chosen.
            self.raise_epoch(accept.value.epoch);
        }
        if self
            .state
            .acceptor
            .accepted
            .as_ref()
            .is_none_or(|(accepted, _)| *accepted != ballot)
        {
            self.state.acceptor.accepted = Some((ballot, accept.value.clone()));
            persist = true;
        }
        Effect {
            persist,
            reply: VoterReply::Accepted { ballot },
        }
    }

    fn lease(&mut self, request: &LeaseRequest, now_boot_ns: u64) -> Effect {
        let refused = |refusal| Effect {
            persist: false,
            reply: VoterReply::LeaseRefused(refusal),
        };
        if request.epoch < self.state.promised_epoch {
            return refused(LeaseRefusal::Fenced {
                promised: self.state.promised_epoch,
            });
        }
        if let Some((holder, left_ns)) = self
            .live_grant(now_boot_ns)
            .filter(|(holder, _)| *holder != request.holder)
        {
            return refused(LeaseRefusal::HeldByAnother {
                holder,
                after_ms: millis_up(left_ns),
            });
        }
        if self.state.grant.is_some_and(|grant| {
            grant.released && grant.holder == request.holder && grant.epoch >= request.epoch
        }) {
            return refused(LeaseRefusal::GivenBack {
                epoch: request.epoch,
            });
        }
        let grant = Grant {
            epoch: request.epoch,
            holder: request.holder,
            released: false,
        };
        let persist = self.raise_epoch(request.epoch) | (self.state.grant != Some(grant));
        self.state.grant = Some(grant);
        self.grant_until_ns = now_boot_ns.saturating_add(lease_ns());
        Effect {
            persist,
            reply: VoterReply::Granted {
                epoch: request.epoch,
                sent_boot_ns: request.sent_boot_ns,
            },
        }
    }

    /// Returns whether to persist. A release of an epoch for which nothing was granted is kept as well: the request
    /// that it overtook must not be granted afterwards.
    fn release(&mut self, release: Release) -> bool {
        let released = Grant {
            epoch: release.epoch,
            holder: release.holder,
            released: true,
        };
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
        (ballot < promised).then_some(Effect {
            persist: false,
            reply: VoterReply::Nack { ballot, promised },
        })
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
        let left_ns = self
            .grant_until_ns
            .checked_sub(now_boot_ns)
            .filter(|left| *left > 0)?;
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
mod tests {
    use super::*;
    use crate::regime::Durability;

    const MS: u64 = 1_000_000;

    fn genesis() -> Regime {
        Regime::genesis(
            [1, 2, 3].map(RegionId),
            Mode::ActivePassive,
            Some(RegionId(1)),
            Durability::Local,
        )
    }

    fn ballot(round: u64, region: u16) -> Ballot {
        Ballot {
            round,
            region: RegionId(region),
        }
    }

    fn lease(epoch: u64, holder: u16) -> VoterRequest {
        VoterRequest::Lease(LeaseRequest {
            epoch: Epoch(epoch),
            holder: RegionId(holder),
            sent_boot_ns: 7,
        })
    }

    fn prepare(round: u64, region: u16, fence: Option<u64>) -> VoterRequest {
        VoterRequest::Prepare(Prepare {
            ballot: ballot(round, region),
            fence: fence.map(Epoch),
        })
    }

    fn accept(round: u64, region: u16, primary: u16, release: Option<Release>) -> VoterRequest {
        let mut value = genesis();
        value.epoch = Epoch(2);
        value.primary = Some(RegionId(primary));
        VoterRequest::Accept(Box::new(Accept {
            ballot: ballot(round, region),
            value,
            release,
        }))
    }

    fn is_granted(effect: &Effect) -> bool {
        matches!(effect.reply, VoterReply::Granted { .. })
    }

    #[test]
    fn only_the_first_grant_of_a_lease_needs_storage() {
        let mut voter = Voter::new(&genesis());
        assert!(voter.handle(&lease(1, 1), 0).persist);
        let renewed = voter.handle(&lease(1, 1), 500 * MS);
        assert!(is_granted(&renewed) && !renewed.persist);
    }

    #[test]
    fn a_fence_waits_for_the_lease_and_nobody_prolongs_it() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        let effect = voter.handle(&prepare(1, 2, Some(2)), 500 * MS);
        assert_eq!(
            effect.reply,
            VoterReply::Wait {
                ballot: ballot(1, 2),
                after_ms: 1500
            }
        );
        assert!(effect.persist && voter.promised_epoch() == Epoch(2));
        let refused = VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised: Epoch(2) });
        assert_eq!(voter.handle(&lease(1, 1), 600 * MS).reply, refused);
        let again = voter.handle(&prepare(1, 2, Some(2)), 2000 * MS);
        assert!(matches!(again.reply, VoterReply::Promise(_)));
    }

    #[test]
    fn a_primary_that_fences_itself_off_waits_for_its_own_lease_unless_it_gave_it_back() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        assert!(matches!(
            voter.handle(&prepare(1, 1, Some(2)), MS).reply,
            VoterReply::Wait { .. }
        ));
        voter.handle(
            &VoterRequest::Release(Release {
                epoch: Epoch(1),
                holder: RegionId(1),
            }),
            2 * MS,
        );
        assert!(matches!(
            voter.handle(&prepare(1, 1, Some(2)), 3 * MS).reply,
            VoterReply::Promise(_)
        ));
    }

    #[test]
    fn a_fence_is_remembered_across_a_restart_and_so_is_that_a_lease_was_granted() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        let state = voter.state().clone();
        let mut restarted = Voter::restore(state, 1900 * MS);
        let effect = restarted.handle(&prepare(1, 2, Some(2)), 2100 * MS);
        assert_eq!(
            effect.reply,
            VoterReply::Wait {
                ballot: ballot(1, 2),
                after_ms: 1800
            }
        );
        let again = Voter::restore(restarted.state().clone(), 2200 * MS);
        assert_eq!(again.promised_epoch(), Epoch(2));
    }

    #[test]
    fn another_primary_is_accepted_only_after_the_lease_or_its_release() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        assert!(matches!(
            voter.handle(&accept(1, 2, 2, None), MS).reply,
            VoterReply::Wait { after_ms: 1999, .. }
        ));
        assert!(voter.state().acceptor.accepted.is_none());
        // Only the holder can give its lease back.
        let forged = Release {
            epoch: Epoch(1),
            holder: RegionId(1),
        };
        assert!(matches!(
            voter.handle(&accept(1, 2, 2, Some(forged)), MS).reply,
            VoterReply::Wait { .. }
        ));
        let effect = voter.handle(&accept(2, 1, 2, Some(forged)), 2 * MS);
        assert_eq!(
            effect.reply,
            VoterReply::Accepted {
                ballot: ballot(2, 1)
            }
        );
        assert!(effect.persist);
    }

    #[test]
    fn leaving_active_passive_waits_as_well_and_the_same_primary_never_waits() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        assert!(matches!(
            voter.handle(&accept(1, 3, 1, None), MS).reply,
            VoterReply::Accepted { .. }
        ));
        let mut value = genesis();
        (value.epoch, value.mode, value.primary) = (Epoch(3), Mode::ActiveActive, None);
        let request = VoterRequest::Accept(Box::new(Accept {
            ballot: ballot(2, 3),
            value,
            release: None,
        }));
        assert!(matches!(
            voter.handle(&request, 2 * MS).reply,
            VoterReply::Wait { .. }
        ));
    }

    #[test]
    fn a_lease_that_was_given_back_is_not_granted_again_in_its_epoch() {
        let mut voter = Voter::new(&genesis());
        // The release overtakes the request.
        voter.handle(
            &VoterRequest::Release(Release {
                epoch: Epoch(1),
                holder: RegionId(1),
            }),
            0,
        );
        let refused = VoterReply::LeaseRefused(LeaseRefusal::GivenBack { epoch: Epoch(1) });
        assert_eq!(voter.handle(&lease(1, 1), MS).reply, refused);
        assert!(is_granted(&voter.handle(&lease(2, 1), MS)));
    }

    #[test]
    fn two_holders_never_have_a_grant_at_once() {
        let mut voter = Voter::new(&genesis());
        voter.handle(&lease(1, 1), 0);
        let refusal = LeaseRefusal::HeldByAnother {
            holder: RegionId(1),
            after_ms: 1000,
        };
        assert_eq!(
            voter.handle(&lease(2, 2), 1000 * MS).reply,
            VoterReply::LeaseRefused(refusal)
        );
        assert!(is_granted(&voter.handle(&lease(2, 2), 2000 * MS)));
        let fenced = VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised: Epoch(2) });
        assert_eq!(voter.handle(&lease(1, 1), 9000 * MS).reply, fenced);
    }

    #[test]
    fn lower_ballots_are_refused_and_equal_ones_answered_again() {
        let mut voter = Voter::new(&genesis());
        let first = voter.handle(&prepare(5, 2, None), 0);
        assert!(first.persist);
        let again = voter.handle(&prepare(5, 2, None), 0);
        assert!(!again.persist && again.reply == first.reply);
        let nack = VoterReply::Nack {
            ballot: ballot(5, 1),
            promised: ballot(5, 2),
        };
        assert_eq!(voter.handle(&prepare(5, 1, None), 0).reply, nack);
        assert_eq!(
            voter.next_ballot(RegionId(1), Ballot::GENESIS),
            ballot(6, 1)
        );
    }

    #[test]
    fn a_voter_that_lost_its_disk_needs_enough_others_and_grants_nothing_for_a_lease() {
        let mut other = Voter::new(&genesis());
        other.handle(&prepare(4, 2, Some(3)), 0);
        other.handle(&accept(4, 2, 2, None), 0);
        let states = [
            (RegionId(2), other.state().clone()),
            (RegionId(3), VoterState::default()),
        ];
        assert!(Voter::rejoin(RegionId(1), &genesis(), &states[..1], 0).is_none());
        let mut voter =
            Voter::rejoin(RegionId(1), &genesis(), &states, 0).expect("two others are enough");
        assert_eq!(voter.promised_epoch(), Epoch(3));
        assert_eq!(
            voter.state().acceptor.accepted,
            other.state().acceptor.accepted
        );
        assert!(!is_granted(&voter.handle(&lease(3, 2), 1999 * MS)));
        assert!(is_granted(&voter.handle(&lease(3, 2), 2000 * MS)));
    }
}
