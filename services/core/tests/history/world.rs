//! One random history: three regions in active-active mode, writes, partitions, clock steps, restarts, lost disks,
//! evictions, slow snapshots; after every step the invariants, at the end convergence.

use longhaul_core::ids::{RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::OperationKind;
use longhaul_core::record::Record;
use longhaul_core::regime::{Durability, MemberState, Mode, Regime};
use longhaul_core::replication::apply::{Refusal, Remedy};
use longhaul_core::replication::shippable;
use longhaul_core::vector::VersionVector;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::mutant::Mutant;
use crate::oracle::{Oracle, agree};
use crate::replica::{Now, Replica, Snapshot};

const REGIONS: usize = 3;
const KEYS: usize = 4;
const STEPS: usize = 300;
/// Rounds after the last fault in which the regions must converge.
const ROUNDS: usize = 40;
/// Batches that a region pulls from another in one such round.
const PULLS: usize = 40;
const MS: u64 = 1_000_000;

/// What happened, so that a test can tell that it tested something.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stats {
    pub(crate) writes: u64,
    pub(crate) refused_writes: u64,
    pub(crate) batches: u64,
    pub(crate) relayed: u64,
    pub(crate) refused_batches: u64,
    pub(crate) snapshots: u64,
    pub(crate) collected: u64,
    pub(crate) disks_lost: u64,
    pub(crate) evictions: u64,
    pub(crate) restarts: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.refused_writes += other.refused_writes;
        self.batches += other.batches;
        self.relayed += other.relayed;
        self.refused_batches += other.refused_batches;
        self.snapshots += other.snapshots;
        self.collected += other.collected;
        self.disks_lost += other.disks_lost;
        self.evictions += other.evictions;
        self.restarts += other.restarts;
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Write,
    Noop,
    Pull,
    Heartbeat,
    Collect,
    Trim,
    Link,
    Skew,
    Restart,
    LoseDisk,
    Membership,
    Adopt,
    Fly,
}

/// A snapshot under way.
struct Flight {
    from: usize,
    to: usize,
    snapshot: Snapshot,
}

struct World {
    rng: SmallRng,
    mutant: Mutant,
    now: Now,
    step: usize,
    /// The register that a majority holds; replicas learn of a change when they learn of it.
    regime: Regime,
    replicas: Vec<Replica>,
    links: [[bool; REGIONS]; REGIONS],
    flights: Vec<Flight>,
    evicted: Option<(usize, usize)>,
    oracle: Oracle,
    stats: Stats,
}

