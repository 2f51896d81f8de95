//! The oracle: what was accepted, acknowledged and chosen, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use longhaul_core::failover::Flip;
use longhaul_core::ids::{Epoch, RegionId, Timeline};
use longhaul_core::regime::{ChangeKind, Durability, Regime};

use crate::world::{Summary, World};

pub(crate) struct Oracle {
    pub violation: Option<String>,
    pub summary: Summary,
    chosen: BTreeMap<Epoch, Rc<Regime>>,
    promised: BTreeMap<RegionId, Epoch>,
    adopted: BTreeMap<RegionId, Epoch>,
    /// Epochs under which a primary took writes.
    activated: BTreeMap<Epoch, RegionId>,
    accepted: BTreeSet<u64>,
    acknowledged: BTreeMap<u64, Timeline>,
    failed_over: BTreeSet<Timeline>,
    /// Failovers for which somebody allowed data loss that then gave something up.
    forced: bool,
}

impl Oracle {
    pub(crate) fn new(genesis: &Rc<Regime>) -> Self {
        Self {
            violation: None,
            summary: Summary::default(),
            chosen: [(genesis.epoch, genesis.clone())].into(),
            promised: BTreeMap::new(),
            adopted: BTreeMap::new(),
            activated: BTreeMap::new(),
            accepted: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            failed_over: BTreeSet::new(),
            forced: false,
        }
    }

    pub(crate) fn violate(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// I9: promises never go back, across crashes too.
    pub(crate) fn promised(&mut self, id: RegionId, epoch: Epoch) {
        let before = self.promised.insert(id, epoch);
        if before.is_some_and(|before| before > epoch) {
            self.violate(format!("I9: region {id} promised {before:?} and now {epoch}"));
        }
    }

    /// I9: adopted epochs never go back, and I14: what is adopted was chosen.
    pub(crate) fn adopted(&mut self, id: RegionId, regime: &Rc<Regime>) {
        let before = self.adopted.insert(id, regime.epoch);
        if before.is_some_and(|before| before >= regime.epoch) {
            self.violate(format!("I9: region {id} went from epoch {before:?} to {}", regime.epoch));
        }
        self.chosen(regime);
    }

    /// I14: one regime per epoch.
    pub(crate) fn chosen(&mut self, regime: &Rc<Regime>) {
        let known = self.chosen.entry(regime.epoch).or_insert_with(|| {
            if regime.change.kind == ChangeKind::Failover {
                self.summary.failovers += 1;
            }
            regime.clone()
        });
        if !Rc::ptr_eq(known, regime) && known != regime {
            self.violate(format!("I14: two regimes of epoch {}", regime.epoch));
        }
    }

    pub(crate) fn failover(&mut self, sealed: Timeline, flip: &Flip) {
        self.failed_over.insert(sealed);
        if !flip.gave_up.is_empty() {
            self.forced = true;
            self.summary.forced += 1;
        }
    }

    pub(crate) fn accepted(&mut self, id: RegionId, epoch: Epoch, operation: u64) {
        self.summary.accepted += 1;
        self.accepted.insert(operation);
        if self.activated.insert(epoch, id).is_some_and(|other| other != id) {
            self.violate(format!("I1: two primaries take writes in epoch {epoch}"));
        }
    }

    pub(crate) fn accepted_marker(&mut self, operation: u64) {
        self.accepted.insert(operation);
    }

    /// I1: no acknowledgement of an epoch after another region took writes under a later one.
    pub(crate) fn acknowledged(&mut self, id: RegionId, epoch: Epoch, timeline: Timeline, operation: u64) {
        self.summary.acknowledged += 1;
        self.acknowledged.insert(operation, timeline);
        if let Some((later, other)) = self.activated.range(epoch.next()..).find(|(_, other)| **other != id) {
            let text = format!("I1: region {id} acknowledged under epoch {epoch}, region {other} leads epoch {later}");
            self.violate(text);
        }
    }
}

impl World {
    /// What must hold when everything has been repaired and time has passed.
    pub(crate) fn check_end(&mut self) -> Result<(), String> {
        let newest = self.regions.values().map(|region| region.regime().clone()).max_by_key(|regime| regime.epoch);
        let regime = newest.ok_or("no region")?;
        let primary = regime.primary.ok_or("no primary")?;
        if let Some(transition) = &regime.transition {
            return Err(format!("I13: transition {} never ended", transition.id));
        }
        for region in self.regions.values() {
            let (id, epoch) = (region.id, region.regime().epoch);
            if epoch != regime.epoch {
                return Err(format!("liveness: region {id} is at epoch {epoch}, the newest is {}", regime.epoch));
            }
            for (timeline, log) in &region.disk.log {
                let cut = regime.cuts.iter().find(|(sealed, _)| sealed == timeline);
                if let Some((_, cut)) = cut.filter(|(_, cut)| log.len() as u64 > *cut) {
                    return Err(format!("I6: region {id} keeps {} operations of {timeline}, cut at {cut}", log.len()));
                }
                let leading = self.regions[&primary].disk.log.get(timeline).map_or(&[][..], Vec::as_slice);
                let common = log.len().min(leading.len());
                if log[..common] != leading[..common] {
                    return Err(format!("I2: region {id} and the primary differ in {timeline}"));
                }
            }
        }
        let logged = |region: &crate::world::Region| region.disk.log.values().flatten().copied().collect::<Vec<_>>();
        let history: BTreeSet<u64> = logged(&self.regions[&primary]).into_iter().collect();
        let mut somewhere = history.clone();
        for region in self.regions.values() {
            somewhere.extend(logged(region));
            somewhere.extend(region.disk.quarantine.iter().copied());
            self.oracle.summary.quarantined += region.disk.quarantine.len() as u64;
        }
        if let Some(operation) = self.oracle.accepted.difference(&somewhere).next() {
            return Err(format!("I6: operation {operation} was accepted and vanished"));
        }
        let local = self.settings.durability == Durability::Local;
        for (operation, timeline) in &self.oracle.acknowledged {
            if history.contains(operation) {
                continue;
            }
            self.oracle.summary.lost += 1;
            let excused = self.oracle.forced || (local && self.oracle.failed_over.contains(timeline));
            if !excused {
                return Err(format!("I7: operation {operation} of {timeline} was acknowledged and is not in history"));
            }
        }
        Ok(())
    }
}
