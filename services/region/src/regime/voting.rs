//! This region's vote: the voter, durable before it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::{RegionId, Timeline};
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::regime::Regime;
use longhaul_core::register::Ballot;
use longhaul_core::voter::{Voter, VoterReply, VoterRequest, VoterState};
use longhaul_http::client::CallError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::messages::{Introduction, VOTER_STATE_PATH, VoterStateView};
use super::peers::Peers;
use crate::failpoint::{FailPoint, reach};
use crate::state::{Blocker, Region};
use crate::writer::WriterGone;

/// The durable name of the voter's state.
pub(super) const VOTER_KEY: &str = "voter";

/// The durable name of the timeline that this region wrote before it lost its store.
const LOST_KEY: &str = "voter_lost";

/// The durable name of what tells this store from another one that the region may have had before.
const LIFE_KEY: &str = "voter_life";

/// The durable name of the lives in which other regions have introduced themselves.
const MET_KEY: &str = "voter_met";

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
    /// What tells this store from another one; absent until it is needed.
    life: Option<Uuid>,
    /// The first store with which each region has introduced itself here.
    met: BTreeMap<RegionId, Uuid>,
}

impl Inner {
    fn view(&self, lived_before: bool) -> VoterStateView {
        VoterStateView { state: self.voter.as_ref().map(|voter| voter.state().clone()), lived_before }
    }
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
    pub(super) fn new(region: Arc<Region>, meta: &BTreeMap<String, Bytes>) -> Self {
        let voter: Option<VoterState> = stored(meta, VOTER_KEY);
        // Another process may have granted a lease for this voter until the moment from which this one answers.
        let granted_until = region.clock.boot_ns().max(region.tenure_from());
        let voter = voter.map(|state| Voter::restore(state, granted_until));
        if let Some(voter) = &voter {
            region.set_promised(voter.promised_epoch());
        }
        let lost = stored(meta, LOST_KEY).flatten();
        let first = region.config.peers.is_empty() || region.config.unsafe_boot;
        region.block(Blocker::Introducing, !first && (voter.is_none() || lost.is_some()));
        let (life, met) = (stored(meta, LIFE_KEY), stored(meta, MET_KEY).unwrap_or_default());
        Self { region, inner: Mutex::new(Inner { voter, dirty: false, lost, life, met }) }
    }

    /// Whether it votes.
    pub(super) async fn has_memory(&self) -> bool {
        self.inner.lock().await.voter.is_some()
    }

    /// What it knows, for whoever looks.
    pub(super) async fn view(&self) -> VoterStateView {
        self.inner.lock().await.view(false)
    }

    /// Meets a peer whose store is new: what this voter knows, and whether the peer had another store before. It is
    /// remembered, durably, before the peer hears of it: what the peer then writes may be known to nobody else.
    pub(super) async fn meet(&self, peer: Introduction) -> Result<VoterStateView, WriterGone> {
        let mut inner = self.inner.lock().await;
        let known = inner.met.get(&peer.region).copied();
        if known.is_none() {
            let mut met = inner.met.clone();
            met.insert(peer.region, peer.life);
            self.region.writer.persist(vec![(MET_KEY.to_owned(), bytes(&met))]).await?;
            inner.met = met;
        }
        Ok(inner.view(known.is_some_and(|life| life != peer.life)))
    }

    /// What tells this store from another one that the region may have had before; durable.
    async fn life(&self) -> Result<Uuid, WriterGone> {
        let mut inner = self.inner.lock().await;
        if let Some(life) = inner.life {
            return Ok(life);
        }
        let life = self.region.random_uuid();
        self.region.writer.persist(vec![(LIFE_KEY.to_owned(), bytes(&life))]).await?;
        inner.life = Some(life);
        Ok(life)
    }