/// Runs the history of a seed.
pub(crate) fn run(seed: u64, mutant: Mutant) -> Result<Stats, String> {
    let mut world = World::new(seed, mutant);
    let schedule = world.schedule();
    for step in 0..STEPS {
        world.step = step;
        world.now.0 += world.rng.random_range(1..=3) * MS;
        let action = *schedule.choose(&mut world.rng).expect("a schedule has actions");
        world.act(action).map_err(|error| format!("step {step}, {action:?}: {error}"))?;
    }
    world.converge()?;
    Ok(world.stats)
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let regions = (1..=REGIONS as u16).map(RegionId);
        let regime = Regime::genesis(regions.clone(), Mode::ActiveActive, None, Durability::Local);
        let mut replicas: Vec<_> = regions.map(|region| Replica::new(region, &regime, mutant)).collect();
        for replica in &mut replicas {
            replica.ready = true; // An empty data set is a data set.
        }
        Self {
            rng: SmallRng::seed_from_u64(seed),
            mutant,
            now: Now(1000 * MS),
            step: 0,
            regime,
            replicas,
            links: [[true; REGIONS]; REGIONS],
            flights: Vec::new(),
            evicted: None,
            oracle: Oracle::default(),
            stats: Stats::default(),
        }
    }

    /// Every history has its own mix of actions: leaving some out finds more than the average of all (Groce et al.,
    /// "Swarm Testing", 2012).
    fn schedule(&mut self) -> Vec<Action> {
        const MIX: [(Action, std::ops::RangeInclusive<usize>); 13] = [
            (Action::Write, 6..=16),
            (Action::Noop, 3..=8),
            (Action::Pull, 6..=24),
            (Action::Heartbeat, 6..=16),
            (Action::Collect, 3..=8),
            (Action::Trim, 0..=6),
            (Action::Link, 0..=4),
            (Action::Skew, 0..=5),
            (Action::Restart, 0..=1),
            (Action::LoseDisk, 0..=1),
            (Action::Membership, 0..=2),
            (Action::Adopt, 2..=6),
            (Action::Fly, 0..=2),
        ];
        let mut schedule = Vec::new();
        for (action, range) in MIX {
            let count = self.rng.random_range(range);
            schedule.extend(std::iter::repeat_n(action, count));
        }
        schedule
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        let i = self.rng.random_range(0..REGIONS);
        let j = (i + self.rng.random_range(1..REGIONS)) % REGIONS;
        match action {
            Action::Write => self.write(i)?,
            Action::Noop => {
                self.replicas[i].accept(OperationKind::Noop, None, self.now, &mut self.oracle)?;
            }
            Action::Pull if self.links[i][j] => {
                self.pull(i, j)?;
            }
            Action::Heartbeat if self.links[i][j] => self.heartbeat(i, j),
            Action::Collect => self.collect(i)?,
            Action::Trim => self.replicas[i].trim_log(),
            Action::Link => {
                let up = self.chance(50);
                self.links[i][j] = up;
                self.links[j][i] = up || self.chance(20);
            }
            Action::Skew => self.skew(i),
            Action::Restart => self.restart(i),
            Action::LoseDisk => self.lose_disk(i),
            Action::Membership => self.change_membership(i),
            Action::Adopt => {
                self.replicas[i].adopt(&self.regime);
                self.bootstrap(i);
            }
            Action::Fly => self.fly(),
            Action::Pull | Action::Heartbeat => {}
        }
        self.replicas[i].check()?;
        self.replicas[j].check()
    }

    fn write(&mut self, i: usize) -> Result<(), String> {
        let id = RecordId::new(format!("k{}", self.rng.random_range(0..KEYS))).expect("a sound id");
        let kind = if self.chance(45) { OperationKind::Delete } else { OperationKind::Put };
        let key = RecordKey { home: RegionId(1), id };
        match self.replicas[i].accept(kind, Some(&key), self.now, &mut self.oracle)? {
            Some(_) => self.stats.writes += 1,
            None => self.stats.refused_writes += 1,
        }
        Ok(())
    }

    fn heartbeat(&mut self, from: usize, to: usize) {
        let [source, target] = self.replicas.get_disjoint_mut([from, to]).expect("two regions");
        if source.takes_part() && target.ready {
            target.hear(source, self.now);
            if source.regime.epoch > target.regime.epoch {
                target.adopt(&source.regime);
            }
        }
    }

    /// `to` pulls one batch from `from`. True if something new arrived or a snapshot set out.
    fn pull(&mut self, from: usize, to: usize) -> Result<bool, String> {
        let [source, target] = self.replicas.get_disjoint_mut([from, to]).expect("two regions");
        if !source.takes_part() || !target.ready {
            return Ok(false);
        }
        let have = target.vector();
        let mut wants = target.relay.plan(&have, self.now.stream_ns());
        let origins = wants.remove(&source.id).unwrap_or_default();
        let behind: Vec<Timeline> = source
            .positions
            .iter()
            .filter(|(timeline, position)| {
                let head = shippable(&source.regime, **timeline, position.seq);
                origins.contains(&timeline.region) && head > have.get(**timeline)
            })
            .map(|(timeline, _)| *timeline)
            .collect();
        let Some(timeline) = behind.choose(&mut self.rng).copied() else {
            return Ok(false);
        };
        let have = have.get(timeline);
        // A stream that was opened anew may repeat operations, and may break after any of them.
        let again = have.saturating_sub(self.rng.random_range(0..=2));
        let max = if self.step < STEPS - 1 { self.rng.random_range(1..=5) } else { 64 };
        // A puller may ask for a snapshot although the log would do; the last rounds do not need it.
        let by_log = self.step >= STEPS - 1 || self.rng.random_ratio(9, 10);
        let batch = source.batch(timeline, again, max).or_else(|| source.batch(timeline, have, max));
        let batch = batch.filter(|_| by_log);
        let Some(batch) = batch else {
            let snapshot = source.snapshot();
            self.flights.push(Flight { from, to, snapshot });
            if self.chance(50) {
                self.fly();
            }
            return Ok(true);
        };
        self.stats.batches += 1;
        self.stats.relayed += u64::from(timeline.region != source.id);
        match target.receive(source.id, &batch, self.now, &self.oracle)? {
            Ok(news) => Ok(news),
            Err(refusal) => self.heed(&refusal, from, to).map(|()| false),
        }
    }

    fn heed(&mut self, refusal: &Refusal, from: usize, to: usize) -> Result<(), String> {
        self.stats.refused_batches += 1;
        let [source, target] = self.replicas.get_disjoint_mut([from, to]).expect("two regions");
        match refusal.remedy() {
            Remedy::TeachRegime => source.adopt(&target.regime),
            Remedy::FetchRegime => target.adopt(&source.regime),
            Remedy::Wait => {}
            Remedy::Rewind | Remedy::Stop => {
                return Err(format!("{} refused {}: {refusal}", target.id, source.id));
            }
        }
        Ok(())
    }

    /// A snapshot arrives.
    fn fly(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(self.rng.random_range(0..self.flights.len()));
        let target = &mut self.replicas[flight.to];
        if target.takes_part() && target.merge_snapshot(&flight.snapshot, self.now).is_ok() {
            self.stats.snapshots += 1;
        }
    }

    fn collect(&mut self, i: usize) -> Result<(), String> {
        let (bound, removed) = self.replicas[i].collect_tombstones(self.now);
        self.stats.collected += removed as u64;
        let Some(bound) = bound.filter(|_| removed > 0) else {
            return Ok(());
        };
        let regime = &self.replicas[i].regime;
        if self.evicted.is_some_and(|(evicted, _)| evicted == i) {
            return Ok(()); // It does not know yet, and what it does no longer matters: it will be wiped.
        }
        for replica in &self.replicas {
            let member = regime.members[&replica.id];
            let same_life = replica.ready && member.incarnation == replica.incarnation;
            if same_life && member.state != MemberState::Evicted {
                self.oracle.covered(bound, &self.regime.cuts, &replica.vector())?;
            }
        }
        Ok(())
    }

    fn skew(&mut self, i: usize) {
        let range = if self.chance(75) { 100 } else { 600 };
        let skew_ms = self.rng.random_range(-range..=range);
        let believed = self.chance(50);
        let replica = &mut self.replicas[i];
        replica.skew_ms = skew_ms;
        if believed {
            let wall = replica.wall_ns(self.now);
            replica.clock.accept_jump(wall, self.now.0);
        }
    }

    /// A restart takes about as long as the durable bound of the clock runs ahead.
    fn restart(&mut self, i: usize) {
        if self.chance(40) {
            self.replicas[i].skew_ms = -5000;
        }
        self.now.0 += 3000 * MS;
        self.replicas[i].restart();
        self.stats.restarts += 1;
    }

    /// Seals the timeline of a region at what the others have, and lets `change` edit the next regime. The others have
    /// promised it before their positions were read, so that nobody goes beyond the cut meanwhile.
    ///
    /// What is sealed already is sealed anew: if the region that goes was the last to hold the end of a timeline, that
    /// end is lost too, and a cut that nobody can reach would hold the frontier back for ever.
    fn next_regime(&mut self, i: usize, change: impl FnOnce(&mut Regime, VersionVector)) {
        let id = self.replicas[i].id;
        let timeline = self.regime.timeline_of(id).expect("a member");
        let survivors = || self.replicas.iter().filter(|replica| replica.id != id);
        let held = |timeline| survivors().map(|replica| replica.vector().get(timeline)).max().unwrap_or(0);
        let cut = held(timeline);
        let sealed: Vec<_> =
            self.regime.cuts.iter().map(|(timeline, cut)| (timeline, cut.min(held(timeline)))).collect();
        let floor = survivors().map(|replica| replica.clock.last_ns()).max().unwrap_or(0);
        let mut next = self.regime.clone();
        next.epoch = next.epoch.next();
        next.hlc_floor_ns = next.hlc_floor_ns.max(floor);
        next.cuts.0.extend(sealed);
        change(&mut next, VersionVector::from_iter([(timeline, cut)]));
        self.regime = next;
        for replica in self.replicas.iter_mut().filter(|replica| replica.id != id) {
            replica.promised = self.regime.epoch;
            if self.rng.random_ratio(1, 2) {
                replica.adopt(&self.regime);
            }
        }
    }

    fn everybody_is_here(&self) -> bool {
        self.evicted.is_none() && self.replicas.iter().all(|replica| replica.ready)
    }

    fn lose_disk(&mut self, i: usize) {
        if !self.everybody_is_here() || !self.chance(40) {
            return;
        }
        self.stats.disks_lost += 1;
        let id = self.replicas[i].id;
        self.next_regime(i, |regime, cut| {
            regime.cuts.0.extend(cut.0);
            regime.members.entry(id).and_modify(|member| member.incarnation = member.incarnation.next());
        });
        self.be_born(i);
    }

    fn change_membership(&mut self, i: usize) {
        let leave = self.chance(40);
        match self.evicted {
            None if leave && self.everybody_is_here() => {
                self.stats.evictions += 1;
                self.evicted = Some((i, self.step));
                let id = self.replicas[i].id;
                self.next_regime(i, |regime, cut| {
                    regime.cuts.0.extend(cut.0);
                    regime.members.entry(id).and_modify(|member| member.state = MemberState::Evicted);
                });
            }
            Some((evicted, since)) if self.step > since + 60 => self.take_back(evicted),
            _ => {}
        }
    }

    /// An evicted region returns: its tail is put aside, its replica wiped, its life new.
    fn take_back(&mut self, i: usize) {
        self.evicted = None;
        let id = self.replicas[i].id;
        if self.mutant == Mutant::EvictedMerges {
            self.next_regime(i, |regime, cut| {
                regime.cuts.0.retain(|timeline, _| !cut.0.contains_key(timeline));
                regime.members.entry(id).and_modify(|member| member.state = MemberState::Active);
            });
            self.replicas[i].adopt(&self.regime);
            return;
        }
        self.next_regime(i, |regime, _| {
            regime.members.entry(id).and_modify(|member| {
                member.state = MemberState::Active;
                member.incarnation = member.incarnation.next();
            });
        });
        self.be_born(i);
    }

    fn be_born(&mut self, i: usize) {
        self.replicas[i] = Replica::new(self.replicas[i].id, &self.regime, self.mutant);
        self.replicas[i].skew_ms = if self.chance(50) { -900 } else { 0 };
        self.flights.retain(|flight| flight.from != i && flight.to != i);
        self.bootstrap(i);
    }

    /// A region in a new life gets its data set from another one.
    fn bootstrap(&mut self, i: usize) {
        if self.replicas[i].ready {
            return;
        }
        let source = (0..REGIONS).find(|p| *p != i && self.replicas[*p].ready && self.links[*p][i]);
        if let Some(source) = source {
            let [source, target] = self.replicas.get_disjoint_mut([source, i]).expect("two regions");
            source.adopt(&self.regime);
            if source.takes_part() {
                let snapshot = source.snapshot();
                self.stats.snapshots += u64::from(target.merge_snapshot(&snapshot, self.now).is_ok());
            }
        }
    }

    /// The faults end: regions must agree with each other and with the oracle, and forget every tombstone.
    fn converge(&mut self) -> Result<(), String> {
        self.links = [[true; REGIONS]; REGIONS];
        self.flights.clear();
        self.now.0 += 10_000 * MS;
        if let Some((evicted, _)) = self.evicted {
            self.take_back(evicted);
        }
        for i in 0..REGIONS {
            let replica = &mut self.replicas[i];
            replica.skew_ms = 0;
            replica.clock.accept_jump(replica.wall_ns(self.now), self.now.0);
            replica.adopt(&self.regime);
        }
        (0..REGIONS).for_each(|i| self.bootstrap(i));
        for _ in 0..ROUNDS {
            self.round()?;
            if self.is_clean() {
                break;
            }
        }
        self.oracle.versions_are_unique(&self.regime.cuts)?;
        if let Some(replica) = self.replicas.iter().find(|replica| !replica.ready) {
            return Err(format!("region {} never got a data set", replica.id));
        }
        let (history, last) = (self.oracle.history(&self.regime.cuts), self.oracle.last(&self.regime.cuts));
        for replica in &self.replicas {
            if !replica.vector().dominates(&history) {
                return Err(format!(
                    "region {} never got everything: {:?} of {history:?}",
                    replica.id,
                    replica.vector()
                ));
            }
            agree(&replica.records, &last).map_err(|error| format!("at the end, region {}: {error}", replica.id))?;
            if let Some(tombstone) = replica.records.values().find(|record| record.is_tombstone()) {
                return Err(format!("region {} never forgot {tombstone:?}", replica.id));
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), String> {
        self.now.0 += 60 * MS;
        for i in 0..REGIONS {
            self.replicas[i].accept(OperationKind::Noop, None, self.now, &mut self.oracle)?;
        }
        for (i, j) in pairs() {
            self.heartbeat(i, j);
            for _ in 0..PULLS {
                if !self.pull(i, j)? {
                    break;
                }
                while !self.flights.is_empty() {
                    self.fly();
                }
            }
        }
        for (i, j) in pairs() {
            self.heartbeat(i, j);
        }
        for i in 0..REGIONS {
            self.collect(i)?;
            self.replicas[i].check()?;
        }
        Ok(())
    }

    fn is_clean(&self) -> bool {
        let vector = self.replicas[0].vector();
        self.replicas
            .iter()
            .all(|replica| replica.vector() == vector && !replica.records.values().any(Record::is_tombstone))
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..REGIONS).flat_map(|i| (0..REGIONS).map(move |j| (i, j))).filter(|(i, j)| i != j)
}
