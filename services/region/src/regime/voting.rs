//! This region's vote: the voter, durable before it answers.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::{Epoch, RegionId};
use longhaul_core::regime::Regime;
use longhaul_core::register::Ballot;
use longhaul_core::voter::{Voter, VoterReply, VoterRequest, VoterState};
use longhaul_http::client::CallError;
use tokio::sync::Mutex;

use super::messages::{VOTER_STATE_PATH, VoterStateView};
use super::peers::Peers;
use crate::state::Region;
use crate::writer::WriterGone;

/// The durable name of the voter's state.
pub(super) const VOTER_KEY: &str = "voter";

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
}

/// Why there is no vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum VoteError {
    /// It has not heard enough others to know what it may have promised before it lost its memory.
    #[error("this region has no memory of its votes and has not heard enough other regions yet; start them")]
    NoMemory,
    /// The writer has stopped.
    #[error(transparent)]
    Gone(#[from] WriterGone),
}

impl Voting {
    /// The voter as the store remembers it, or none yet.
    pub(super) fn new(region: Arc<Region>, stored: Option<&Bytes>) -> Self {
        let voter = stored.and_then(|bytes| postcard::from_bytes::<VoterState>(bytes).ok());
        let voter = voter.map(|state| Voter::restore(state, region.clock.boot_ns()));
        if let Some(voter) = &voter {
            region.set_promised(voter.promised_epoch());
        }
        Self { region, inner: Mutex::new(Inner { voter, dirty: false }) }
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
        let mut inner = self.inner.lock().await;
        let voter = inner.voter.as_mut().ok_or(VoteError::NoMemory)?;
        let effect = voter.handle(request, self.region.clock.boot_ns());
        inner.dirty |= effect.persist;
        self.settle(&mut inner).await?;
        Ok(effect.reply)
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
    pub(super) async fn adopted(&self, epoch: Epoch) -> Result<(), VoteError> {
        let mut inner = self.inner.lock().await;
        let Some(voter) = inner.voter.as_mut() else { return Ok(()) };
        let persist = voter.adopt(epoch);
        inner.dirty |= persist;
        self.settle(&mut inner).await
    }

    /// Makes the state durable if it is not, and only then lets the rest of the region act on the promise.
    async fn settle(&self, inner: &mut Inner) -> Result<(), VoteError> {
        let Some(voter) = inner.voter.as_ref() else { return Ok(()) };
        if inner.dirty {
            let bytes = postcard::to_stdvec(voter.state()).unwrap_or_default();
            self.region.writer.persist(vec![(VOTER_KEY.to_owned(), Bytes::from(bytes))]).await?;
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
        let states: Vec<(RegionId, VoterState)> =
            heard.into_iter().map(|(peer, state)| (peer, state.unwrap_or_else(|| fresh.clone()))).collect();
        let rejoined = Voter::rejoin(me, genesis, &states, now);
        let voter = match rejoined {
            None if !alone => return Ok(false),
            // Nobody has promised or accepted anything beyond the beginning: so did this region.
            _ if states.iter().all(|(_, state)| *state == fresh) => Voter::new(genesis),
            Some(voter) => voter,
            None => Voter::new(genesis),
        };
        let mut inner = self.inner.lock().await;
        inner.voter = Some(voter);
        inner.dirty = true;
        self.settle(&mut inner).await?;
        Ok(true)
    }
}
