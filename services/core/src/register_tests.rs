use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::regime::{Durability, Mode};
use crate::transition::{Author, reassert};
use crate::voter::{Voter, VoterRequest};

fn genesis(regions: u16) -> Regime {
    let regions = (1..=regions).map(RegionId);
    Regime::genesis(regions, Mode::ActivePassive, None, Durability::Local)
}

fn successor(current: &Regime, by: u16, id: u128) -> Regime {
    let author = Author { id: Uuid::from_u128(id), by: RegionId(by), reason: "test".to_owned(), trace: None };
    reassert(current, Epoch(0), &author)
}

/// Voters of which each is asked at once.
struct Bench {
    genesis: Regime,
    /// Whether proposers have learned the voters' ballots from earlier refusals.
    knows_ballots: bool,
    voters: BTreeMap<RegionId, Voter>,
}

impl Bench {
    fn new(regions: u16) -> Self {
        let genesis = genesis(regions);
        let voters = genesis.members.keys().map(|region| (*region, Voter::new(&genesis))).collect();
        Self { genesis, knows_ballots: true, voters }
    }

    fn ask(&mut self, voter: u16, request: &VoterRequest) -> VoterReply {
        self.voters.get_mut(&RegionId(voter)).expect("a member").handle(request, 0).reply
    }

    /// Runs an attempt against the named voters until it ends or they have nothing more to say.
    fn attempt(&mut self, by: u16, intent: Intent, reach: &[u16]) -> Option<Outcome> {
        let above = reach.iter().map(|voter| self.voters[&RegionId(*voter)].state().acceptor.promised).max();
        let own = self.voters.get_mut(&RegionId(by)).expect("a member");
        let ballot = own.next_ballot(RegionId(by), above.filter(|_| self.knows_ballots).unwrap_or(Ballot::GENESIS));
        let (mut proposer, prepare) = Proposer::begin(ballot, self.genesis.clone(), intent);
        let mut request = VoterRequest::Prepare(prepare);
        loop {
            let mut next = None;
            for voter in reach {
                let reply = self.ask(*voter, &request);
                match proposer.on_reply(RegionId(*voter), &reply) {
                    Progress::Done(outcome) => return Some(outcome),
                    Progress::Send(accept) => next = Some(accept),
                    _ => {}
                }
            }
            request = VoterRequest::Accept(next?);
        }
    }
}

fn set(next: &Regime, expected: u64) -> Intent {
    Intent::CompareAndSet { expected: Epoch(expected), next: Box::new(next.clone()), release: None }
}

#[test]
fn a_change_is_chosen_by_a_majority_and_read_back() {
    let mut bench = Bench::new(3);
    let next = successor(&bench.genesis, 1, 1);
    assert_eq!(bench.attempt(1, set(&next, 1), &[1]), None, "one of three is no majority");
    assert_eq!(bench.attempt(1, set(&next, 1), &[1, 2]), Some(Outcome::Chosen(Box::new(next.clone()))));
    assert_eq!(bench.attempt(3, Intent::Read, &[3, 2]), Some(Outcome::Chosen(Box::new(next))));
}

#[test]
fn a_plan_from_an_older_epoch_dies_and_learns_the_present_regime() {
    let mut bench = Bench::new(3);
    let first = successor(&bench.genesis, 1, 1);
    bench.attempt(1, set(&first, 1), &[1, 2]);
    let late = successor(&bench.genesis, 3, 2);
    assert_eq!(bench.attempt(3, set(&late, 1), &[3, 1]), Some(Outcome::Stale { current: Box::new(first) }));
}

#[test]
fn a_value_that_few_accepted_is_written_back_before_it_is_told() {
    let mut bench = Bench::new(3);
    let next = successor(&bench.genesis, 1, 1);
    let accept = Accept { ballot: Ballot { round: 1, region: RegionId(1) }, value: next.clone(), release: None };
    bench.ask(1, &VoterRequest::Accept(Box::new(accept)));
    assert_eq!(bench.attempt(2, Intent::Read, &[2, 1]), Some(Outcome::Chosen(Box::new(next.clone()))));
    // Region 1 is not needed to find it any more.
    assert_eq!(bench.attempt(3, Intent::Read, &[3, 2]), Some(Outcome::Chosen(Box::new(next))));
}

