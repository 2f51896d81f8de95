//! Invariants that are watched at every step, from outside: what each region makes durable, and whom it acknowledges.
//!
//! | | what must hold | where |
//! |---|---|---|
//! | I1 | of two primaries of different epochs, the earlier acknowledges nothing once the later one has | [`Watch::acknowledged`] |
//! | I2 | logs have no gaps, and one place in a log has one content everywhere | operations of a commit |
//! | I3 | versions rise strictly along a timeline | operations of a commit |
//! | I4 | what a region accepts is newer than what it holds | operations of a commit |
//! | I5 | a record is what some operation made it, and never goes back to an older one | records and removed records of a commit; equal digests at the end |
//! | I6 | nothing beyond a cut is applied; nothing accepted vanishes | operations, records and positions of a commit; [`Watch::vanished`] |
//! | I7 | what is acknowledged is on the disks that its durability names | [`Watch::acknowledged`] |
//! | I8 | a follower shows nothing that its primary does not, and the primary nothing that is not yet as durable as promised | positions of a commit |
//! | I9 | promises and epochs never fall | named values of a commit |
//! | I10 | a tombstone goes only when nothing older can still arrive | removed records of a commit |
//! | I11 | a region gives an operation one place in its log, however often it is asked for it | operations of a commit |
//! | I12 | in isolation no foreign row is stored | operations and records of a commit |
//! | I14 | an epoch has one regime | named values of a commit |
//!
//! The rest of I7 (acknowledged writes survive as promised) and of I11 (what failed has no effect, one place for each
//! operation among all regions) are the oracle's; I13 (every transition ends) is asked of the regions at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use longhaul_core::ack::achieved;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::{Chain, Operation};
use longhaul_core::regime::{Durability, MemberState, Mode, Regime};
use longhaul_core::register::Ballot;
use longhaul_core::replication::{Position, durable_vector};
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use longhaul_core::voter::VoterState;
use longhaul_region::store::Commit;

use crate::clock::SimTime;
use crate::disk::Witness;

/// Violations kept; one is enough to fail.
const KEPT: usize = 20;

/// What one region has on its disk, as far as the invariants ask.
#[derive(Default)]
struct Shadow {
    positions: BTreeMap<Timeline, Position>,
    records: BTreeMap<RecordKey, Held>,
    regime: Option<Regime>,
    promised: Option<(Epoch, Ballot)>,
}

/// A record as a region holds it.
struct Held {
    version: Version,
    dot: Dot,
    tombstone: bool,
}

/// An operation that was accepted somewhere.
struct Accepted {
    key: Option<RecordKey>,
    chain: Chain,
    version: Version,
    /// No claim is made about it any more: the only disk that had it was lost, or its home has taken it over for good.
    settled: bool,
}

#[derive(Default)]
struct State {
    regions: BTreeMap<RegionId, Shadow>,
    /// How far regions had each timeline on disks that they lost. What they said of it was true: others may have
    /// forgotten a delete on the strength of it, and an empty disk gets what is left of both, not one of the two.
    lost_disks: BTreeMap<RegionId, VersionVector>,
    operations: BTreeMap<Dot, Accepted>,
    by_key: BTreeMap<RecordKey, BTreeSet<Dot>>,
    /// The place that each operation has in the log of the region that accepted it.
    places: BTreeMap<(Timeline, OpId), u64>,
    quarantined: BTreeSet<Dot>,
    regimes: BTreeMap<Epoch, (u64, Regime)>,
    /// How far each timeline was ever shown by its own region.
    shown: BTreeMap<Timeline, u64>,
    /// First and last acknowledgement by epoch and region.
    acknowledged: BTreeMap<(Epoch, RegionId), (u64, u64)>,
    /// Operations that were acknowledged as `local` under a primary that nobody was in sync with.
    answered_local: BTreeSet<OpId>,
    violations: Vec<String>,
}

/// Watches the invariants.
pub(crate) struct Watch {
    time: SimTime,
    state: Mutex<State>,
}

