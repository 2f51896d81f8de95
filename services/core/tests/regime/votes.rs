//! Register, lease and failover of the regions in the world.

use std::collections::BTreeMap;
use std::rc::Rc;

use longhaul_core::failover::{self, Decision, Fenced, Inputs};
use longhaul_core::ids::{Epoch, RegionId, Timeline};
use longhaul_core::lease::Lease;
use longhaul_core::regime::{Durability, Regime};
use longhaul_core::register::{Accept, Ballot, Intent, Outcome, Prepare, Progress, Proposer};
use longhaul_core::transition::{Author, reassert, rollback};
use longhaul_core::voter::{LeaseRefusal, Release, VoterReply, VoterRequest};
use uuid::Uuid;

use crate::world::{Event, Message, Mutant, World};

/// A change of the register under way at a region; volatile.
pub(crate) struct Attempt {
    pub proposer: Proposer,
    pub prepare: Prepare,
    pub accept: Option<Box<Accept>>,
    pub fenced: BTreeMap<RegionId, Fenced>,
    /// Nothing is waited for without a deadline.
    pub deadline_ms: u64,
    /// A failover waits so long for further promises.
    pub patience_until_ms: u64,
    pub allow_data_loss: bool,
}

impl World {
    pub(crate) fn author(&mut self, by: RegionId) -> Author {
        Author { id: self.identity(), by, reason: "random".to_owned(), trace: None }
    }

