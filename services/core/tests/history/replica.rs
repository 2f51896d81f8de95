//! A replica in memory. It keeps what a store keeps and asks the shipped rules for every decision; the only logic of
//! its own is the bypass of a rule where a mutant asks for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use longhaul_core::chain;
use longhaul_core::clock::RegionClock;
use longhaul_core::ids::{Dot, Epoch, Incarnation, OpId, RecordKey, RegionId, Timeline};
use longhaul_core::merge::{Merge, merge};
use longhaul_core::operation::{Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::regime::{MemberState, Regime};
use longhaul_core::replication::apply::{ApplyView, Refusal, admit_batch};
use longhaul_core::replication::frame::Batch;
use longhaul_core::replication::frontier::{collectable_log, frontier};
use longhaul_core::replication::relay::RelayTracker;
use longhaul_core::replication::snapshot::{self, SnapshotHeader};
use longhaul_core::replication::{MemberReport, Position, Positions, durable_vector, shippable};
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use uuid::Uuid;

use crate::mutant::Mutant;
use crate::oracle::{self, Oracle, Shadow};

/// The true time, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now(pub u64);

/// The Unix time at which every history begins.
const GENESIS_NS: u64 = 1_800_000_000_000_000_000;
/// Streams live on a faster clock than versions, so that a history of seconds contains relays.
const STREAM_SPEED: u64 = 40;
/// Log entries that a region keeps of foreign timelines; few, so that snapshots are needed.
const LOG_KEPT: usize = 6;

impl Now {
    /// The boot clock of the streams.
    pub(crate) const fn stream_ns(self) -> u64 {
        self.0 * STREAM_SPEED
    }
}

/// A snapshot on its way.
pub(crate) struct Snapshot {
    pub(crate) header: SnapshotHeader,
    pub(crate) rows: Vec<Record>,
    pub(crate) shadow: Shadow,
}

/// One region in one life.
pub(crate) struct Replica {
    pub(crate) id: RegionId,
    pub(crate) incarnation: Incarnation,
    pub(crate) regime: Regime,
    pub(crate) promised: Epoch,
    /// Whether it holds a data set (a region in a new life does not until its snapshot is merged).
    pub(crate) ready: bool,
    pub(crate) skew_ms: i64,
    pub(crate) clock: RegionClock,
    pub(crate) positions: Positions,
    pub(crate) log: BTreeMap<Timeline, BTreeMap<u64, Operation>>,
    pub(crate) records: BTreeMap<RecordKey, Record>,
    pub(crate) reports: BTreeMap<RegionId, MemberReport>,
    pub(crate) relay: RelayTracker,
    pub(crate) shadow: Shadow,
    durable_upper_ns: u64,
    born: BTreeMap<RecordKey, Now>,
    mutant: Mutant,
}

impl Replica {
    pub(crate) fn new(id: RegionId, regime: &Regime, mutant: Mutant) -> Self {
        let floor = if mutant == Mutant::JoinWithoutFloor { 0 } else { regime.hlc_floor_ns };
        Self {
            id,
            incarnation: regime.members[&id].incarnation,
            regime: regime.clone(),
            promised: regime.epoch,
            ready: false,
            skew_ms: 0,
            clock: RegionClock::new(id, floor, 0),
            positions: Positions::new(),
            log: BTreeMap::new(),
            records: BTreeMap::new(),
            reports: BTreeMap::new(),
            relay: RelayTracker::new(id),
            shadow: Shadow::new(),
            durable_upper_ns: 0,
            born: BTreeMap::new(),
            mutant,
        }
    }

    pub(crate) fn wall_ns(&self, now: Now) -> u64 {
        (GENESIS_NS + now.0).saturating_add_signed(self.skew_ms * 1_000_000)
    }

    fn view(&self) -> ApplyView<'_> {
        ApplyView {
            regime: &self.regime,
            promised: self.promised,
            positions: &self.positions,
            clock: &self.clock,
            top_up: None,
        }
    }

    pub(crate) fn vector(&self) -> VersionVector {
        durable_vector(&self.positions)
    }

    /// Whether it takes part: it holds a data set and is, as far as it knows, a member in this life.
    pub(crate) fn takes_part(&self) -> bool {
        let member = self.regime.members[&self.id];
        self.ready && member.state != MemberState::Evicted && member.incarnation == self.incarnation
    }

    /// Learns a regime.
    pub(crate) fn adopt(&mut self, regime: &Regime) {
        if regime.epoch > self.regime.epoch {
            self.regime = regime.clone();
            self.promised = self.promised.max(regime.epoch);
            if self.mutant != Mutant::JoinWithoutFloor {
                self.clock.observe_floor(regime.hlc_floor_ns);
            }
        }
    }

    /// Killed and started again; what is not durable is gone.
    pub(crate) fn restart(&mut self) {
        let stored = self.positions.values().map(|position| position.version.time_ns).max().unwrap_or(0);
        let floor = self.durable_upper_ns.max(self.regime.hlc_floor_ns).max(stored);
        self.clock = match self.mutant {
            Mutant::ClockForgets => RegionClock::new(self.id, 0, u64::MAX),
            _ => RegionClock::new(self.id, floor, self.durable_upper_ns),
        };
        self.relay = RelayTracker::new(self.id);
    }

    /// Accepts a write (or a no-op without a key). `None` if the clock or the regime refuses it.
    pub(crate) fn accept(
        &mut self,
        kind: OperationKind,
        key: Option<&RecordKey>,
        now: Now,
        oracle: &mut Oracle,
    ) -> Result<Option<Dot>, String> {
        if !self.takes_part() {
            return Ok(None);
        }
        let (wall, boot) = (self.wall_ns(now), now.0);
        if let Some(upper) = self.clock.upper_needed(wall, boot) {
            self.durable_upper_ns = self.durable_upper_ns.max(upper);
            self.clock.set_upper(upper);
        }
        let Ok(version) = self.clock.tick(wall, boot) else {
            return Ok(None);
        };
        let timeline = Timeline { region: self.id, incarnation: self.incarnation };
        let held = self.positions.get(&timeline).copied().unwrap_or(Position::START);
        let mut operation = Operation {
            dot: Dot { timeline, seq: held.seq + 1 },
            epoch: self.regime.epoch,
            kind,
            home: key.map_or(self.id, |key| key.home),
            id: key.map(|key| key.id.clone()),
            value: (kind == OperationKind::Put).then(|| Bytes::from(version.to_string())),
            version,
            context: self.vector(),
            op_id: OpId(Uuid::from_u64_pair(version.time_ns, held.seq)),
            accepted_ns: wall,
            trace: None,
            merged_from: None,
            chain: chain::START,
        };
        operation.chain = chain::next(held.chain, &operation);
        if let Some(last) = key.and_then(|key| self.shadow.get(key)).filter(|last| last.0 >= version) {
            return Err(format!("I4: {} {version:?} is born dead under {last:?}", operation.dot));
        }
        oracle.accepted(&operation)?;
        let dot = operation.dot;
        let position = Position { seq: dot.seq, visible: dot.seq, version, chain: operation.chain };
        let merged = self.apply(&operation, now)?;
        if key.is_some() && (!merged.wins || merged.overwritten.is_some()) {
            return Err(format!("I4: {dot} did not replace what its region had: {merged:?}"));
        }
        self.log.entry(timeline).or_default().insert(dot.seq, operation);
        self.positions.insert(timeline, position);
        Ok(Some(dot))
    }

    /// The next batch of a timeline for a puller that has `have`; `None` if the log no longer reaches back.
    pub(crate) fn batch(&self, timeline: Timeline, have: u64, max: usize) -> Option<Batch> {
        let head = shippable(&self.regime, timeline, self.positions.get(&timeline)?.seq);
        let log = self.log.get(&timeline)?;
        if !log.contains_key(&(have + 1)) && self.mutant != Mutant::ApplyWithGaps {
            return None;
        }
        let operations: Vec<_> = log.range(have + 1..=head.max(have + 1)).take(max).map(|(_, o)| o.clone()).collect();
        let last = operations.last()?.dot.seq;
        (last <= head).then_some(Batch { epoch: self.regime.epoch, timeline, operations, visible: head })
    }

    /// Judges and stores a batch. True if anything was new.
    pub(crate) fn receive(
        &mut self,
        from: RegionId,
        batch: &Batch,
        now: Now,
        oracle: &Oracle,
    ) -> Result<Result<bool, Refusal>, String> {
        let wall = self.wall_ns(now);
        let mut skip = match admit_batch(&self.view(), batch, wall) {
            Ok(admitted) => admitted.skip,
            Err(Refusal::Gap { .. }) if self.mutant == Mutant::ApplyWithGaps => {
                let sound = |operation: &Operation| self.clock.check(&operation.version, wall).is_ok();
                if !batch.operations.iter().all(sound) {
                    return Ok(Ok(false));
                }
                0
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut held = self.positions.get(&batch.timeline).copied().unwrap_or(Position::START);
        if self.mutant == Mutant::ApplyWithGaps {
            skip = batch.operations.iter().take_while(|operation| operation.dot.seq <= held.seq).count();
        }
        for operation in &batch.operations[skip..] {
            if self.mutant != Mutant::ApplyWithGaps {
                oracle.stored(operation, held.seq)?;
            }
            let merged = self.apply(operation, now)?;
            if merged.born_dead {
                return Err(format!("I4: {} was accepted below what its region had", operation.dot));
            }
            let dot = operation.dot;
            held = Position { seq: dot.seq, visible: dot.seq, version: operation.version, chain: operation.chain };
            self.log.entry(batch.timeline).or_default().insert(dot.seq, operation.clone());
        }
        let news = skip < batch.operations.len();
        if news {
            self.positions.insert(batch.timeline, held);
            self.clock.admit(&held.version, wall).map_err(|error| format!("a checked version was refused: {error}"))?;
            self.relay.progress(from, batch.timeline, now.stream_ns());
        }
        Ok(Ok(news))
    }

    fn apply(&mut self, operation: &Operation, now: Now) -> Result<Merge, String> {
        let Some(key) = operation.key() else {
            return Ok(Merge::default());
        };
        let current = self.records.get(&key);
        let mut merged = merge(current, operation).map_err(|error| error.to_string())?;
        if let (Mutant::NoTieBreak, Some(current)) = (self.mutant, current) {
            let stamp = |version: Version| (version.time_ns, version.count);
            merged.wins = stamp(operation.version) >= stamp(current.version);
        }
        if merged.wins {
            let record = Record::from_operation(operation).ok_or("a write without a record")?;
            self.records.insert(key.clone(), record);
            self.born.insert(key.clone(), now);
        }
        oracle::raise(&mut self.shadow, &key, (operation.version, operation.kind == OperationKind::Delete));
        Ok(merged)
    }

    /// What it says that it has.
    pub(crate) fn report(&self) -> MemberReport {
        MemberReport::new(self.incarnation, self.regime.dataset_generation, &self.positions)
    }

    /// A heartbeat of `peer` arrives, with the reports that it has heard.
    pub(crate) fn hear(&mut self, peer: &Self, now: Now) {
        let own = peer.report();
        self.relay.heads(peer.id, &own.vector, &self.vector(), now.stream_ns());
        let heard = peer.reports.iter().filter(|(region, _)| **region != self.id && **region != peer.id);
        for (region, report) in heard.chain(std::iter::once((&peer.id, &own))) {
            self.reports.entry(*region).and_modify(|mine| mine.merge(report)).or_insert_with(|| report.clone());
        }
    }

    /// Everything that it has, in one read.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let highest = self.positions.values().map(|position| position.version).max();
        let header = SnapshotHeader {
            region: self.id,
            epoch: self.regime.epoch,
            dataset_generation: self.regime.dataset_generation,
            positions: self.positions.clone(),
            hlc: highest.unwrap_or(Version::ZERO),
        };
        Snapshot { header, rows: self.records.values().cloned().collect(), shadow: self.shadow.clone() }
    }

    /// Merges a snapshot that has arrived. `Err` inside: it was refused.
    pub(crate) fn merge_snapshot(&mut self, snapshot: &Snapshot, now: Now) -> Result<(), Refusal> {
        let (header, wall) = (&snapshot.header, self.wall_ns(now));
        let floorless = !self.ready && self.mutant == Mutant::JoinWithoutFloor;
        if !floorless {
            snapshot::admit_header(&self.view(), header, wall)?;
            snapshot::admit_rows(&self.view(), &snapshot.rows, wall)?;
        }
        let rows: BTreeMap<RecordKey, &Record> = snapshot.rows.iter().map(|row| (row.key.clone(), row)).collect();
        if self.mutant == Mutant::SnapshotReplaces {
            self.records = rows.into_iter().map(|(key, row)| (key, row.clone())).collect();
        } else {
            let header_vector = durable_vector(&header.positions);
            self.records.retain(|key, local| rows.contains_key(key) || !snapshot::gone(local, &header_vector));
            let have = if self.mutant == Mutant::SnapshotRevives { VersionVector::default() } else { self.vector() };
            for (key, row) in rows {
                if snapshot::merge_row(self.records.get(&key), row, &have) {
                    self.born.insert(key.clone(), now);
                    self.records.insert(key, row.clone());
                }
            }
        }
        for timeline in snapshot::merge_positions(&mut self.positions, header) {
            self.log.remove(&timeline);
        }
        for (key, last) in &snapshot.shadow {
            oracle::raise(&mut self.shadow, key, *last);
        }
        if !floorless {
            let highest = snapshot.rows.iter().map(|row| row.version).max().unwrap_or(header.hlc);
            self.clock.admit(&highest.max(header.hlc), wall).expect("its header and rows were checked");
        }
        self.ready = true;
        Ok(())
    }

    /// Removes tombstones behind the frontier. Returns the frontier and how many went.
    pub(crate) fn collect_tombstones(&mut self, now: Now) -> (Option<Version>, usize) {
        if !self.takes_part() {
            return (None, 0);
        }
        self.reports.insert(self.id, self.report());
        let before = self.records.len();
        let bound = match self.mutant {
            Mutant::FrontierPerRegion => self.frontier_per_region(),
            _ => frontier(&self.regime, &self.reports),
        };
        let (reports, regime, born) = (&self.reports, &self.regime, &self.born);
        let everybody_has = |dot: Dot| {
            let mut members = regime.members.iter().filter(|(_, member)| member.state != MemberState::Evicted);
            members.all(|(region, _)| reports.get(region).is_some_and(|report| report.vector.covers(dot)))
        };
        let mutant = self.mutant;
        self.records.retain(|key, record| {
            let goes = match mutant {
                Mutant::CollectByAge => born.get(key).is_some_and(|born| now.0 - born.0 > 60_000_000),
                Mutant::CollectWhenAllHaveIt => everybody_has(record.dot),
                _ => bound.is_some_and(|bound| record.version <= bound),
            };
            !(record.is_tombstone() && goes)
        });
        (bound, before - self.records.len())
    }

    /// The mutant's view: all timelines of a region are one, and what is sealed does not count.
    fn frontier_per_region(&self) -> Option<Version> {
        let mut regime = self.regime.clone();
        regime.cuts = VersionVector::default();
        let mut reports = self.reports.clone();
        for report in reports.values_mut() {
            let mut heads: BTreeMap<Timeline, Version> = BTreeMap::new();
            for (timeline, version) in &report.heads {
                let live = regime.timeline_of(timeline.region)?;
                let head = heads.entry(live).or_insert(Version::ZERO);
                *head = (*head).max(*version);
            }
            report.vector = heads.keys().map(|timeline| (*timeline, report.vector.get(*timeline))).collect();
            report.heads = heads;
        }
        frontier(&regime, &reports)
    }

    /// Forgets log entries that every member has, and old foreign ones beyond a cap.
    pub(crate) fn trim_log(&mut self) {
        if !self.takes_part() {
            return;
        }
        self.reports.insert(self.id, self.report());
        let collectable = collectable_log(&self.regime, &self.reports);
        for (timeline, log) in &mut self.log {
            while log.first_key_value().is_some_and(|(seq, _)| *seq <= collectable.get(*timeline)) {
                log.pop_first();
            }
            while timeline.region != self.id && log.len() > LOG_KEPT {
                log.pop_first();
            }
        }
    }

    /// Records are what was applied (I5).
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.ready {
            return Ok(());
        }
        oracle::agree(&self.records, &self.shadow).map_err(|error| format!("region {}: {error}", self.id))
    }
}