    /// Answers a request; what it promises is durable before this returns.
    pub(super) async fn handle(&self, request: &VoterRequest) -> Result<VoterReply, VoteError> {
        if let VoterRequest::Prepare(prepare) = request
            && prepare.fence.is_some()
            && prepare.ballot.region != self.region.id()
        {
            let (epoch, now_ns) = (self.region.regime().epoch, self.region.clock.boot_ns());
            self.region.note_attempt(epoch, prepare.ballot.region, now_ns);
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

    /// Notes, durably, that this region lost some of what it wrote in a life. Its log may be whole again after a restart,
    /// because the others had it; what it wrote last is still gone, and its places must not be given to anything else.
    pub(super) async fn lose(&self, timeline: Timeline) -> Result<(), VoteError> {
        let mut inner = self.inner.lock().await;
        let lost = later(inner.lost, timeline);
        if inner.lost == lost || self.region.regime().timeline_of(self.region.id()) != Some(timeline) {
            return Ok(());
        }
        inner.lost = lost;
        inner.dirty = true;
        self.region.block(Blocker::Introducing, true);
        self.settle(&mut inner).await
    }

    /// The timeline of the life in which this region lost its store, until the regime has given it another one.
    pub(super) async fn lost(&self) -> Option<Timeline> {
        self.inner.lock().await.lost
    }

    /// The same for whoever must not wait for a vote that is being made durable: what it knew before, while one is.
    pub(super) fn lost_now(&self, before: Option<Timeline>) -> Option<Timeline> {
        self.inner.try_lock().map_or(before, |inner| inner.lost)
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
        let own = regime.timeline_of(self.region.id());
        if inner.lost.is_some_and(|lost| is_left_behind(lost, own)) {
            inner.lost = None;
            inner.dirty = true;
            self.region.block(Blocker::Introducing, false);
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
            let meta = vec![(VOTER_KEY.to_owned(), bytes(voter.state())), (LOST_KEY.to_owned(), bytes(&inner.lost))];
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
        let introduction = Introduction { region: me, life: self.life().await? };
        let answers: Vec<(RegionId, Result<VoterStateView, CallError>)> =
            peers.tell_all(VOTER_STATE_PATH, &introduction).await;
        let heard: Vec<(RegionId, VoterStateView)> =
            answers.into_iter().filter_map(|(peer, answer)| Some((peer, answer.ok()?))).collect();
        let now = self.region.clock.boot_ns();
        let fresh = VoterState { promised_epoch: genesis.epoch, ..VoterState::default() };
        // Where the regime has gone on, a region without a memory knows nothing and does not count: two regions that lost
        // their disks must not vouch for each other. (Ballots and leases of the beginning do not count as going on: of
        // three regions that start together one is always first.)
        let has_gone_on =
            |state: &VoterState| state.acceptor.accepted.is_some() || state.promised_epoch > genesis.epoch;
        // Nor does the regime tell of a life in which nothing but writes went on, which may be nowhere else.
        let begun = heard.iter().any(|(_, view)| view.lived_before || view.state.as_ref().is_some_and(has_gone_on));
        let states: Vec<(RegionId, VoterState)> = heard
            .into_iter()
            .filter_map(|(peer, view)| Some((peer, view.state.or_else(|| (!begun).then(|| fresh.clone()))?)))
            .collect();
        let rejoined = Voter::rejoin(me, genesis, &states, now);
        let voter = match rejoined {
            None if !alone => return Ok(false),
            // Nobody has promised or accepted anything beyond the beginning: so did this region.
            _ if !begun && states.iter().all(|(_, state)| *state == fresh) => Voter::new(genesis),
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
        self.region.block(Blocker::Introducing, inner.lost.is_some());
        Ok(true)
    }
}

/// The later of the lives in which a region lost something. What it learns of an earlier one, from a regime that it has not
/// left behind yet, must not make it forget that it lost its store in the one that the others have given it since.
fn later(known: Option<Timeline>, timeline: Timeline) -> Option<Timeline> {
    known.filter(|known| known.incarnation >= timeline.incarnation).or(Some(timeline))
}

/// Whether a region whose own timeline is `own` now has a life that it has not lost. On the way to the newest regime it may
/// adopt one in which it still had an earlier life.
fn is_left_behind(lost: Timeline, own: Option<Timeline>) -> bool {
    own.is_some_and(|own| own.incarnation > lost.incarnation)
}

fn stored<T: DeserializeOwned>(meta: &BTreeMap<String, Bytes>, key: &str) -> Option<T> {
    meta.get(key).and_then(|bytes| postcard::from_bytes(bytes).ok())
}

fn bytes(value: &impl Serialize) -> Bytes {
    Bytes::from(postcard::to_stdvec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_in_an_earlier_life_does_not_make_the_later_one_whole() {
        let life = |incarnation| Timeline::new(3, incarnation);
        assert_eq!(later(None, life(1)), Some(life(1)));
        assert_eq!(later(Some(life(1)), life(2)), Some(life(2)));
        assert_eq!(later(Some(life(2)), life(1)), Some(life(2)));
        let left_behind = [1, 2, 3].map(|own| is_left_behind(life(2), Some(life(own))));
        assert_eq!(left_behind, [false, false, true]);
    }
}