impl Watch {
    pub(crate) fn new(time: SimTime) -> Self {
        Self { time, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A region has acknowledged a write that it accepted under an epoch, now.
    pub(crate) fn acknowledged(&self, region: RegionId, epoch: Epoch, dot: Dot) {
        let now_ns = self.time.now_ns();
        let state = &mut *self.lock();
        state.durable_as_promised(region, epoch, dot);
        state.note_local(region, dot);
        let times = state.acknowledged.entry((epoch, region)).or_insert((now_ns, now_ns));
        times.1 = times.1.max(now_ns);
        let one_primary = |epoch: Epoch| {
            let known = state.regimes.get(&epoch).map(|(_, regime)| regime);
            known.is_none_or(|regime| regime.mode == Mode::ActivePassive)
        };
        if !one_primary(epoch) {
            return;
        }
        let mut found = None;
        for ((other_epoch, other), (first_ns, last_ns)) in &state.acknowledged {
            let (earlier, later) = if *other_epoch < epoch { (other, &region) } else { (&region, other) };
            let overlaps = (*other_epoch > epoch && *first_ns < now_ns) || (*other_epoch < epoch && *last_ns > now_ns);
            if *other != region && overlaps && one_primary(*other_epoch) {
                found = Some(format!(
                    "I1: region {earlier} acknowledged a write after region {later} had done so in a later epoch ({epoch}, {other_epoch})"
                ));
            }
        }
        state.violations.extend(found);
    }

    /// Whether an operation was acknowledged as `local` under a primary that nobody was in sync with: no other disk was
    /// promised to have it.
    pub(crate) fn was_answered_local(&self, op_id: &str) -> bool {
        self.lock().answered_local.iter().any(|answered| answered.to_string() == op_id)
    }

    /// What was violated so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.iter().take(KEPT).cloned().collect()
    }

    /// Whether anything was violated.
    pub(crate) fn is_violated(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    /// Stable regimes in order of their epochs, with the moment at which the first region made each durable.
    pub(crate) fn regimes(&self) -> Vec<(u64, Regime)> {
        self.lock().regimes.values().cloned().collect()
    }

    /// Whether the newest regime is isolation.
    pub(crate) fn is_isolated(&self) -> bool {
        self.lock().regimes.values().next_back().is_some_and(|(_, regime)| regime.mode == Mode::RegionalIsolation)
    }

    /// I6 at the end: accepted operations that no region's history has and no quarantine keeps.
    pub(crate) fn vanished(&self) -> Vec<String> {
        let state = self.lock();
        let mut lines = Vec::new();
        for (dot, accepted) in &state.operations {
            if accepted.settled || accepted.key.is_none() || state.quarantined.contains(dot) {
                continue;
            }
            let kept = state.regions.values().any(|region| {
                let held = region.positions.get(&dot.timeline).is_some_and(|position| position.seq >= dot.seq);
                held && region.regime.as_ref().is_none_or(|regime| within_cut(regime, *dot))
            });
            if !kept {
                lines.push(format!("I6: operation {dot} was accepted and is neither in a history nor put aside"));
            }
        }
        lines.truncate(KEPT);
        lines
    }
}

fn within_cut(regime: &Regime, dot: Dot) -> bool {
    regime.cuts.0.get(&dot.timeline).is_none_or(|cut| dot.seq <= *cut)
}

/// Whether a region stores only what is its own now.
fn isolated(regime: Option<&Regime>) -> bool {
    regime.is_some_and(|regime| regime.mode == Mode::RegionalIsolation && regime.transition.is_none())
}

impl State {
    fn violated(&mut self, text: String) {
        if self.violations.len() < KEPT {
            self.violations.push(text);
        }
    }

    fn named_values(&mut self, region: RegionId, commit: &Commit, now_ns: u64) {
        for (name, value) in &commit.meta {
            match name.as_str() {
                "regime" => {
                    if let Ok(regime) = serde_json::from_slice::<Regime>(value) {
                        self.adopted(region, regime, now_ns);
                    }
                }
                "voter" => {
                    if let Ok(voter) = postcard::from_bytes::<VoterState>(value) {
                        self.promised(region, &voter);
                    }
                }
                _ => {}
            }
        }
    }

    fn adopted(&mut self, region: RegionId, regime: Regime, now_ns: u64) {
        let epoch = regime.epoch;
        let shadow = self.regions.entry(region).or_default();
        let before = shadow.regime.replace(regime.clone());
        if let Some(before) = before.filter(|before| before.epoch > epoch) {
            self.violated(format!("I9: region {region} went back from epoch {} to {epoch}", before.epoch));
        }
        match self.regimes.get(&epoch) {
            Some((_, known)) if *known != regime => {
                let text = format!(
                    "I14: epoch {epoch} is one regime for region {region} and another elsewhere: {regime:?} and {known:?}"
                );
                self.violated(text);
            }
            Some(_) => {}
            None => {
                self.regimes.insert(epoch, (now_ns, regime));
            }
        }
    }

    fn promised(&mut self, region: RegionId, voter: &VoterState) {
        let now = (voter.promised_epoch, voter.acceptor.promised);
        let shadow = self.regions.entry(region).or_default();
        let before = shadow.promised.replace(now);
        if let Some(before) = before.filter(|before| before.0 > now.0 || before.1 > now.1) {
            self.violated(format!("I9: the voter of region {region} went back from {before:?} to {now:?}"));
        }
    }

    fn operation(&mut self, region: RegionId, operation: &Operation, heads: &mut BTreeMap<Timeline, (u64, Version)>) {
        let (dot, version) = (operation.dot, operation.version);
        let (seq, before) = heads.get(&dot.timeline).copied().unwrap_or((0, Version::ZERO));
        if dot.seq != seq + 1 {
            self.violated(format!("I2: region {region} logs {dot} after {seq}"));
        }
        if version <= before {
            self.violated(format!("I3: region {region} logs {dot} with version {version}, not after {before}"));
        }
        heads.insert(dot.timeline, (dot.seq, version));
        let shadow = self.regions.entry(region).or_default();
        let mut broken = Vec::new();
        if let Some(regime) = &shadow.regime {
            if !within_cut(regime, dot) {
                broken.push(format!("I6: region {region} logs {dot} beyond its cut"));
            }
            if isolated(Some(regime)) && operation.kind.writes() && operation.home != region {
                broken.push(format!("I12: region {region} logs {dot} of home {} in isolation", operation.home));
            }
        }
        let key = operation.key();
        // Its own log may also come back to it from others, after its disk was lost.
        if dot.timeline.region == region
            && !self.operations.contains_key(&dot)
            && let Some(held) = key.as_ref().and_then(|key| shadow.records.get(key))
            && held.version >= version
        {
            broken.push(format!("I4: region {region} accepted {dot} at {version} although it held {}", held.version));
        }
        if dot.timeline.region == region && operation.kind.writes() {
            let place = self.places.entry((dot.timeline, operation.op_id)).or_insert(dot.seq);
            let first = Dot { timeline: dot.timeline, seq: *place };
            if *place != dot.seq && !self.quarantined.contains(&first) {
                broken.push(format!(
                    "I11: region {region} accepted operation {} at {first} and at {dot}",
                    operation.op_id
                ));
            }
            *place = dot.seq;
        }
        for text in broken {
            self.violated(text);
        }
        match self.operations.get(&dot) {
            Some(known) if known.chain != operation.chain || known.version != version => {
                self.violated(format!("I2: {dot} has two contents, one of them in region {region}"));
            }
            Some(_) => {}
            None => {
                if let Some(key) = &key {
                    self.by_key.entry(key.clone()).or_default().insert(dot);
                }
                let accepted = Accepted { key, chain: operation.chain, version, settled: false };
                self.operations.insert(dot, accepted);
            }
        }
    }

    fn record(&mut self, region: RegionId, record: &longhaul_core::record::Record) {
        let shadow = self.regions.entry(region).or_default();
        // What was logged before isolation began may be shown by it, until all of it is purged together.
        let logged = shadow.positions.get(&record.dot.timeline).is_some_and(|position| position.seq >= record.dot.seq);
        if isolated(shadow.regime.as_ref()) && record.key.home != region && !logged {
            self.violated(format!("I12: region {region} stores a record of home {} in isolation", record.key.home));
        }
        let regime = self.regions.get(&region).and_then(|shadow| shadow.regime.as_ref());
        if regime.is_some_and(|regime| !within_cut(regime, record.dot)) {
            self.violated(format!("I6: region {region} stores a record that {} made beyond its cut", record.dot));
        }
        match self.operations.get(&record.dot) {
            Some(known) if known.version == record.version && known.key.as_ref() == Some(&record.key) => {}
            _ => self.violated(format!("I5: region {region} stores a record that {} did not make", record.dot)),
        }
        let held = Held { version: record.version, dot: record.dot, tombstone: record.is_tombstone() };
        let before = self.regions.entry(region).or_default().records.insert(record.key.clone(), held);
        if let Some(Held { version, dot, .. }) = before
            && version > record.version
            && !self.leaves_with_its_tail(region, dot)
        {
            self.violated(format!(
                "I5: region {region} goes back from {dot} at {version} to {} at {} in a record of home {}",
                record.dot, record.version, record.key.home
            ));
        }
    }

    /// I8: a primary shows what its durability demands on other disks only once it is there.
    fn shown_as_promised(&mut self, region: RegionId, commit: &Commit) {
        let Some(shadow) = self.regions.get(&region) else { return };
        let Some(regime) = shadow.regime.as_ref().filter(|regime| regime.is_primary(region)) else { return };
        let Some(own) = regime.timeline_of(region) else { return };
        let before = shadow.positions.get(&own).map_or(0, |position| position.visible);
        let now = commit.positions.iter().find(|(timeline, _)| *timeline == own).map(|(_, position)| position.visible);
        let Some(now) = now.filter(|now| *now > before) else { return };
        let dot = Dot { timeline: own, seq: now };
        if !self.is_durable(regime, dot) {
            let text = format!("I8: primary {region} shows {dot} before it is {}", regime.durability);
            self.violated(text);
        }
    }

    /// Whether an operation is on as many other disks as a regime's durability demands. What a disk had before it was lost
    /// counts: the acknowledgement that it gave was true.
    fn is_durable(&self, regime: &Regime, dot: Dot) -> bool {
        let has = |peer: &RegionId| {
            let held = self.regions.get(peer).and_then(|shadow| shadow.positions.get(&dot.timeline));
            let before = self.lost_disks.get(peer).map_or(0, |had| had.get(dot.timeline));
            held.map_or(0, |position| position.seq).max(before) >= dot.seq
        };
        match regime.durability {
            Durability::Local => true,
            Durability::Semi(k) => {
                regime.followers().filter(|peer| regime.is_active(*peer) && has(peer)).count() >= usize::from(k)
            }
            Durability::Sync => regime.in_sync.iter().all(has),
        }
    }

    /// Notes what the answer to a write says if nobody is in the in-sync set.
    fn note_local(&mut self, region: RegionId, dot: Dot) {
        let regime = self.regions.get(&region).and_then(|shadow| shadow.regime.as_ref());
        let alone = regime.is_some_and(|regime| {
            regime.mode == Mode::ActivePassive
                && regime.durability == Durability::Sync
                && achieved(regime) == Durability::Local
        });
        let place = |&((timeline, _), seq): &(&(Timeline, OpId), &u64)| (*timeline, *seq) == (dot.timeline, dot.seq);
        if alone && let Some(((_, op_id), _)) = self.places.iter().find(place) {
            self.answered_local.insert(*op_id);
        }
    }

    /// I7: a write is acknowledged once it is on as many other disks as its durability demands.
    fn durable_as_promised(&mut self, region: RegionId, accepted: Epoch, dot: Dot) {
        let waits = |regime: &Regime| regime.mode == Mode::ActivePassive && regime.durability != Durability::Local;
        let Some(regime) = self.regions.get(&region).and_then(|shadow| shadow.regime.as_ref()).filter(|r| waits(r))
        else {
            return;
        };
        if !self.regimes.get(&accepted).is_some_and(|(_, regime)| waits(regime)) || self.quarantined.contains(&dot) {
            return;
        }
        if !self.is_durable(regime, dot) {
            let text = format!("I7: region {region} acknowledged {dot} before it was {}", regime.durability);
            self.violated(text);
        }
    }

    /// I10: a tombstone may go once everything older of its record is everywhere where it belongs. One that leaves with
    /// the tail that made it is not collected: its record is fetched again before the region serves.
    fn removed(&mut self, region: RegionId, key: &RecordKey) {
        let Some(shadow) = self.regions.get_mut(&region) else { return };
        let Some(held) = shadow.records.remove(key) else { return };
        if !held.tombstone {
            self.vanished_from(region, key, &held);
            return;
        }
        let Held { version, dot, .. } = held;
        let Some(shadow) = self.regions.get(&region) else { return };
        let Some(regime) = shadow.regime.clone().filter(|regime| within_cut(regime, dot)) else { return };
        if regime.mode == Mode::RegionalIsolation || regime.transition.is_some() {
            return;
        }
        let members = regime.members.iter().filter(|(_, member)| member.state == MemberState::Active);
        let members: Vec<RegionId> = members.map(|(member, _)| *member).collect();
        let older = self.by_key.get(key).into_iter().flatten().filter(|dot| {
            let accepted = &self.operations[*dot];
            accepted.version < version && !accepted.settled && within_cut(&regime, **dot)
        });
        let mut found = None;
        for dot in older {
            if self.quarantined.contains(dot) {
                continue;
            }
            let missing = members.iter().find(|member| {
                let held = self.regions.get(*member).and_then(|shadow| shadow.positions.get(&dot.timeline));
                let before = self.lost_disks.get(*member).map_or(0, |had| had.get(dot.timeline));
                held.map_or(0, |position| position.visible).max(before) < dot.seq
            });
            if let Some(missing) = missing {
                found = Some(format!(
                    "I10: region {region} collected a tombstone at {version} although {dot}, which is older, is not yet shown in region {missing}"
                ));
            }
        }
        if let Some(text) = found {
            self.violated(text);
        }
    }

    /// I5: a record that was not deleted leaves without a trace only if its delete was collected where a snapshot came
    /// from, or with the tail that made it.
    fn vanished_from(&mut self, region: RegionId, key: &RecordKey, held: &Held) {
        let Held { version, dot, .. } = *held;
        let replaced = self.by_key.get(key).into_iter().flatten().any(|dot| self.operations[dot].version > version);
        if !replaced && !self.leaves_with_its_tail(region, dot) {
            let home = key.home;
            self.violated(format!(
                "I5: region {region} drops the newest state of a record of home {home}, {dot} at {version}"
            ));
        }
    }

    /// Whether an operation is no history for a region any more: what it made gives way to what was there before it.
    fn leaves_with_its_tail(&self, region: RegionId, dot: Dot) -> bool {
        let regime = self.regions.get(&region).and_then(|shadow| shadow.regime.as_ref());
        self.quarantined.contains(&dot) || regime.is_some_and(|regime| !within_cut(regime, dot))
    }

    fn positions(&mut self, region: RegionId, commit: &Commit) {
        self.shown_as_promised(region, commit);
        for timeline in &commit.forgotten {
            self.regions.entry(region).or_default().positions.remove(timeline);
        }
        for (timeline, position) in &commit.positions {
            let last = Dot { timeline: *timeline, seq: position.seq };
            let shadow = self.regions.entry(region).or_default();
            if shadow.regime.as_ref().is_some_and(|regime| !within_cut(regime, last)) {
                let text = format!("I6: region {region} has {timeline} up to {}, beyond its cut", position.seq);
                self.violated(text);
            }
            let shadow = self.regions.entry(region).or_default();
            shadow.positions.insert(*timeline, *position);
            let sealed = shadow.regime.as_ref().is_some_and(|regime| regime.cuts.0.contains_key(timeline));
            let one_primary = shadow
                .regime
                .as_ref()
                .is_some_and(|regime| regime.mode == Mode::ActivePassive && regime.transition.is_none());
            let shown = self.shown.entry(*timeline).or_insert(0);
            if timeline.region == region || sealed || !one_primary {
                *shown = (*shown).max(position.visible);
            } else if position.visible > *shown {
                let text = format!(
                    "I8: region {region} shows {timeline} up to {}, and its own region only up to {shown}",
                    position.visible
                );
                self.violated(text);
            }
        }
    }
}

impl Witness for Watch {
    fn committed(&self, region: RegionId, commit: &Commit) {
        let now_ns = self.time.now_ns();
        let state = &mut *self.lock();
        state.named_values(region, commit, now_ns);
        let shadow = state.regions.entry(region).or_default();
        let mut heads: BTreeMap<Timeline, (u64, Version)> = BTreeMap::new();
        for (timeline, position) in &shadow.positions {
            heads.insert(*timeline, (position.seq, position.version));
        }
        for timeline in &commit.forgotten {
            heads.remove(timeline);
        }
        for (timeline, seq) in &commit.truncated {
            // What is cut off may be followed by a log of another shape; its last version is not known here.
            if let Some(head) = heads.get_mut(timeline).filter(|head| head.0 > *seq) {
                *head = (*seq, Version::ZERO);
            }
        }
        for operation in &commit.operations {
            state.operation(region, operation, &mut heads);
        }
        for row in &commit.quarantine {
            state.quarantined.insert(row.operation.dot);
        }
        state.positions(region, commit);
        for key in &commit.removed_records {
            state.removed(region, key);
        }
        for record in &commit.records {
            state.record(region, record);
        }
    }

    fn purged(&self, region: RegionId, home: RegionId, keep_positions: &[Timeline]) {
        let state = &mut *self.lock();
        let shadow = state.regions.entry(region).or_default();
        let rows: BTreeSet<RecordKey> = shadow.records.keys().cloned().collect();
        shadow.records.retain(|key, _| key.home == home);
        let held = shadow.positions.clone();
        shadow.positions.retain(|timeline, _| keep_positions.contains(timeline));
        let regions = &state.regions;
        for (dot, accepted) in &mut state.operations {
            let Some(key) = &accepted.key else { continue };
            let Some(position) = held.get(&dot.timeline).filter(|position| position.seq >= dot.seq) else { continue };
            // A home that lost its disk has got its records back without the places that their operations had.
            let at_home = || {
                let record = regions.get(&key.home).and_then(|shadow| shadow.records.get(key));
                record.is_some_and(|record| record.version >= accepted.version)
            };
            // What was shown here and has no row was deleted, and the delete forgotten; there is nothing to be taken over.
            let collected = position.visible >= dot.seq && !rows.contains(key);
            accepted.settled |= key.home == home || collected || at_home();
        }
    }

    fn replaced(&self, region: RegionId) {
        let state = &mut *self.lock();
        if let Some(shadow) = state.regions.remove(&region) {
            state.lost_disks.entry(region).or_default().merge(&durable_vector(&shadow.positions));
        }
        for (dot, accepted) in &mut state.operations {
            let elsewhere = state
                .regions
                .values()
                .any(|shadow| shadow.positions.get(&dot.timeline).is_some_and(|position| position.seq >= dot.seq));
            // Only what was on the lost disk alone may go with it, its quarantine included.
            accepted.settled |= !elsewhere || state.quarantined.contains(dot);
        }
    }
}
