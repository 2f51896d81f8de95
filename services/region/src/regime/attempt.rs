//! One attempt to read or change the register: a pure proposer and the messages that it asks for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::Regime;
use longhaul_core::register::{Ballot, Intent, Outcome, Progress, Proposer};
use longhaul_core::voter::{VoterReply, VoterRequest};

use super::RegimeRole;
use super::messages::VOTE_PATH;
use super::voting::VoteError;

type Reply = Pin<Box<dyn Future<Output = (RegionId, Option<VoterReply>)> + Send>>;

/// An attempt under way.
pub(super) struct Attempt {
    role: Arc<RegimeRole>,
    proposer: Proposer,
    /// The last message to the voters: what a voter that asks to wait gets again.
    message: VoterRequest,
    replies: FuturesUnordered<Reply>,
}

impl Attempt {
    /// Draws a ballot and sends the first phase to every voter.
    pub(super) async fn begin(role: &Arc<RegimeRole>, above: Ballot, intent: Intent) -> Result<Self, VoteError> {
        let ballot = role.voting.next_ballot(above).await?;
        let (proposer, prepare) = Proposer::begin(ballot, role.genesis.clone(), intent);
        let message = VoterRequest::Prepare(prepare);
        let mut attempt = Self { role: Arc::clone(role), proposer, message, replies: FuturesUnordered::new() };
        attempt.send_all();
        Ok(attempt)
    }

    /// The proposer, for what it has learned.
    pub(super) const fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// Waits for replies until something is to be decided: the fence stands (again, with one voter more), or the
    /// attempt is over. `None`: every voter has answered or failed and nothing can follow any more; whether a value
    /// that was sent has been chosen is unknown then.
    pub(super) async fn next(&mut self) -> Option<Progress> {
        loop {
            let (voter, reply) = self.replies.next().await?;
            let Some(reply) = reply else { continue };
            match self.proposer.on_reply(voter, &reply) {
                Progress::Pending => {}
                progress => {
                    if let Some(decision) = self.follow(progress) {
                        return Some(decision);
                    }
                }
            }
        }
    }

    /// Ends the fenced phase with a regime.
    pub(super) fn complete(&mut self, next: Regime) -> Option<Progress> {
        let progress = self.proposer.complete(next, None);
        self.follow(progress)
    }

    /// Lets what is under way to slower voters arrive although the outcome is known. It may carry the release of a lease:
    /// a voter that never gets it keeps the next primary waiting until the lease has run out.
    fn deliver_rest(self) {
        let (region, mut replies) = (Arc::clone(&self.role.region), self.replies);
        let shutdown = region.shutdown.clone();
        region.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = async { while replies.next().await.is_some() {} } => {}
            }
        });
    }

    fn follow(&mut self, progress: Progress) -> Option<Progress> {
        match progress {
            Progress::Pending => None,
            Progress::Send(accept) => {
                self.message = VoterRequest::Accept(accept);
                self.send_all();
                None
            }
            Progress::Retry { voter, after_ms } => {
                self.send(voter, Duration::from_millis(after_ms));
                None
            }
            Progress::Fenced | Progress::Done(_) => Some(progress),
        }
    }

    fn send_all(&mut self) {
        let voters: Vec<RegionId> = self.role.genesis.members.keys().copied().collect();
        for voter in voters {
            self.send(voter, Duration::ZERO);
        }
    }

    fn send(&mut self, voter: RegionId, after: Duration) {
        let (role, message) = (Arc::clone(&self.role), self.message.clone());
        self.replies.push(Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            (voter, role.vote(voter, &message).await)
        }));
    }
}

