//! The register that holds the regime: CASPaxos for one value, one acceptor per region.
//!
//! Source: Rystsov, "CASPaxos: Replicated State Machines without logs", 2018 (arXiv 1802.07000). A change reads the
//! current value in the prepare phase and writes its successor in the accept phase; the change function here is
//! compare-and-set on the epoch, so a plan that was computed from an older regime dies.
//!
//! The proposer is a state machine without I/O: it is told replies and says what to send. The acceptor is part of the
//! [`crate::voter::Voter`], because promises, leases and fences have to be decided together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, RegionId};
use crate::regime::Regime;
use crate::voter::{Release, VoterReply};

/// The number of an attempt to change the register. Unique: a proposer draws it from its own voter, durably
/// ([`crate::voter::Voter::next_ballot`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every attempt that a region knows of.
    pub round: u64,
    /// The proposer; breaks ties.
    pub region: RegionId,
}

impl Ballot {
    /// The ballot under which every acceptor implicitly accepted the genesis regime.
    pub const GENESIS: Self = Self { round: 0, region: RegionId(0) };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.round, self.region)
    }
}

/// What an acceptor remembers durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// It takes part in no attempt below this.
    pub promised: Ballot,
    /// The last value that it accepted; `None` stands for the genesis regime under [`Ballot::GENESIS`].
    pub accepted: Option<(Ballot, Regime)>,
}

impl Default for Acceptor {
    fn default() -> Self {
        Self { promised: Ballot::GENESIS, accepted: None }
    }
}

/// First phase: asks for a promise and for what was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The attempt.
    pub ballot: Ballot,
    /// Besides: refuse operations, acknowledgements and leases below this epoch from now on (unplanned failover).
    pub fence: Option<Epoch>,
}

/// The answer to [`Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The attempt.
    pub ballot: Ballot,
    /// The last accepted value, if any.
    pub accepted: Option<(Ballot, Regime)>,
    /// The epoch below which this voter refuses everything.
    pub promised_epoch: Epoch,
}

/// Second phase: asks to accept a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The attempt.
    pub ballot: Ballot,
    /// The new value.
    pub value: Regime,
    /// The proposer gives back its own lease with this message, so that nobody has to wait for it to run out. Valid
    /// only from the holder. The holder must have applied the release to its own voter first, durably.
    pub release: Option<Release>,
}

/// What a proposer wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Learn the current regime, linearizably.
    Read,
    /// Replace the regime if its epoch is still `expected`. The epoch of the chosen regime may be higher than that of
    /// `next`: it is lifted to what voters have promised.
    CompareAndSet {
        /// The epoch of the regime from which `next` was computed.
        expected: Epoch,
        /// The successor.
        next: Box<Regime>,
        /// The proposer's own lease, given back with the change.
        release: Option<Release>,
    },
    /// Fence the voters off older epochs, then wait for the caller to [`Proposer::complete`].
    Fence {
        /// The epoch of the regime that is to be replaced.
        expected: Epoch,
        /// What voters promise.
        fence: Epoch,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The register holds this regime: the one that was read, or the one that was proposed.
    Chosen(Box<Regime>),
    /// The register holds another regime than the attempt was computed from; this one, which is safe to adopt.
    Stale {
        /// What the register holds.
        current: Box<Regime>,
    },
    /// The proposed value is no lawful successor of the current one; nothing was sent.
    Unlawful(Unlawful),
    /// So many voters have promised a higher ballot that this attempt cannot win any more. Whether its value was
    /// chosen is **unknown** if it had been sent: read before trying again.
    Preempted {
        /// The highest ballot met; draw the next one above it.
        by: Ballot,
    },
}

/// What a proposer asks its caller to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Wait for more replies.
    Pending,
    /// Send this to every voter (own voter first).
    Send(Box<Accept>),
    /// This voter waits for a lease to run out: send it the same message again after this many milliseconds.
    Retry {
        /// The voter.
        voter: RegionId,
        /// How long to wait, milliseconds.
        after_ms: u64,
    },
    /// A majority is fenced and the regime is the expected one. Comes again with every further promise.
    Fenced,
    /// The attempt is over.
    Done(Outcome),
}

