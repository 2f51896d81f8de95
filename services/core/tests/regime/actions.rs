//! What happens in the world at random: writes, shipping, faults, failovers and switchovers.

use std::collections::BTreeMap;
use std::rc::Rc;

use longhaul_core::ack::AckTracker;
use longhaul_core::gate::{still_acknowledges, write_gate};
use longhaul_core::ids::{Dot, RegionId, Timeline};
use longhaul_core::regime::{Durability, Mode, Regime, Stage, Target};
use longhaul_core::register::Intent;
use longhaul_core::transition::{
    self, Barrier, Command, GateScope, Observations, Origin, Request, Seen, Step, TransitionDriver, set_in_sync,
};
use longhaul_core::vector::VersionVector;
use longhaul_core::voter::{Voter, VoterRequest};

use crate::world::{DurableAck, Event, Message, Mutant, Pending, World};

impl World {
    pub(crate) fn act(&mut self) {
        let region = self.any_region();
        let action = if self.healed { [3, 3, 6, 7, 4][self.random.below(5) as usize] } else { self.random.below(16) };
        match action {
            3..=5 => self.ship_everywhere(),
            6 if self.healed => self.ids().into_iter().for_each(|id| self.gossip(id)),
            6 => self.gossip(region),
            7 => self.read_register(region),
            8 => self.change_link(region),
            9 => self.crash_or_restart(region),
            10 | 11 if self.random.percent(50) && self.runs(region) => {
                let allow_data_loss = self.random.percent(3);
                self.fail_over(region, allow_data_loss);
            }
            12 if self.random.percent(60) => self.begin_switchover(),
            13 => self.change_in_sync(region),
            _ => self.write_somewhere(),
        }
    }

    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.cut_links.clear();
        for id in self.ids() {
            if !self.regions[&id].up {
                self.restart(id);
            }
        }
    }

    /// Every region that believes itself primary gets a write.
    fn write_somewhere(&mut self) {
        for id in self.ids() {
            if self.runs(id) && self.regions[&id].regime().is_primary(id) {
                self.write(id);
            }
        }
    }

    fn lease_valid(&self, id: RegionId) -> bool {
        let lease = self.regions[&id].lease.as_ref();
        self.is(Mutant::NoLease) || lease.is_some_and(|lease| lease.valid(self.now_ns()))
    }

    fn write(&mut self, id: RegionId) {
        let lease_valid = self.lease_valid(id);
        let region = &self.regions[&id];
        let regime = region.regime().clone();
        if write_gate(&regime, id, id, lease_valid, region.covers_prefix()).is_err() {
            return;
        }
        let operation = self.append(id);
        self.oracle.accepted(id, regime.epoch, operation);
        let region = self.region(id);
        let seq = region.length(region.own_timeline());
        region.pending.push(Pending { seq, operation, accepted_under: regime });
        // Between commit and acknowledgement a process may be stopped for longer than a lease.
        let pause =
            if !self.healed && self.random.percent(5) { 1000 + self.random.below(6000) } else { self.random.below(10) };
        if pause >= 1000 {
            self.region(id).stopped_until_ms = self.now_ms + 1 + pause;
        }
        self.schedule(1 + pause, Event::Flush(id));
    }

    fn append(&mut self, id: RegionId) -> u64 {
        let operation = self.next_operation;
        self.next_operation += 1;
        let region = self.region(id);
        let timeline = region.own_timeline();
        region.disk.log.entry(timeline).or_default().push(operation);
        operation
    }

    /// Acknowledges what may be acknowledged now.
    pub(crate) fn acknowledge(&mut self, id: RegionId) {
        let lease_valid = self.lease_valid(id) || self.is(Mutant::LeaseCheckedAtAcceptOnly);
        let any_epoch = self.is(Mutant::AckOfAnyEpoch);
        let runs = self.runs(id);
        let region = self.region(id);
        if !runs || region.pending.is_empty() {
            return;
        }
        let regime = region.disk.regime.clone();
        let head = region.length(region.own_timeline());
        let timeline = region.own_timeline();
        let mut told = AckTracker::new(id);
        for (follower, ack) in &region.acks {
            let epoch = if any_epoch { regime.epoch } else { ack.epoch };
            told.record(*follower, epoch, &VersionVector::from_iter([(timeline, ack.seq)]));
        }
        let reached = told.committed(&regime, timeline, head);
        let (ready, waiting): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut region.pending).into_iter().partition(|pending| {
                pending.seq <= reached && still_acknowledges(&pending.accepted_under, &regime, id, lease_valid)
            });
        region.pending = waiting;
        for pending in ready {
            self.oracle.acknowledged(id, regime.epoch, timeline, pending.operation);
        }
    }

    fn ship_everywhere(&mut self) {
        for from in self.ids() {
            let region = &self.regions[&from];
            let regime = region.regime().clone();
            if !self.runs(from) || !regime.is_primary(from) || !region.covers_prefix() {
                continue;
            }
            let timeline = region.own_timeline();
            let log = region.disk.log.get(&timeline).cloned().unwrap_or_default();
            for to in self.ids() {
                if to != from {
                    self.ship(from, to, &regime, timeline, &log);
                }
            }
        }
    }

    fn ship(&mut self, from: RegionId, to: RegionId, regime: &Rc<Regime>, timeline: Timeline, log: &[u64]) {
        let known =
            self.regions[&from].acks.get(&to).filter(|ack| ack.epoch == regime.epoch).map(|ack| ack.seq as usize);
        let after = known.unwrap_or(0).min(log.len());
        let sealed = |(timeline, cut): (Timeline, u64)| {
            let log = &self.regions[&from].disk.log.get(&timeline)?;
            Some((timeline, log[..(cut as usize).min(log.len())].to_vec()))
        };
        let drop_prefix = self.is(Mutant::ShipWithoutPrefix) || known.is_some();
        let prefix = if drop_prefix { Vec::new() } else { regime.cuts.iter().filter_map(sealed).collect() };
        let operations = log[after..].to_vec();
        self.send(from, to, Message::Ship { regime: regime.clone(), timeline, after, operations, prefix });
    }

    /// A follower takes what it may, and says how far it has it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_ship(
        &mut self,
        id: RegionId,
        from: RegionId,
        regime: &Rc<Regime>,
        timeline: Timeline,
        after: usize,
        operations: &[u64],
        prefix: Vec<(Timeline, Vec<u64>)>,
    ) {
        self.adopt(id, regime);
        let without_prefix = self.is(Mutant::ShipWithoutPrefix);
        let region = self.region(id);
        if regime.epoch != region.disk.regime.epoch || regime.epoch < region.voter.promised_epoch() {
            return;
        }
        for (sealed, log) in prefix {
            let mine = region.disk.log.entry(sealed).or_default();
            if mine.len() < log.len() {
                mine.extend_from_slice(&log[mine.len()..]);
            }
        }
        if !region.covers_prefix() && !without_prefix {
            return;
        }
        let holds_prefix = region.covers_prefix();
        let mine = region.disk.log.entry(timeline).or_default();
        if after > mine.len() {
            return;
        }
        let mut differs = false;
        for (i, operation) in operations.iter().enumerate() {
            match mine.get(after + i) {
                Some(there) => differs |= there != operation,
                None => mine.push(*operation),
            }
        }
        let seq = mine.len() as u64;
        if differs {
            self.oracle.violate(format!("I2: region {id} has other operations in {timeline} than its primary"));
        }
        if seq > 0 && !holds_prefix {
            self.oracle.violate(format!("I2: region {id} took operations of {timeline} without the sealed prefix"));
        }
        self.send(id, from, Message::Durable(DurableAck { epoch: regime.epoch, seq }));
    }

    fn gossip(&mut self, id: RegionId) {
        let regime = self.regions[&id].regime().clone();
        for to in self.ids() {
            if to != id && self.runs(id) {
                self.send(id, to, Message::Regime(regime.clone()));
            }
        }
    }

    fn read_register(&mut self, id: RegionId) {
        if self.runs(id) && self.regions[&id].attempt.is_none() {
            self.start(id, Intent::Read, false);
        }
    }

    fn change_link(&mut self, from: RegionId) {
        let to = self.any_region();
        if from == to {
            return;
        }
        let cut = self.random.percent(45);
        let both = self.random.percent(60);
        for pair in [(from, to), (to, from)].into_iter().take(1 + usize::from(both)) {
            if cut {
                self.cut_links.insert(pair);
            } else {
                self.cut_links.remove(&pair);
            }
        }
    }

    fn crash_or_restart(&mut self, id: RegionId) {
        if !self.regions[&id].up {
            self.restart(id);
        } else if self.random.percent(50) {
            self.oracle.summary.crashes += 1;
            let region = self.region(id);
            region.up = false;
            region.stopped_until_ms = 0;
            region.pending.clear();
            region.acks.clear();
            region.lease = None;
            region.attempt = None;
            region.driver = None;
            region.barrier = None;
        }
    }

    fn restart(&mut self, id: RegionId) {
        let now_ns = self.now_ns();
        let region = self.region(id);
        region.up = true;
        region.voter = Voter::restore(region.disk.voter.clone(), now_ns);
        let regime = region.disk.regime.clone();
        region.lease = regime.is_primary(id).then(|| longhaul_core::lease::Lease::new(id, &regime, now_ns));
        let promised = region.voter.promised_epoch();
        self.oracle.promised(id, promised);
    }

    fn change_in_sync(&mut self, id: RegionId) {
        let region = &self.regions[&id];
        let regime = region.regime().clone();
        let idle = self.runs(id) && region.attempt.is_none() && region.driver.is_none();
        if !idle || !regime.is_primary(id) || regime.durability != Durability::Sync || regime.transition.is_some() {
            return;
        }
        let head = region.length(region.own_timeline());
        let mut in_sync = regime.in_sync.clone();
        for follower in regime.followers() {
            let ack = region.acks.get(&follower).filter(|ack| ack.epoch == regime.epoch);
            let caught_up = ack.is_some_and(|ack| ack.seq == head);
            if caught_up {
                in_sync.insert(follower);
            } else if in_sync.len() > 1 {
                in_sync.remove(&follower);
            }
        }
        let author = self.author(id);
        if let Some(next) = set_in_sync(&regime, in_sync, &author) {
            self.compare_and_set(id, next, None);
        }
    }

    fn observe(&self, id: RegionId) -> Observations {
        let seen = |other: RegionId| {
            let region = &self.regions[&other];
            let applied: VersionVector =
                region.disk.log.iter().map(|(timeline, log)| (*timeline, log.len() as u64)).collect();
            Seen { applied, barrier: region.barrier, ..Seen::default() }
        };
        let reached = self.ids().into_iter().filter(|other| self.reachable(id, *other));
        Observations { regions: reached.map(|other| (other, seen(other))).collect(), copies: BTreeMap::new() }
    }

    fn begin_switchover(&mut self) {
        let to = self.any_region();
        let primaries: Vec<RegionId> =
            self.ids().into_iter().filter(|id| self.regions[id].regime().is_primary(*id)).collect();
        for id in primaries {
            let region = &self.regions[&id];
            if !self.runs(id) || region.driver.is_some() || region.attempt.is_some() || to == id {
                continue;
            }
            let regime = region.regime().clone();
            let target = Target { mode: Mode::ActivePassive, primary: Some(to), durability: regime.durability };
            let request = Request { target, force: false };
            let Ok(mut plan) = transition::plan(&regime, &request, &self.observe(id)) else {
                continue;
            };
            if self.is(Mutant::SwitchoverWithoutDrain) {
                plan.steps
                    .retain(|step| !matches!(step, Step::Enter(Stage::Draining) | Step::Close(..) | Step::Converge(_)));
            }
            let origin = Origin { id: self.identity(), reason: "random".to_owned(), trace: None, deadline_ms: 5000 };
            let now_ns = self.now_ns();
            self.region(id).driver = Some(TransitionDriver::new(plan, origin, now_ns));
            self.drive(id);
        }
    }

    pub(crate) fn drive(&mut self, id: RegionId) {
        if !self.runs(id) {
            if self.regions[&id].driver.is_some() {
                self.schedule(100, Event::Drive(id));
            }
            return;
        }
        let observations = self.observe(id);
        let now_ns = self.now_ns();
        let region = self.region(id);
        let regime = region.disk.regime.clone();
        let busy = region.attempt.is_some();
        let Some(driver) = region.driver.as_mut() else {
            return;
        };
        for command in driver.next(&regime, &observations, now_ns) {
            match command {
                Command::Propose { .. } if busy => {}
                Command::Propose { regime, release } => self.propose(id, *regime, release),
                Command::CloseGate { region, scope, .. } => self.close_gate(region, scope),
                Command::Done => {
                    self.oracle.summary.switchovers += 1;
                    self.region(id).driver = None;
                }
                Command::Abort(_) => self.region(id).driver = None,
                _ => {}
            }
        }
        self.schedule(100, Event::Drive(id));
    }

    fn propose(&mut self, id: RegionId, next: Regime, release: bool) {
        let released =
            if release { self.region(id).lease.as_mut().map(longhaul_core::lease::Lease::release) } else { None };
        if let Some(release) = released {
            self.vote(id, &VoterRequest::Release(release));
        }
        self.compare_and_set(id, next, released);
    }

    /// The gate is closed by the regime; the barrier shows where.
    fn close_gate(&mut self, id: RegionId, scope: GateScope) {
        if !self.runs(id) {
            return;
        }
        let epoch = self.epoch_of(id);
        let operation = self.append(id);
        self.oracle.accepted_marker(operation);
        let region = self.region(id);
        let timeline = region.own_timeline();
        let dot = Dot { timeline, seq: region.length(timeline) };
        region.barrier = Some(Barrier { epoch, scope, dot, time_ns: 0 });
    }
}
