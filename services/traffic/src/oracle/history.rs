//! What is left of what was promised: the ledger joined with the evidence, once for all measures.

use std::collections::{BTreeMap, BTreeSet};

use longhaul_core::ids::Dot;
use longhaul_core::version::Version;
use longhaul_http::wire::traffic::JudgeRequest;
use uuid::Uuid;

use crate::evidence::{Evidence, Final};
use crate::ledger::{Entry, Ledger, Outcome};
use crate::value::Observed;
use crate::workload::{Kind, Slot};

/// Everything that a judgement rests on.
pub struct Case<'a> {
    /// What the clients saw.
    pub ledger: &'a Ledger,
    /// What is left.
    pub evidence: &'a Evidence,
    /// What the drill did, and what the servers say about the changes that followed (for phases and marks only).
    pub circumstances: &'a JudgeRequest,
    /// The two joined.
    pub history: History,
}

impl<'a> Case<'a> {
    /// Joins ledger and evidence.
    pub fn new(ledger: &'a Ledger, evidence: &'a Evidence, circumstances: &'a JudgeRequest) -> Self {
        Self { ledger, evidence, circumstances, history: History::new(ledger, evidence) }
    }

    /// The modes that were in force, with their start (0: from the beginning), in order.
    pub fn modes(&self) -> Vec<(u64, longhaul_core::regime::Mode)> {
        let mut spans: Vec<_> = self.circumstances.modes.iter().map(|span| (span.boot_ns, span.mode)).collect();
        spans.push((0, self.circumstances.start_mode));
        spans.sort_by_key(|(from, _)| *from);
        spans
    }

    /// The mode at the end.
    pub fn last_mode(&self) -> longhaul_core::regime::Mode {
        self.modes().last().map_or(self.circumstances.start_mode, |(_, mode)| *mode)
    }
}

/// What became of each operation.
#[derive(Debug, Default)]
pub struct History {
    /// Entries by operation id.
    pub entry_of: BTreeMap<Uuid, usize>,
    /// Where each operation is in the history that survived: dots beyond a cut do not count.
    pub surviving: BTreeMap<Uuid, BTreeSet<Dot>>,
    /// The versions that operations have there. One that was put aside and repeated by its user has had another one.
    pub surviving_versions: BTreeSet<(Uuid, Version)>,
    /// Operations that some region put aside.
    pub quarantined: BTreeSet<Uuid>,
    /// Operations whose value some region shows at the end.
    pub shown: BTreeSet<Uuid>,
    /// Per entry: an acknowledged write that is gone.
    pub lost: Vec<bool>,
    /// Per record: entries that may have changed it, in the order of their versions (those without one first).
    pub writes: Vec<Vec<usize>>,
    /// Per record: those of the writes that delete it.
    pub deletes: Vec<Vec<usize>>,
    /// Per record: reads that were answered, in the order in which they were sent.
    pub reads: Vec<Vec<usize>>,
    /// Per entry: the version of the write, from its answer or from the surviving history.
    pub version: Vec<Option<Version>>,
}

impl History {
    fn new(ledger: &Ledger, evidence: &Evidence) -> Self {
        let entries = &ledger.entries;
        let mut history = Self {
            entry_of: entries.iter().enumerate().map(|(index, entry)| (entry.op_id, index)).collect(),
            lost: vec![false; entries.len()],
            writes: vec![Vec::new(); ledger.keys.len()],
            deletes: vec![Vec::new(); ledger.keys.len()],
            reads: vec![Vec::new(); ledger.keys.len()],
            version: entries.iter().map(|entry| entry.version).collect(),
            ..Self::default()
        };
        history.survive(evidence);
        for (index, entry) in entries.iter().enumerate() {
            history.lost[index] = entry.acknowledged() && history.is_gone(ledger, evidence, entry);
        }
        for (index, entry) in entries.iter().enumerate() {
            if entry.may_have_effect() {
                history.writes[entry.key as usize].push(index);
                if entry.kind == Kind::Delete {
                    history.deletes[entry.key as usize].push(index);
                }
            } else if entry.kind == Kind::Read && entry.outcome == Outcome::Ok {
                history.reads[entry.key as usize].push(index);
            }
        }
        let version = &history.version;
        for writes in &mut history.writes {
            writes.sort_by_key(|index| version[*index]);
        }
        for reads in &mut history.reads {
            reads.sort_by_key(|index| entries[*index].sent_ns);
        }
        history
    }

    fn survive(&mut self, evidence: &Evidence) {
        let mut beyond_a_cut = BTreeSet::new();
        for put_aside in evidence.regions.values().flat_map(|region| &region.quarantine) {
            beyond_a_cut.insert(put_aside.dot);
            self.quarantined.insert(put_aside.op_id);
        }
        for remembered in evidence.regions.values().flat_map(|region| &region.operations) {
            if beyond_a_cut.contains(&remembered.dot) {
                continue;
            }
            self.surviving.entry(remembered.op_id).or_default().insert(remembered.dot);
            self.surviving_versions.extend(remembered.version.map(|version| (remembered.op_id, version)));
            if let Some(index) = self.entry_of.get(&remembered.op_id)
                && self.version[*index].is_none()
            {
                self.version[*index] = remembered.version;
            }
        }
        for found in evidence.regions.values().flat_map(|region| region.records.values()) {
            if let Final::Present { observed: Observed::Value(op_id), version, .. } = found {
                self.shown.insert(*op_id);
                self.surviving_versions.insert((*op_id, *version));
                if let Some(index) = self.entry_of.get(op_id)
                    && self.version[*index].is_none()
                {
                    self.version[*index] = Some(*version);
                }
            }
        }
    }

    /// An acknowledged write is gone if no region remembers it and no region shows its value. A record that was
    /// created and never touched again must be shown, whatever is remembered: that is the proof without the servers'
    /// bookkeeping.
    fn is_gone(&self, ledger: &Ledger, evidence: &Evidence, entry: &Entry) -> bool {
        if self.shown.contains(&entry.op_id) {
            return false;
        }
        if !self.surviving.contains_key(&entry.op_id) {
            return true;
        }
        let created = matches!(ledger.keys[entry.key as usize].slot, Slot::Insert(_));
        let mut looked = evidence.regions.values().filter_map(|region| region.records.get(&entry.key)).peekable();
        created && looked.peek().is_some() && looked.all(|found| *found == Final::Absent || *found == Final::Refused)
    }

    /// Whether a write is part of what the testbed must still show: it may have taken effect and is not lost.
    pub fn stands(&self, index: usize) -> bool {
        !self.lost[index]
    }

    /// The record as the region with the newest version of it shows it; `None` if no region answered about it.
    pub fn latest(evidence: &Evidence, key: u32) -> Option<&Final> {
        evidence.regions.values().filter_map(|region| region.records.get(&key)).max_by_key(|found| match found {
            Final::Present { version, .. } => (2, Some(*version)),
            Final::Absent => (1, None),
            Final::Refused => (0, None),
        })
    }
}
