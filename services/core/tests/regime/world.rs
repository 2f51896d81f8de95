//! The world: regions, links, messages and time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use longhaul_core::failover::{Fenced, Position};
use longhaul_core::ids::{Epoch, RegionId, Timeline};
use longhaul_core::lease::Lease;
use longhaul_core::operation::Chain;
use longhaul_core::regime::{Durability, Mode, Regime};
use longhaul_core::register::Ballot;
use longhaul_core::transition::{Barrier, TransitionDriver};
use longhaul_core::version::Version;
use longhaul_core::voter::{Voter, VoterReply, VoterRequest, VoterState};
use uuid::Uuid;

use crate::history::Oracle;
use crate::votes::Attempt;

/// A rule that is broken on purpose, in this harness only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    NoPromise,
    PromiseNotDurable,
    AnyCandidate,
    TooFewHeard,
    NoLease,
    LeaseCheckedAtAcceptOnly,
    NoCut,
    SwitchoverWithoutDrain,
    AckOfAnyEpoch,
    ShipWithoutPrefix,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub seed: u64,
    pub regions: u16,
    pub durability: Durability,
    pub mutant: Option<Mutant>,
}

/// What happened, to see that histories are worth something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub failovers: u64,
    pub forced: u64,
    pub switchovers: u64,
    pub rollbacks: u64,
    pub crashes: u64,
    pub accepted: u64,
    pub acknowledged: u64,
    pub lost: u64,
    pub quarantined: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.forced += other.forced;
        self.switchovers += other.switchovers;
        self.rollbacks += other.rollbacks;
        self.crashes += other.crashes;
        self.accepted += other.accepted;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.quarantined += other.quarantined;
    }
}

/// Marsaglia's xorshift: the histories are a function of the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How far a follower said that it has the primary's timeline durably, and under which regime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurableAck {
    pub epoch: Epoch,
    pub seq: u64,
}

pub(crate) struct Pending {
    pub seq: u64,
    pub operation: u64,
    pub accepted_under: Rc<Regime>,
}

/// What survives a crash.
pub(crate) struct Disk {
    pub voter: VoterState,
    pub regime: Rc<Regime>,
    pub log: BTreeMap<Timeline, Vec<u64>>,
    pub quarantine: BTreeSet<u64>,
}

pub(crate) struct Region {
    pub id: RegionId,
    pub up: bool,
    /// The process is stopped (not killed) until then: nothing runs, messages wait.
    pub stopped_until_ms: u64,
    pub disk: Disk,
    pub voter: Voter,
    pub lease: Option<Lease>,
    pub pending: Vec<Pending>,
    pub acks: BTreeMap<RegionId, DurableAck>,
    pub attempt: Option<Attempt>,
    pub driver: Option<TransitionDriver>,
    pub barrier: Option<Barrier>,
}

impl Region {
    pub(crate) fn regime(&self) -> &Rc<Regime> {
        &self.disk.regime
    }

    pub(crate) fn own_timeline(&self) -> Timeline {
        self.disk.regime.timeline_of(self.id).expect("every region is a member")
    }

    pub(crate) fn length(&self, timeline: Timeline) -> u64 {
        self.disk.log.get(&timeline).map_or(0, |log| log.len() as u64)
    }

    /// Whether it has every sealed timeline to its cut.
    pub(crate) fn covers_prefix(&self) -> bool {
        self.disk.regime.cuts.iter().all(|(timeline, cut)| self.length(timeline) >= cut)
    }

    pub(crate) fn chain_at(&self, timeline: Timeline, seq: u64) -> Chain {
        let log = self.disk.log.get(&timeline).map_or(&[][..], Vec::as_slice);
        // FNV-1a: any rolling hash will do.
        let hash = log
            .iter()
            .take(seq as usize)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, operation| (hash ^ operation).wrapping_mul(0x0100_0000_01b3));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&hash.to_be_bytes());
        Chain(bytes)
    }

    pub(crate) fn fenced(&self) -> Fenced {
        let position = |(timeline, log): (&Timeline, &Vec<u64>)| {
            let seq = log.len() as u64;
            (*timeline, (seq, self.chain_at(*timeline, seq)))
        };
        let positions = self.disk.log.iter().map(position).collect();
        let max_version = Version { time_ns: 0, count: 0, region: self.id };
        Fenced { promised_epoch: self.voter.promised_epoch(), position: Position { positions, max_version } }
    }
}

#[derive(Clone)]
pub(crate) enum Message {
    Ask(VoterRequest),
    Answer(VoterReply, Option<Fenced>),
    Ship {
        regime: Rc<Regime>,
        timeline: Timeline,
        after: usize,
        operations: Vec<u64>,
        prefix: Vec<(Timeline, Vec<u64>)>,
    },
    Durable(DurableAck),
    Regime(Rc<Regime>),
}

pub(crate) enum Event {
    Deliver { from: RegionId, to: RegionId, message: Message },
    Renew(RegionId),
    Flush(RegionId),
    Act,
    Heal,
    Drive(RegionId),
    Fence(RegionId, Ballot),
    Again { region: RegionId, voter: RegionId, ballot: Ballot },
    Rollback(RegionId, Uuid),
}

pub(crate) struct World {
    pub settings: Settings,
    pub random: Random,
    pub now_ms: u64,
    pub regions: BTreeMap<RegionId, Region>,
    pub genesis: Rc<Regime>,
    pub cut_links: BTreeSet<(RegionId, RegionId)>,
    pub events: BTreeMap<(u64, u64), Event>,
    pub scheduled: u64,
    pub oracle: Oracle,
    pub healed: bool,
    pub next_operation: u64,
}

const CHAOS_MS: u64 = 10_000;
const END_MS: u64 = 26_000;