/// Why a value may not follow another one in the register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unlawful {
    /// Epochs only grow.
    #[error("epoch {next} does not follow epoch {current}; compute the change from the current regime")]
    EpochNotHigher {
        /// Of the current regime.
        current: Epoch,
        /// Of the proposed regime.
        next: Epoch,
    },
    /// The voters are the members, so their set is fixed.
    #[error("the set of members would change; regions are fixed by the topology")]
    MembersChanged,
    /// Incarnations only grow.
    #[error("region {0} would get an older incarnation; its sequence numbers would be used twice")]
    IncarnationBack(RegionId),
    /// Generations of the data set only grow.
    #[error("the data set generation would go back")]
    GenerationBack,
    /// The clock floor only grows.
    #[error("the clock floor would go back")]
    FloorBack,
    /// Somebody else would change the rule by which a primary acknowledges while it acknowledges.
    #[error("only the primary, region {0}, may change its own durability or in-sync set")]
    AckRuleOfAnother(RegionId),
    /// Active-passive needs a primary that is an active member; other modes have none.
    #[error("the primary does not fit the mode, or is no active member")]
    Primary,
}

/// Whether `next`, proposed by `by`, may replace `current`.
///
/// The acknowledgement rule of a primary that stays is changed by that primary only: it applies the rule that it has
/// adopted, so if another region enlarged the in-sync set, the primary would go on acknowledging by the smaller one and
/// a later failover would trust a member that was never asked.
pub fn check_successor(current: &Regime, next: &Regime, by: RegionId) -> Result<(), Unlawful> {
    if next.epoch <= current.epoch {
        return Err(Unlawful::EpochNotHigher { current: current.epoch, next: next.epoch });
    }
    if !current.members.keys().eq(next.members.keys()) {
        return Err(Unlawful::MembersChanged);
    }
    for (region, member) in &current.members {
        if next.members[region].incarnation < member.incarnation {
            return Err(Unlawful::IncarnationBack(*region));
        }
    }
    if next.dataset_generation < current.dataset_generation {
        return Err(Unlawful::GenerationBack);
    }
    if next.hlc_floor_ns < current.hlc_floor_ns {
        return Err(Unlawful::FloorBack);
    }
    if !next.primary_fits_mode() {
        return Err(Unlawful::Primary);
    }
    if let Some(primary) = current.primary
        && next.primary == Some(primary)
        && by != primary
        && (next.durability != current.durability || next.in_sync != current.in_sync)
    {
        return Err(Unlawful::AckRuleOfAnother(primary));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Fenced,
    Accepting,
    Done,
}

/// One attempt to read or change the register.
#[derive(Debug, Clone)]
pub struct Proposer {
    ballot: Ballot,
    intent: Intent,
    genesis: Regime,
    phase: Phase,
    promises: BTreeMap<RegionId, Promise>,
    accepted_by: BTreeSet<RegionId>,
    refused_by: BTreeSet<RegionId>,
    highest: Ballot,
    /// What the first majority of promises showed.
    read: Option<Regime>,
    value: Option<Regime>,
    outcome: Option<Outcome>,
}

impl Proposer {
    /// Starts an attempt. `genesis` is the regime that follows from the configuration; its members are the voters.
    /// The message goes to every voter, to the own one first.
    pub fn begin(ballot: Ballot, genesis: Regime, intent: Intent) -> (Self, Prepare) {
        let fence = match &intent {
            Intent::Fence { fence, .. } => Some(*fence),
            Intent::Read | Intent::CompareAndSet { .. } => None,
        };
        let proposer = Self {
            ballot,
            intent,
            genesis,
            phase: Phase::Preparing,
            promises: BTreeMap::new(),
            accepted_by: BTreeSet::new(),
            refused_by: BTreeSet::new(),
            highest: ballot,
            read: None,
            value: None,
            outcome: None,
        };
        (proposer, Prepare { ballot, fence })
    }

    /// Tells the reply of a voter to [`Prepare`] or [`Accept`]. Replies to other ballots and from non-members are
    /// ignored; duplicates do no harm.
    pub fn on_reply(&mut self, from: RegionId, reply: &VoterReply) -> Progress {
        if self.phase == Phase::Done || !self.genesis.members.contains_key(&from) {
            return Progress::Pending;
        }
        match reply {
            VoterReply::Promise(promise) if promise.ballot == self.ballot => self.on_promise(from, promise),
            VoterReply::Accepted { ballot } if *ballot == self.ballot && self.phase == Phase::Accepting => {
                self.accepted_by.insert(from);
                if self.accepted_by.len() < self.genesis.majority() {
                    return Progress::Pending;
                }
                let outcome = self.outcome.take().unwrap_or_else(|| {
                    let value = self.value.clone().expect("the accept phase has a value");
                    Outcome::Chosen(Box::new(value))
                });
                self.finish(outcome)
            }
            VoterReply::Nack { ballot, promised } if *ballot == self.ballot => {
                self.refused_by.insert(from);
                self.highest = self.highest.max(*promised);
                if self.genesis.members.len() - self.refused_by.len() < self.genesis.majority() {
                    self.finish(Outcome::Preempted { by: self.highest })
                } else {
                    Progress::Pending
                }
            }
            VoterReply::Wait { ballot, after_ms } if *ballot == self.ballot => {
                Progress::Retry { voter: from, after_ms: *after_ms }
            }
            _ => Progress::Pending,
        }
    }

    /// Ends the fenced phase with the regime to write. Only after [`Progress::Fenced`].
    pub fn complete(&mut self, next: Regime, release: Option<Release>) -> Progress {
        if self.phase != Phase::Fenced {
            return Progress::Pending;
        }
        let current = self.current();
        self.propose(&current, next, release)
    }

    /// The regime that the first majority of promises showed. Known to be the register's value only when an outcome says
    /// so: it may have been accepted by few.
    ///
    /// A later promise may show a newer value; that one was not chosen below this ballot and never will be, because the
    /// first majority is bound by now.
    pub fn current(&self) -> Regime {
        self.read.clone().unwrap_or_else(|| self.newest_accepted())
    }

    fn newest_accepted(&self) -> Regime {
        self.promises
            .values()
            .filter_map(|promise| promise.accepted.as_ref())
            .max_by_key(|(ballot, _)| *ballot)
            .map_or_else(|| self.genesis.clone(), |(_, regime)| regime.clone())
    }

    /// The voters that promised, and what.
    pub const fn promises(&self) -> &BTreeMap<RegionId, Promise> {
        &self.promises
    }

    /// This attempt's ballot.
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The highest ballot met. If an attempt ends by its deadline, draw the next ballot above this.
    pub const fn highest(&self) -> Ballot {
        self.highest
    }

    fn on_promise(&mut self, from: RegionId, promise: &Promise) -> Progress {
        self.promises.insert(from, promise.clone());
        if self.promises.len() < self.genesis.majority() {
            return Progress::Pending;
        }
        match self.phase {
            Phase::Preparing => {
                self.read = Some(self.newest_accepted());
                self.on_prepared()
            }
            Phase::Fenced => Progress::Fenced,
            Phase::Accepting | Phase::Done => Progress::Pending,
        }
    }

    fn on_prepared(&mut self) -> Progress {
        let current = self.current();
        match self.intent.clone() {
            Intent::Read => self.settle(current.clone(), Outcome::Chosen(Box::new(current))),
            Intent::CompareAndSet { expected, .. } | Intent::Fence { expected, .. } if expected != current.epoch => {
                self.settle(current.clone(), Outcome::Stale { current: Box::new(current) })
            }
            Intent::CompareAndSet { next, release, .. } => self.propose(&current, *next, release),
            Intent::Fence { .. } => {
                self.phase = Phase::Fenced;
                Progress::Fenced
            }
        }
    }

    /// Makes sure that what was read is chosen: at once if a majority has accepted it under one ballot, otherwise by
    /// writing it back.
    fn settle(&mut self, current: Regime, outcome: Outcome) -> Progress {
        let accepted_under =
            |promise: &Promise| promise.accepted.as_ref().map_or(Ballot::GENESIS, |(ballot, _)| *ballot);
        let newest = self.promises.values().map(accepted_under).max().unwrap_or(Ballot::GENESIS);
        let holders = self.promises.values().filter(|promise| accepted_under(promise) == newest).count();
        if holders >= self.genesis.majority() {
            return self.finish(outcome);
        }
        self.outcome = Some(outcome);
        self.send(current, None)
    }

    fn propose(&mut self, current: &Regime, mut next: Regime, release: Option<Release>) -> Progress {
        // Voters that promised a higher epoch to a failover that came to nothing would refuse everything below it.
        let promised = self.promises.values().map(|promise| promise.promised_epoch).max().unwrap_or_default();
        next.epoch = next.epoch.max(promised);
        match check_successor(current, &next, self.ballot.region) {
            Ok(()) => self.send(next, release),
            Err(reason) => self.finish(Outcome::Unlawful(reason)),
        }
    }

    fn send(&mut self, value: Regime, release: Option<Release>) -> Progress {
        self.phase = Phase::Accepting;
        self.value = Some(value.clone());
        Progress::Send(Box::new(Accept { ballot: self.ballot, value, release }))
    }

    fn finish(&mut self, outcome: Outcome) -> Progress {
        self.phase = Phase::Done;
        Progress::Done(outcome)
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