    pub(crate) fn identity(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random.below(u64::MAX), self.random.below(u64::MAX))
    }

    /// A voter answers, durably unless that is what is broken.
    pub(crate) fn vote(&mut self, id: RegionId, request: &VoterRequest) -> (VoterReply, Option<Fenced>) {
        let now_ns = self.now_ns();
        let forgets = self.is(Mutant::PromiseNotDurable) && matches!(request, VoterRequest::Prepare(_));
        let no_promise = self.is(Mutant::NoPromise);
        let region = self.region(id);
        let fences = matches!(request, VoterRequest::Prepare(Prepare { fence: Some(_), .. }));
        let effect = match request {
            VoterRequest::Prepare(prepare) if no_promise => {
                region.voter.handle(&VoterRequest::Prepare(Prepare { fence: None, ..prepare.clone() }), now_ns)
            }
            _ => region.voter.handle(request, now_ns),
        };
        if effect.persist && !forgets {
            region.disk.voter = region.voter.state().clone();
        }
        let promised = region.voter.promised_epoch();
        let fenced = (fences && matches!(effect.reply, VoterReply::Promise(_))).then(|| region.fenced());
        self.oracle.promised(id, promised);
        (effect.reply, fenced)
    }

    fn ask(&mut self, from: RegionId, to: RegionId, request: VoterRequest) {
        if from == to {
            let (reply, fenced) = self.vote(to, &request);
            self.on_answer(from, to, &reply, fenced);
        } else {
            self.send(from, to, Message::Ask(request));
        }
    }

    /// Asks every voter, the own one first.
    fn ask_all(&mut self, from: RegionId, request: &VoterRequest) {
        self.ask(from, from, request.clone());
        for to in self.ids() {
            if to != from {
                self.ask(from, to, request.clone());
            }
        }
    }

    pub(crate) fn renew(&mut self, id: RegionId) {
        let now_ns = self.now_ns();
        let (now_ms, no_lease) = (self.now_ms, self.is(Mutant::NoLease));
        let runs = self.runs(id);
        let region = self.region(id);
        region.attempt.take_if(|attempt| now_ms >= attempt.deadline_ms);
        if !runs || no_lease {
            return;
        }
        if let Some(request) = region.lease.as_ref().and_then(|lease| lease.request(now_ns)) {
            self.ask_all(id, &VoterRequest::Lease(request));
        }
        self.acknowledge(id);
    }

    pub(crate) fn start(&mut self, id: RegionId, intent: Intent, allow_data_loss: bool) {
        let genesis = (*self.genesis).clone();
        let region = self.region(id);
        let ballot = region.voter.next_ballot(id, Ballot::GENESIS);
        region.disk.voter = region.voter.state().clone();
        let (proposer, prepare) = Proposer::begin(ballot, genesis, intent);
        let patience = self.random.below(1500);
        let attempt = Attempt {
            proposer,
            prepare: prepare.clone(),
            accept: None,
            fenced: BTreeMap::new(),
            deadline_ms: self.now_ms + 5000,
            patience_until_ms: self.now_ms + patience,
            allow_data_loss,
        };
        self.region(id).attempt = Some(attempt);
        self.ask_all(id, &VoterRequest::Prepare(prepare));
    }

    pub(crate) fn compare_and_set(&mut self, id: RegionId, next: Regime, release: Option<Release>) {
        let expected = self.epoch_of(id);
        self.start(id, Intent::CompareAndSet { expected, next: Box::new(next), release }, false);
    }

    pub(crate) fn on_answer(&mut self, id: RegionId, from: RegionId, reply: &VoterReply, fenced: Option<Fenced>) {
        match reply {
            VoterReply::Granted { epoch, sent_boot_ns } => {
                if let Some(lease) = &mut self.region(id).lease {
                    lease.granted(from, *epoch, *sent_boot_ns);
                }
                self.acknowledge(id);
            }
            VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised }) => self.on_lease_fenced(id, *promised),
            VoterReply::LeaseRefused(LeaseRefusal::GivenBack { epoch }) => self.on_lease_fenced(id, epoch.next()),
            VoterReply::LeaseRefused(_) | VoterReply::Released => {}
            _ => self.on_vote(id, from, reply, fenced),
        }
    }

    /// The primary finds that voters are fenced: it proposes itself again, or learns who replaced it.
    fn on_lease_fenced(&mut self, id: RegionId, promised: Epoch) {
        let busy = self.region(id).attempt.is_some() || self.region(id).driver.is_some();
        let regime = self.regions[&id].regime().clone();
        if busy || !regime.is_primary(id) || promised <= regime.epoch || regime.transition.is_some() {
            return;
        }
        let author = self.author(id);
        self.compare_and_set(id, reassert(&regime, promised, &author), None);
    }

    fn on_vote(&mut self, id: RegionId, from: RegionId, reply: &VoterReply, fenced: Option<Fenced>) {
        let Some(attempt) = &mut self.region(id).attempt else {
            return;
        };
        if let (Some(fenced), VoterReply::Promise(promise)) = (fenced, reply)
            && promise.ballot == attempt.proposer.ballot()
        {
            attempt.fenced.insert(from, fenced);
        }
        let progress = attempt.proposer.on_reply(from, reply);
        self.advance(id, progress);
    }

    fn advance(&mut self, id: RegionId, progress: Progress) {
        match progress {
            Progress::Pending => {}
            Progress::Send(accept) => {
                if let Some(attempt) = &mut self.region(id).attempt {
                    attempt.accept = Some(accept.clone());
                }
                self.ask_all(id, &VoterRequest::Accept(accept));
            }
            Progress::Retry { voter, after_ms } => {
                if let Some(attempt) = &self.region(id).attempt {
                    let ballot = attempt.proposer.ballot();
                    self.schedule(after_ms + 1, Event::Again { region: id, voter, ballot });
                }
            }
            Progress::Fenced => {
                if let Some(attempt) = &self.region(id).attempt {
                    let ballot = attempt.proposer.ballot();
                    self.plan_failover(id, ballot);
                }
            }
            Progress::Done(outcome) => {
                self.region(id).attempt = None;
                match outcome {
                    Outcome::Chosen(regime) | Outcome::Stale { current: regime } => {
                        let regime = Rc::new(*regime);
                        self.oracle.chosen(&regime);
                        self.adopt(id, &regime);
                    }
                    Outcome::Unlawful(_) | Outcome::Preempted { .. } => {}
                }
            }
        }
    }

    pub(crate) fn ask_again(&mut self, id: RegionId, voter: RegionId, ballot: Ballot) {
        let region = &self.regions[&id];
        let Some(attempt) = region.attempt.as_ref().filter(|a| self.runs(id) && a.proposer.ballot() == ballot) else {
            return;
        };
        let request = match &attempt.accept {
            Some(accept) => VoterRequest::Accept(accept.clone()),
            None => VoterRequest::Prepare(attempt.prepare.clone()),
        };
        self.ask(id, voter, request);
    }

    pub(crate) fn fail_over(&mut self, id: RegionId, allow_data_loss: bool) {
        let region = &self.regions[&id];
        let expected = region.regime().epoch;
        let fence = expected.next().max(region.voter.promised_epoch());
        self.start(id, Intent::Fence { expected, fence }, allow_data_loss);
    }

    /// Plans again with whatever was heard; fetches over links that carry at this moment.
    pub(crate) fn plan_failover(&mut self, id: RegionId, ballot: Ballot) {
        let mut chains = BTreeMap::new();
        for _ in 0..20 {
            let everybody = self.regions.len();
            let region = &self.regions[&id];
            let Some(attempt) = region.attempt.as_ref().filter(|a| self.runs(id) && a.proposer.ballot() == ballot)
            else {
                return;
            };
            if attempt.accept.is_some() || attempt.fenced.len() < self.genesis.majority() {
                return;
            }
            if attempt.fenced.len() < everybody && self.now_ms < attempt.patience_until_ms {
                let wait = attempt.patience_until_ms - self.now_ms;
                self.schedule(wait, Event::Fence(id, ballot));
                return;
            }
            let current = attempt.proposer.current();
            let old = current.primary.expect("always active-passive");
            let inputs = Inputs {
                fenced: attempt.fenced.clone(),
                latency_rank: BTreeMap::new(),
                chains: chains.clone(),
                last_head: None,
                old_is_lost: false,
                allow_data_loss: attempt.allow_data_loss,
                prefer: None,
                id: Uuid::from_u128(u128::from(ballot.round) << 16 | u128::from(id.0)),
                by: id,
                reason: "random".to_owned(),
                trace: None,
            };
            let decision = self.decide(&current, inputs);
            match decision {
                Err(failover::FailoverRefusal::Diverged { a, b, dot }) => {
                    self.oracle.violate(format!("DIVERGED: regions {a} and {b} at {dot}"));
                    return;
                }
                Err(_) => return,
                Ok(Decision::Verify(queries)) => {
                    for query in queries {
                        let chain = self.regions[&query.region].chain_at(query.dot.timeline, query.dot.seq);
                        chains.insert((query.region, query.dot), chain);
                    }
                }
                Ok(Decision::TopUp { candidate, fetches }) => {
                    for fetch in fetches {
                        self.top_up(id, candidate, fetch.from, fetch.timeline, fetch.up_to);
                    }
                }
                Ok(Decision::Flip(flip)) => {
                    let sealed = current.timeline_of(old).expect("the primary is a member");
                    self.oracle.failover(sealed, &flip);
                    let attempt = self.region(id).attempt.as_mut().expect("checked above");
                    let progress = attempt.proposer.complete(flip.regime, None);
                    self.advance(id, progress);
                    return;
                }
            }
        }
    }

    /// The shipped planner, with its input or output bent by a mutant.
    fn decide(&mut self, current: &Regime, mut inputs: Inputs) -> Result<Decision, failover::FailoverRefusal> {
        let mut current = current.clone();
        let durability = current.durability;
        if self.is(Mutant::TooFewHeard) {
            current.durability = Durability::Local;
        }
        if self.is(Mutant::AnyCandidate) {
            let old = current.primary;
            let heard: Vec<RegionId> = inputs.fenced.keys().copied().filter(|region| Some(*region) != old).collect();
            let lucky = heard[self.random.below(heard.len() as u64) as usize];
            for (region, fenced) in &mut inputs.fenced {
                if *region != lucky {
                    fenced.position.positions.clear();
                }
            }
            inputs.prefer = Some(lucky);
        }
        let mut decision = failover::plan(&current, &inputs)?;
        if let Decision::Flip(flip) = &mut decision {
            flip.regime.durability = durability;
        }
        Ok(decision)
    }

    fn top_up(&mut self, id: RegionId, candidate: RegionId, from: RegionId, timeline: Timeline, up_to: u64) {
        // A candidate takes a top-up only under the regime from which it was planned: a later one may have cut there.
        let planned = self.regions[&id].attempt.as_ref().map(|attempt| attempt.proposer.current().epoch);
        let in_time = planned.is_some_and(|epoch| self.epoch_of(candidate) <= epoch);
        let carried = in_time && self.reachable(candidate, from) && self.reachable(id, candidate);
        if carried {
            let have = self.regions[&candidate].length(timeline) as usize;
            let log = self.regions[&from].disk.log.get(&timeline).cloned().unwrap_or_default();
            let up_to = (up_to as usize).min(log.len());
            if have < up_to {
                let target = self.region(candidate).disk.log.entry(timeline).or_default();
                target.extend_from_slice(&log[have..up_to]);
            }
        }
        let fresh = self.regions[&candidate].fenced();
        if let Some(attempt) = &mut self.region(id).attempt {
            if carried {
                attempt.fenced.insert(candidate, fresh);
            } else {
                attempt.fenced.remove(&from);
            }
        }
    }

    /// Adopts a chosen regime: seals, quarantines, and takes up or lays down the primary's part.
    pub(crate) fn adopt(&mut self, id: RegionId, regime: &Rc<Regime>) {
        let now_ns = self.now_ns();
        let keeps_tails = self.is(Mutant::NoCut);
        let region = self.region(id);
        if regime.epoch <= region.disk.regime.epoch {
            return;
        }
        let before = std::mem::replace(&mut region.disk.regime, regime.clone());
        if region.voter.adopt(regime.epoch) {
            region.disk.voter = region.voter.state().clone();
        }
        if !keeps_tails {
            for (timeline, log) in &mut region.disk.log {
                let sealed = regime.cuts.iter().find(|(cut, _)| cut == timeline).map(|(_, seq)| seq as usize);
                if let Some(cut) = sealed.filter(|cut| log.len() > *cut) {
                    region.disk.quarantine.extend(log.split_off(cut));
                }
            }
        }
        if before.timeline_of(id) != regime.timeline_of(id) {
            region.pending.clear();
        }
        if regime.is_primary(id) {
            match &mut region.lease {
                Some(lease) => lease.advance(regime.epoch, now_ns),
                None => region.lease = Some(Lease::new(id, regime, now_ns)),
            }
        } else {
            region.lease = None;
        }
        let promised = region.voter.promised_epoch();
        self.oracle.promised(id, promised);
        self.oracle.adopted(id, regime);
        if let Some(transition) = &regime.transition {
            let (deadline, transition) = (transition.deadline_ms, transition.id);
            self.schedule(deadline, Event::Rollback(id, transition));
        }
        if regime.is_primary(id) {
            self.renew(id);
        }
    }

    /// A region gives up a transition that outlived its deadline.
    pub(crate) fn roll_back(&mut self, id: RegionId, transition: Uuid) {
        let regime = self.regions[&id].regime().clone();
        if regime.transition.as_ref().is_none_or(|under_way| under_way.id != transition) {
            return;
        }
        self.schedule(700, Event::Rollback(id, transition));
        let region = &self.regions[&id];
        if self.runs(id)
            && region.attempt.is_none()
            && let Some(next) = rollback(&regime, id, "deadline".to_owned())
        {
            self.oracle.summary.rollbacks += 1;
            self.compare_and_set(id, next, None);
        }
    }
}