#[test]
fn the_epoch_is_lifted_to_what_voters_have_promised() {
    let mut bench = Bench::new(3);
    let fence = Prepare { ballot: Ballot { round: 1, region: RegionId(3) }, fence: Some(Epoch(7)) };
    bench.ask(2, &VoterRequest::Prepare(fence));
    let next = successor(&bench.genesis, 1, 1);
    let Some(Outcome::Chosen(chosen)) = bench.attempt(1, set(&next, 1), &[1, 2]) else { panic!("not chosen") };
    assert_eq!(chosen.epoch, Epoch(7));
}

#[test]
fn an_attempt_that_cannot_win_says_who_was_higher() {
    let mut bench = Bench { knows_ballots: false, ..Bench::new(3) };
    let higher = Ballot { round: 9, region: RegionId(3) };
    for voter in [2, 3] {
        bench.ask(voter, &VoterRequest::Prepare(Prepare { ballot: higher, fence: None }));
    }
    let outcome = bench.attempt(1, Intent::Read, &[1, 2, 3]);
    assert_eq!(outcome, Some(Outcome::Preempted { by: higher }));
}

#[test]
fn unlawful_successors_are_named() {
    let current = genesis(3);
    let check = |change: &dyn Fn(&mut Regime), by: u16| {
        let mut next = successor(&current, by, 1);
        change(&mut next);
        check_successor(&current, &next, RegionId(by))
    };
    assert_eq!(check(&|_| {}, 2), Ok(()));
    let same_epoch = Unlawful::EpochNotHigher { current: Epoch(1), next: Epoch(1) };
    assert_eq!(check(&|next| next.epoch = Epoch(1), 1), Err(same_epoch));
    assert_eq!(
        check(&|next| next.members.retain(|region, _| *region != RegionId(3)), 1),
        Err(Unlawful::MembersChanged)
    );
    assert_eq!(check(&|next| next.durability = Durability::Semi(1), 1), Ok(()));
    assert_eq!(check(&|next| next.durability = Durability::Semi(1), 2), Err(Unlawful::AckRuleOfAnother(RegionId(1))));
    assert_eq!(check(&|next| next.primary = None, 1), Err(Unlawful::Primary));
    assert_eq!(check(&|next| next.dataset_generation = 0, 1), Err(Unlawful::GenerationBack));
    let back = |next: &mut Regime| {
        next.members.get_mut(&RegionId(2)).expect("a member").incarnation = crate::ids::Incarnation(0);
    };
    assert_eq!(check(&back, 1), Err(Unlawful::IncarnationBack(RegionId(2))));
}

/// One thing that may happen to the messages and the voters.
#[derive(Debug, Clone)]
enum Happening {
    Begin { by: u16, read: bool, fence: bool },
    Deliver(usize),
    Duplicate(usize),
    Lose(usize),
    Restart(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (1..=3_u16, any::<bool>(), any::<bool>())
            .prop_map(|(by, read, fence)| Happening::Begin { by, read, fence }),
        12 => any::<usize>().prop_map(Happening::Deliver),
        1 => any::<usize>().prop_map(Happening::Duplicate),
        1 => any::<usize>().prop_map(Happening::Lose),
        1 => (1..=3_u16).prop_map(Happening::Restart),
    ]
}

enum Wire {
    Ask { to: RegionId, proposer: usize, request: VoterRequest },
    Answer { from: RegionId, proposer: usize, reply: VoterReply },
}