impl RegimeRole {
    /// Sends a message to a voter (the own one directly); `None` if there is no answer.
    pub(super) async fn vote(self: &Arc<Self>, voter: RegionId, message: &VoterRequest) -> Option<VoterReply> {
        if voter == self.region.id() {
            // In a task of its own: an attempt that has its outcome asks for no more answers, and a vote on its way to
            // the disk would keep the voter from everybody else for as long as that attempt is there.
            let (role, message) = (Arc::clone(self), message.clone());
            let vote = self.region.tracker.spawn(async move { role.voting.handle(&message).await.ok() });
            return vote.await.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => None,
            });
        }
        self.peers.post(voter, VOTE_PATH, message).await.ok()
    }

    /// Reads or changes the register; tries again while other attempts get in the way. The regime that the register is
    /// known to hold afterwards is adopted here before this returns.
    pub(super) async fn change(self: &Arc<Self>, intent: Intent) -> Result<Outcome, ChangeError> {
        const TRIES: u32 = 6;
        let mut above = Ballot::GENESIS;
        for attempt_number in 1..=TRIES {
            let mut attempt = Attempt::begin(self, above, intent.clone()).await?;
            let outcome = loop {
                match attempt.next().await {
                    Some(Progress::Done(outcome)) => break Some(outcome),
                    Some(_) => {}
                    None => break None,
                }
            };
            match outcome {
                Some(Outcome::Preempted { by }) => {
                    // Whether a value that was sent has been chosen is unknown: the same compare-and-set again either
                    // finds it (as `Stale` with its own change id) or writes it.
                    above = by;
                    let most = 50 * u64::from(attempt_number);
                    tokio::time::sleep(Duration::from_millis(10 + self.region.random_below(most))).await;
                }
                Some(outcome) => {
                    attempt.deliver_rest();
                    if let Outcome::Chosen(regime) | Outcome::Stale { current: regime } = &outcome {
                        self.adopt_and_tell(regime).await?;
                    }
                    return Ok(outcome);
                }
                None => return Err(ChangeError::NoMajority),
            }
        }
        Err(ChangeError::Contended)
    }

    /// Replaces the regime by its successor; the regime in force afterwards. An unknown outcome is settled by reading.
    pub(super) async fn replace(
        self: &Arc<Self>,
        next: Regime,
        expected: longhaul_core::ids::Epoch,
        release: Option<longhaul_core::voter::Release>,
    ) -> Result<Regime, ChangeError> {
        let id = next.change.id;
        let wanted = next.epoch;
        let intent = Intent::CompareAndSet { expected, next: Box::new(next), release };
        let outcome = match self.change(intent).await {
            Err(ChangeError::NoMajority) => self.change(Intent::Read).await?,
            other => other?,
        };
        match outcome {
            Outcome::Chosen(regime) | Outcome::Stale { current: regime }
                if regime.change.id == id && regime.epoch >= wanted =>
            {
                Ok(*regime)
            }
            Outcome::Chosen(regime) | Outcome::Stale { current: regime } => {
                Err(ChangeError::Overtaken { epoch: regime.epoch.0, reason: regime.change.reason })
            }
            Outcome::Unlawful(reason) => Err(ChangeError::Unlawful(reason.to_string())),
            Outcome::Preempted { .. } => Err(ChangeError::Contended),
        }
    }
}

/// Why the register was not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ChangeError {
    #[error("no majority of the voters answered; start the regions that are down, or heal their links")]
    NoMajority,
    #[error("other regions are changing the regime at the same time; try again")]
    Contended,
    #[error("the regime changed meanwhile (epoch {epoch}: {reason}); plan again")]
    Overtaken { epoch: u64, reason: String },
    #[error("the change is not lawful: {0}")]
    Unlawful(String),
    #[error(transparent)]
    Vote(#[from] VoteError),
    #[error(transparent)]
    Gone(#[from] crate::writer::WriterGone),
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use bytes::Bytes;
    use longhaul_core::voter::VoterState;

    use super::super::Seed;
    use super::super::voting::VOTER_KEY;
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::writer::bench::Bench;

    #[tokio::test]
    async fn a_vote_that_nobody_asks_for_any_more_does_not_keep_the_voter_from_others() {
        let bench = Bench::start_on(MemoryStore::new().with_flush_delay(Duration::from_millis(20))).await;
        let memory = Bytes::from(postcard::to_stdvec(&VoterState::default()).unwrap());
        let seed = Seed { meta: [(VOTER_KEY.to_owned(), memory)].into() };
        let role = Arc::new(RegimeRole::new(&bench.region, &seed));
        let expected = bench.region.regime().epoch;
        let fence = Intent::Fence { expected, fence: expected.next() };
        let mut attempt = Attempt::begin(&role, Ballot::GENESIS, fence).await.unwrap();
        // The own promise is on its way to the disk.
        assert!(futures::poll!(pin!(attempt.next())).is_pending());
        tokio::task::yield_now().await;
        let read = tokio::time::timeout(Duration::from_secs(10), role.change(Intent::Read)).await;
        let read = read.expect("the voter answers");
        assert!(matches!(read, Err(ChangeError::NoMajority)), "{read:?}");
        drop(attempt);
    }
}
