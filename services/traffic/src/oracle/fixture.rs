//! Hand-made histories: for the self-test, which plants one anomaly at a time, and for the tests of the measures.
//!
//! Two edges (london, home eu; new-york, home us) and two regions (eu, us); a measured run of 40 s. Times are seconds
//! from its start. Every operation is played at london on a record of eu unless said otherwise.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{Dot, RegionId, Timeline};
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::version::Version;
use longhaul_http::wire::traffic::JudgeRequest;

#[cfg(test)]
use super::history::Case;
use crate::canary::RunKey;
#[cfg(test)]
use crate::evidence::PutAside;
use crate::evidence::{Conflict, Evidence, Final, RegionEvidence, Remembered};
use crate::ledger::{Consistency, Edge, Entry, Ledger, Outcome};
use crate::value::Observed;
use crate::workload::{Key, Kind, Slot};

/// Start of the measured run: far enough from 0 for a warm-up.
const START_NS: u64 = 1_000_000_000_000;

/// A history under construction. Operations are named by their index in the ledger.
pub(super) struct Scene {
    pub(super) ledger: Ledger,
    pub(super) evidence: Evidence,
    pub(super) circumstances: JudgeRequest,
    run: RunKey,
}

impl Scene {
    pub(super) fn new() -> Self {
        let edge = |name: &str, home| Edge { name: name.to_owned(), home };
        let names = || vec!["eu".to_owned(), "us".to_owned()];
        let regions = names().into_iter().map(|name| (name, RegionEvidence::default())).collect();
        Self {
            ledger: Ledger {
                edges: vec![edge("london", 0), edge("new-york", 1)],
                homes: names(),
                regions: names(),
                tag: "fixture".to_owned(),
                start_ns: START_NS,
                end_ns: START_NS + 40_000_000_000,
                deadline_ns: 2_000_000_000,
                ..Ledger::default()
            },
            evidence: Evidence { regions, converged: true, ..Evidence::default() },
            circumstances: JudgeRequest {
                faults: Vec::new(),
                changes: Vec::new(),
                gateway_adoptions: Vec::new(),
                start_mode: Mode::ActivePassive,
                durability: Durability::Local,
                modes: Vec::new(),
                settle_s: 1.0,
                regions_expected_down: Vec::new(),
                others: Vec::new(),
            },
            run: RunKey::new("fixture"),
        }
    }

    /// The boot time of a second of the run.
    #[expect(clippy::unused_self, reason = "it reads as a question to the scene")]
    pub(super) fn at(&self, second: f64) -> u64 {
        (START_NS as f64 + second * 1e9).round() as u64
    }

    pub(super) fn region(&mut self, name: &str) -> &mut RegionEvidence {
        self.evidence.regions.entry(name.to_owned()).or_default()
    }

    fn add(&mut self, kind: Kind, slot: Slot, sent_s: f64, ended_s: f64) -> usize {
        let n = self.ledger.entries.len() as u32;
        let slot = if kind == Kind::Insert { Slot::Insert(n) } else { slot };
        let key = self.ledger.intern(Key { home: 0, slot });
        let (sent_ns, ended_ns) = (self.at(sent_s), self.at(ended_s));
        self.ledger.entries.push(Entry {
            n,
            op_id: self.run.op_id(n),
            edge: 0,
            session: 0,
            parent: None,
            key,
            kind,
            consistency: Consistency::Eventual,
            intended_ns: sent_ns,
            sent_ns,
            write_ns: if kind.writes() { sent_ns } else { 0 },
            ended_ns,
            outcome: Outcome::Ok,
            code: None,
            attempts: 1,
            region: Some(0),
            epoch: 1,
            dot: None,
            version: None,
            base: None,
            observed: Observed::Nothing,
            trace: None,
        });
        n as usize
    }