fn copy(wire: &Wire) -> Wire {
    match wire {
        Wire::Ask { to, proposer, request } => Wire::Ask { to: *to, proposer: *proposer, request: request.clone() },
        Wire::Answer { from, proposer, reply } => {
            Wire::Answer { from: *from, proposer: *proposer, reply: reply.clone() }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Under loss, duplication, any order and restarts: one regime per epoch, what was chosen is never forgotten, and
    /// promises never go back.
    #[test]
    fn the_register_is_linearizable(happenings in proptest::collection::vec(happening(), 1..200)) {
        let mut bench = Bench::new(3);
        let mut proposers: Vec<(Proposer, u64)> = Vec::new();
        let mut wires: Vec<Wire> = Vec::new();
        let mut chosen: BTreeMap<Epoch, Regime> = [(Epoch(1), bench.genesis.clone())].into();
        for (step, happening) in happenings.into_iter().enumerate() {
            let now = chosen.values().next_back().expect("genesis").clone();
            match happening {
                Happening::Begin { by, read, fence } => {
                    let ballot = bench.voters.get_mut(&RegionId(by)).expect("a member").next_ballot(RegionId(by), Ballot::GENESIS);
                    let intent = match (read, fence) {
                        (true, _) => Intent::Read,
                        (false, false) => set(&successor(&now, by, step as u128 + 1), now.epoch.0),
                        (false, true) => Intent::Fence { expected: now.epoch, fence: now.epoch.next() },
                    };
                    let (proposer, prepare) = Proposer::begin(ballot, bench.genesis.clone(), intent);
                    // What was chosen before an attempt began bounds what it may see.
                    proposers.push((proposer, now.epoch.0));
                    for to in 1..=3 {
                        let request = VoterRequest::Prepare(prepare.clone());
                        wires.push(Wire::Ask { to: RegionId(to), proposer: proposers.len() - 1, request });
                    }
                }
                Happening::Restart(region) => {
                    let voter = bench.voters.get_mut(&RegionId(region)).expect("a member");
                    *voter = Voter::restore(voter.state().clone(), 0);
                }
                Happening::Lose(at) if !wires.is_empty() => drop(wires.swap_remove(at % wires.len())),
                Happening::Duplicate(at) if !wires.is_empty() => {
                    let wire = copy(&wires[at % wires.len()]);
                    wires.push(wire);
                }
                Happening::Deliver(at) if !wires.is_empty() => match wires.swap_remove(at % wires.len()) {
                    Wire::Ask { to, proposer, request } => {
                        let before = bench.voters[&to].state().clone();
                        let reply = bench.ask(to.0, &request);
                        let after = bench.voters[&to].state();
                        prop_assert!(before.promised_epoch <= after.promised_epoch);
                        prop_assert!(before.acceptor.promised <= after.acceptor.promised);
                        wires.push(Wire::Answer { from: to, proposer, reply });
                    }
                    Wire::Answer { from, proposer, reply } => {
                        let (attempt, seen_before) = &mut proposers[proposer];
                        let mut progress = attempt.on_reply(from, &reply);
                        if progress == Progress::Fenced {
                            let next = successor(&attempt.current(), from.0, 1000 + step as u128);
                            progress = attempt.complete(next, None);
                        }
                        match progress {
                            Progress::Send(accept) => {
                                for to in 1..=3 {
                                    let request = VoterRequest::Accept(accept.clone());
                                    wires.push(Wire::Ask { to: RegionId(to), proposer, request });
                                }
                            }
                            Progress::Done(Outcome::Chosen(regime) | Outcome::Stale { current: regime }) => {
                                prop_assert!(regime.epoch.0 >= *seen_before, "an attempt saw less than was chosen before it");
                                let known = chosen.entry(regime.epoch).or_insert_with(|| (*regime).clone());
                                prop_assert_eq!(known, &mut *regime.clone(), "two regimes of one epoch");
                            }
                            _ => {}
                        }
                    }
                },
                Happening::Lose(_) | Happening::Duplicate(_) | Happening::Deliver(_) => {}
            }
        }
    }
}
