//! This region's vote: the voter, durable before it answers.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::{RegionId, Timeline};
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::regime::Regime;
use longhaul_core::register::Ballot;
use longhaul_core::voter::{Voter, VoterReply, VoterRequest, VoterState};
use longhaul_http::client::CallError;
use tokio::sync::Mutex;

use super::messages::{VOTER_STATE_PATH, VoterStateView};
use super::peers::Peers;
use crate::failpoint::{FailPoint, reach};
use crate::state::Region;
use crate::writer::WriterGone;

/// The durable name of the voter's state.
pub(super) const VOTER_KEY: &str = "voter";

/// The durable name of the timeline that this region wrote before it lost its store.
pub(super) const LOST_KEY: &str = "voter_lost";

/// The voter behind a lock, so that requests are answered one after the other.
pub(super) struct Voting {
    region: Arc<Region>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Absent until a region without a memory has heard enough others.
    voter: Option<Voter>,
    /// The state in memory is ahead of the disk: a request was dropped between the decision and its persistence. No
    /// answer may leave before the disk has caught up.
    dirty: bool,
    /// The timeline of the life in which the store was lost. Until the regime has given this region another one, a
    /// failover must not count it among those that kept what they acknowledged.
    lost: Option<Timeline>,
}

/// Why there is no vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum VoteError {
    /// It has not heard enough others to know what it may have promised before it lost its memory.
    #[error("this region has no memory of its votes and has not heard enough other regions yet; start them")]
    NoMemory,
    /// Its store is new although the others have gone on: what it had acknowledged as durable is gone.
    #[error(
        "this region lost its store and joins again under a new incarnation; until then it takes part in no failover"
    )]
    LostStore,
    /// The writer has stopped.
    #[error(transparent)]
    Gone(#[from] WriterGone),
}

impl Voting {
    /// The voter as the store remembers it, or none yet.
    pub(super) fn new(region: Arc<Region>, stored: Option<&Bytes>, lost: Option<&Bytes>) -> Self {
        let voter = stored.and_then(|bytes| postcard::from_bytes::<VoterState>(bytes).ok());
        // Another process may have granted a lease for this voter until the moment from which this one answers.
        let granted_until = region.clock.boot_ns().max(region.tenure_from());
        let voter = voter.map(|state| Voter::restore(state, granted_until));
        if let Some(voter) = &voter {
            region.set_promised(voter.promised_epoch());
        }
        let lost = lost.and_then(|bytes| postcard::from_bytes(bytes).ok()).flatten();
        Self { region, inner: Mutex::new(Inner { voter, dirty: false, lost }) }
    }

    /// Whether it votes.
    pub(super) async fn has_memory(&self) -> bool {
        self.inner.lock().await.voter.is_some()
    }

    /// What other regions may know of it: for a peer that lost its own memory.
    pub(super) async fn view(&self) -> VoterStateView {
        VoterStateView { state: self.inner.lock().await.voter.as_ref().map(|voter| voter.state().clone()) }
    }

    /// Answers a request; what it promises is durable before this returns.
    pub(super) async fn handle(&self, request: &VoterRequest) -> Result<VoterReply, VoteError> {
        if let VoterRequest::Prepare(prepare) = request
            && prepare.fence.is_some()
            && prepare.ballot.region != self.region.id()
        {
            self.region.note_attempt(self.region.regime().epoch, self.region.clock.boot_ns());
        }
        let mut inner = self.inner.lock().await;
        let takes_part_in_failovers = matches!(request, VoterRequest::Prepare(prepare) if prepare.fence.is_some())
            || matches!(request, VoterRequest::Lease(lease) if lease.holder == self.region.id());
        if takes_part_in_failovers && inner.lost.is_some() {
            return Err(VoteError::LostStore);
        }
        let voter = inner.voter.as_mut().ok_or(VoteError::NoMemory)?;
        let effect = voter.handle(request, self.region.clock.boot_ns());
        inner.dirty |= effect.persist;
        let fences = matches!(request, VoterRequest::Prepare(prepare) if prepare.fence.is_some());
        if fences {
            reach(FailPoint::BeforePromise);
        }
        self.settle(&mut inner).await?;
        if fences {
            reach(FailPoint::BeforePromiseAnswer);
        }
        Ok(effect.reply)
    }