    /// Gives a write its acknowledgement by a region: a place, and a version that follows the order of sending.
    fn acknowledge(&mut self, index: usize, region: u16) -> usize {
        let entry = &mut self.ledger.entries[index];
        entry.region = Some(region);
        entry.dot = Some(Dot { timeline: Timeline::new(region + 1, 1), seq: u64::from(entry.n) + 1 });
        entry.version = Some(Version { time_ns: entry.write_ns, count: entry.n, region: RegionId(region + 1) });
        index
    }

    pub(super) fn put(&mut self, register: u32, sent_s: f64, ended_s: f64) -> usize {
        self.put_at(0, register, sent_s, ended_s)
    }

    pub(super) fn put_at(&mut self, region: u16, register: u32, sent_s: f64, ended_s: f64) -> usize {
        let index = self.add(Kind::Put, Slot::Register(register), sent_s, ended_s);
        self.acknowledge(index, region)
    }

    pub(super) fn insert(&mut self, sent_s: f64, ended_s: f64) -> usize {
        let index = self.add(Kind::Insert, Slot::Insert(0), sent_s, ended_s);
        self.acknowledge(index, 0)
    }

    pub(super) fn delete(&mut self, register: u32, sent_s: f64, ended_s: f64) -> usize {
        let index = self.add(Kind::Delete, Slot::Register(register), sent_s, ended_s);
        self.acknowledge(index, 0)
    }

    /// An append that was built on the list as `base` had left it.
    pub(super) fn append(&mut self, region: u16, list: u32, sent_s: f64, ended_s: f64, base: Option<usize>) -> usize {
        let index = self.add(Kind::Append, Slot::List(list, 0), sent_s, ended_s);
        self.ledger.entries[index].base = base.and_then(|base| self.ledger.entries[base].version);
        self.acknowledge(index, region)
    }

    pub(super) fn failed_put(&mut self, register: u32, sent_s: f64, ended_s: f64) -> usize {
        let index = self.add(Kind::Put, Slot::Register(register), sent_s, ended_s);
        self.ledger.entries[index].outcome = Outcome::Failed;
        self.ledger.entries[index].code = Some(ErrorCode::NoRegion);
        index
    }

    /// A read that showed the value of `of` (at its version), or that there is no record.
    pub(super) fn read(&mut self, register: u32, sent_s: f64, ended_s: f64, of: Option<usize>) -> usize {
        let index = self.add(Kind::Read, Slot::Register(register), sent_s, ended_s);
        let (observed, version) = of.map_or((Observed::Absent, None), |of| {
            (Observed::Value(self.ledger.entries[of].op_id), self.ledger.entries[of].version)
        });
        self.ledger.entries[index].observed = observed;
        self.ledger.entries[index].version = version;
        index
    }

    /// Makes each operation carry the session token of the one before.
    pub(super) fn chain(&mut self, operations: &[usize]) {
        for pair in operations.windows(2) {
            self.ledger.entries[pair[1]].parent = Some(self.ledger.entries[pair[0]].n);
        }
    }

    pub(super) fn remember(&mut self, region: &str, operations: &[usize]) {
        for index in operations {
            let entry = self.ledger.entries[*index].clone();
            let unplaced = Dot { timeline: Timeline::new(1, 1), seq: u64::from(entry.n) + 1 };
            let dot = entry.dot.unwrap_or(unplaced);
            self.region(region).operations.push(Remembered { op_id: entry.op_id, dot, version: entry.version });
        }
    }

    pub(super) fn show(&mut self, region: &str, index: usize) {
        self.show_as(region, index, None);
    }

    /// The list as `last` left it, with the numbers of `operations` in it.
    pub(super) fn show_list(&mut self, region: &str, last: usize, operations: &[usize]) {
        let list = operations.iter().map(|index| self.ledger.entries[*index].n).collect();
        self.show_as(region, last, Some(list));
    }

    fn show_as(&mut self, region: &str, index: usize, list: Option<Vec<u32>>) {
        let entry = self.ledger.entries[index].clone();
        let version = entry.version.unwrap_or(Version::ZERO);
        let found = Final::Present { version, observed: Observed::Value(entry.op_id), list };
        self.region(region).records.insert(entry.key, found);
    }