/// Runs one history to its end; the error is the broken invariant.
pub(crate) fn run(settings: Settings) -> Result<Summary, String> {
    let mut world = World::new(settings);
    while let Some(((at, _), event)) = world.events.pop_first() {
        if at > END_MS {
            break;
        }
        world.now_ms = at;
        world.handle(event);
        if let Some(violation) = world.oracle.violation.take() {
            return Err(format!("at {at} ms: {violation}"));
        }
    }
    world.check_end()?;
    Ok(world.oracle.summary)
}

impl World {
    fn new(settings: Settings) -> Self {
        let ids: Vec<RegionId> = (1..=settings.regions).map(RegionId).collect();
        let genesis = Rc::new(Regime::genesis(ids.clone(), Mode::ActivePassive, None, settings.durability));
        let region = |id: RegionId| {
            let voter = Voter::new(&genesis);
            let region = Region {
                id,
                up: true,
                stopped_until_ms: 0,
                disk: Disk {
                    voter: voter.state().clone(),
                    regime: genesis.clone(),
                    log: BTreeMap::new(),
                    quarantine: BTreeSet::new(),
                },
                voter,
                lease: genesis.is_primary(id).then(|| Lease::new(id, &genesis, 0)),
                pending: Vec::new(),
                acks: BTreeMap::new(),
                attempt: None,
                driver: None,
                barrier: None,
            };
            (id, region)
        };
        let mut world = Self {
            random: Random((settings.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now_ms: 0,
            regions: ids.iter().copied().map(region).collect(),
            oracle: Oracle::new(&genesis),
            genesis,
            cut_links: BTreeSet::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            healed: false,
            next_operation: 1,
            settings,
        };
        for id in ids {
            let first = 1 + world.random.below(100);
            world.schedule(first, Event::Renew(id));
        }
        world.schedule(50, Event::Act);
        world.schedule(CHAOS_MS, Event::Heal);
        world
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.settings.mutant == Some(mutant)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ms * 1_000_000
    }

    pub(crate) fn schedule(&mut self, after_ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now_ms + after_ms, self.scheduled), event);
    }

    pub(crate) fn region(&mut self, id: RegionId) -> &mut Region {
        self.regions.get_mut(&id).expect("every region exists")
    }

    pub(crate) fn ids(&self) -> Vec<RegionId> {
        self.regions.keys().copied().collect()
    }

    pub(crate) fn any_region(&mut self) -> RegionId {
        let regions = u64::from(self.settings.regions);
        RegionId(1 + self.random.below(regions) as u16)
    }

    /// Whether the region is up and not stopped.
    pub(crate) fn runs(&self, id: RegionId) -> bool {
        let region = &self.regions[&id];
        region.up && self.now_ms >= region.stopped_until_ms
    }

    /// Whether both can talk to each other now.
    pub(crate) fn reachable(&self, a: RegionId, b: RegionId) -> bool {
        self.runs(a)
            && self.runs(b)
            && (a == b || !(self.cut_links.contains(&(a, b)) || self.cut_links.contains(&(b, a))))
    }

    /// Messages are delayed, lost, duplicated and overtaken.
    pub(crate) fn send(&mut self, from: RegionId, to: RegionId, message: Message) {
        if !self.healed && self.random.percent(4) {
            return;
        }
        let mut delay = 5 + self.random.below(80);
        if !self.healed && self.random.percent(3) {
            delay += self.random.below(5000);
        }
        if !self.healed && self.random.percent(3) {
            let later = delay + self.random.below(1500);
            self.schedule(later, Event::Deliver { from, to, message: message.clone() });
        }
        self.schedule(delay, Event::Deliver { from, to, message });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => {
                let stopped_until_ms = self.regions[&to].stopped_until_ms;
                if self.now_ms <= stopped_until_ms && stopped_until_ms > 0 {
                    // What was under way when the process stopped runs before what has arrived since.
                    let wait = stopped_until_ms + 1 - self.now_ms;
                    self.schedule(wait, Event::Deliver { from, to, message });
                } else if self.regions[&to].up && !self.cut_links.contains(&(from, to)) {
                    self.deliver(from, to, message);
                }
            }
            Event::Renew(region) => {
                self.schedule(500, Event::Renew(region));
                self.renew(region);
            }
            Event::Flush(region) => self.acknowledge(region),
            Event::Act => {
                let pause = if self.healed { 150 } else { 60 };
                let after = 1 + self.random.below(2 * pause);
                self.schedule(after, Event::Act);
                self.act();
            }
            Event::Heal => self.heal(),
            Event::Drive(region) => self.drive(region),
            Event::Fence(region, ballot) => self.plan_failover(region, ballot),
            Event::Again { region, voter, ballot } => self.ask_again(region, voter, ballot),
            Event::Rollback(region, id) => self.roll_back(region, id),
        }
    }

    fn deliver(&mut self, from: RegionId, to: RegionId, message: Message) {
        match message {
            Message::Ask(request) => {
                let (reply, fenced) = self.vote(to, &request);
                self.send(to, from, Message::Answer(reply, fenced));
            }
            Message::Answer(reply, fenced) => self.on_answer(to, from, &reply, fenced),
            Message::Ship { regime, timeline, after, operations, prefix } => {
                self.on_ship(to, from, &regime, timeline, after, &operations, prefix);
            }
            Message::Durable(ack) => {
                let known = self.region(to).acks.entry(from).or_insert(ack);
                if (ack.epoch, ack.seq) >= (known.epoch, known.seq) {
                    *known = ack;
                }
                self.acknowledge(to);
            }
            Message::Regime(regime) => self.adopt(to, &regime),
        }
    }

    pub(crate) fn epoch_of(&self, id: RegionId) -> Epoch {
        self.regions[&id].disk.regime.epoch
    }
}