    /// The timeline of the life in which this region lost its store, until the regime has given it another one.
    pub(super) async fn lost(&self) -> Option<Timeline> {
        self.inner.lock().await.lost
    }

    /// A ballot that no attempt has used, above everything known here and `above`; durable.
    pub(super) async fn next_ballot(&self, above: Ballot) -> Result<Ballot, VoteError> {
        let mut inner = self.inner.lock().await;
        let ballot = inner.voter.as_mut().ok_or(VoteError::NoMemory)?.next_ballot(self.region.id(), above);
        inner.dirty = true;
        self.settle(&mut inner).await?;
        Ok(ballot)
    }

    /// Notes an adopted regime.
    pub(super) async fn adopted(&self, regime: &Regime) -> Result<(), VoteError> {
        let mut inner = self.inner.lock().await;
        if inner.lost.is_some() && inner.lost != regime.timeline_of(self.region.id()) {
            inner.lost = None;
            inner.dirty = true;
        }
        let Some(voter) = inner.voter.as_mut() else { return Ok(()) };
        let persist = voter.adopt(regime.epoch);
        inner.dirty |= persist;
        self.settle(&mut inner).await
    }

    /// Makes the state durable if it is not, and only then lets the rest of the region act on the promise.
    async fn settle(&self, inner: &mut Inner) -> Result<(), VoteError> {
        let Some(voter) = inner.voter.as_ref() else { return Ok(()) };
        if inner.dirty && !is_broken(Rule::DurablePromise) {
            let state = Bytes::from(postcard::to_stdvec(voter.state()).unwrap_or_default());
            let lost = Bytes::from(postcard::to_stdvec(&inner.lost).unwrap_or_default());
            let meta = vec![(VOTER_KEY.to_owned(), state), (LOST_KEY.to_owned(), lost)];
            self.region.writer.persist(meta).await?;
        }
        let promised = voter.promised_epoch();
        inner.dirty = false;
        self.region.set_promised(promised);
        Ok(())
    }

    /// Gives a region without a memory its voter, from what enough others remember. A region that starts for the first
    /// time among others that have never voted starts anew. Returns whether it votes now.
    pub(super) async fn recall(&self, genesis: &Regime, peers: &Peers) -> Result<bool, VoteError> {
        if self.has_memory().await {
            return Ok(true);
        }
        let me = self.region.id();
        let alone = genesis.members.len() == 1;
        let answers: Vec<(RegionId, Result<VoterStateView, CallError>)> = peers.ask_all(VOTER_STATE_PATH).await;
        let heard: Vec<(RegionId, Option<VoterState>)> =
            answers.into_iter().filter_map(|(peer, answer)| Some((peer, answer.ok()?.state))).collect();
        let now = self.region.clock.boot_ns();
        let fresh = VoterState { promised_epoch: genesis.epoch, ..VoterState::default() };
        // Where the regime has gone on, a region without a memory knows nothing and does not count: two regions that lost
        // their disks must not vouch for each other. (Ballots and leases of the beginning do not count as going on: of
        // three regions that start together one is always first.)
        let has_gone_on =
            |state: &VoterState| state.acceptor.accepted.is_some() || state.promised_epoch > genesis.epoch;
        let begun = heard.iter().any(|(_, state)| state.as_ref().is_some_and(has_gone_on));
        let states: Vec<(RegionId, VoterState)> = heard
            .into_iter()
            .filter_map(|(peer, state)| Some((peer, state.or_else(|| (!begun).then(|| fresh.clone()))?)))
            .collect();
        let rejoined = Voter::rejoin(me, genesis, &states, now);
        let voter = match rejoined {
            None if !alone => return Ok(false),
            // Nobody has promised or accepted anything beyond the beginning: so did this region.
            _ if states.iter().all(|(_, state)| *state == fresh) => Voter::new(genesis),
            Some(voter) => voter,
            None => Voter::new(genesis),
        };
        let known = states.iter().filter_map(|(_, state)| state.acceptor.accepted.as_ref());
        let known = known.max_by_key(|(ballot, _)| *ballot).map(|(_, regime)| regime);
        let mut inner = self.inner.lock().await;
        inner.voter = Some(voter);
        inner.dirty = true;
        if begun {
            inner.lost = known.unwrap_or(genesis).timeline_of(me);
        }
        self.settle(&mut inner).await?;
        Ok(true)
    }
}