    pub(super) fn absent(&mut self, region: &str, index: usize) {
        let key = self.ledger.entries[index].key;
        self.region(region).records.insert(key, Final::Absent);
    }

    pub(super) fn conflict(&mut self, region: &str, loser: usize, winner: usize) {
        let id = |index: usize| self.ledger.entries[index].op_id;
        let row = Conflict { loser: id(loser), winner: Some(id(winner)), concurrent: true };
        self.region(region).conflicts.push(row);
    }
}

/// What only tests play.
#[cfg(test)]
impl Scene {
    /// Applies a measure.
    pub(super) fn judge<T>(&self, measure: impl FnOnce(&Case<'_>) -> T) -> T {
        measure(&Case::new(&self.ledger, &self.evidence, &self.circumstances))
    }

    pub(super) fn unknown_put(&mut self, register: u32, sent_s: f64) -> usize {
        let index = self.add(Kind::Put, Slot::Register(register), sent_s, sent_s + 2.0);
        self.ledger.entries[index].outcome = Outcome::Unknown;
        index
    }

    /// A read of a record of us, denied at london.
    pub(super) fn denied_read(&mut self, sent_s: f64) -> usize {
        let index = self.add(Kind::Read, Slot::Register(0), sent_s, sent_s + 0.01);
        let key = self.ledger.intern(Key { home: 1, slot: Slot::Register(0) });
        let entry = &mut self.ledger.entries[index];
        (entry.key, entry.outcome, entry.code) = (key, Outcome::Failed, Some(ErrorCode::WrongHome));
        index
    }

    pub(super) fn put_aside(&mut self, region: &str, index: usize) {
        let entry = self.ledger.entries[index].clone();
        let dot = entry.dot.expect("only an accepted operation is put aside");
        self.region(region).quarantine.push(PutAside { op_id: entry.op_id, dot, merged: false });
    }

    pub(super) fn visible(&mut self, region: &str, index: usize, at_s: f64) {
        let sample = (self.ledger.entries[index].op_id, self.at(at_s));
        self.region(region).visible.push(sample);
    }

    pub(super) fn fault(&mut self, kind: &str, at_s: f64, region: Option<&str>) {
        let boot_ns = self.at(at_s);
        self.circumstances.faults.push(longhaul_http::wire::traffic::FaultMark {
            boot_ns,
            kind: kind.to_owned(),
            what: kind.to_owned(),
            heal_boot_ns: None,
            region: region.map(str::to_owned),
        });
    }

    pub(super) fn change(&mut self, id: &str, epoch_to: u64, milestones: &[(&str, f64)]) {
        use longhaul_http::wire::regime::{ChangeState, ChangeStatus, Milestone};
        let milestone = |(name, at_s): &(&str, f64)| Milestone {
            name: (*name).to_owned(),
            boot_ns: self.at(*at_s),
            region: "us".to_owned(),
        };
        self.circumstances.changes.push(ChangeStatus {
            id: id.to_owned(),
            kind: "failover".to_owned(),
            state: ChangeState::Done,
            region: "us".to_owned(),
            epoch_from: epoch_to - 1,
            epoch_to,
            from: Some("eu".to_owned()),
            to: Some("us".to_owned()),
            reason: "the primary is silent".to_owned(),
            missing: Vec::new(),
            predicted_loss: None,
            milestones: milestones.iter().map(milestone).collect(),
            trace_id: None,
        });
    }

    pub(super) fn adoption(&mut self, edge: &str, epoch: u64, at_s: f64) {
        let boot_ns = self.at(at_s);
        self.circumstances.gateway_adoptions.push(longhaul_http::wire::traffic::GatewayAdoption {
            edge: edge.to_owned(),
            epoch,
            boot_ns,
            primary: Some("us".to_owned()),
        });
    }
}
