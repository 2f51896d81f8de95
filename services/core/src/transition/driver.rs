//! The driver of one transition.

use std::collections::{BTreeMap, BTreeSet};

use super::certificate::CertificateError;
use super::{Barrier, Command, GateScope, Observations, Origin, Plan, Step, certify, purgeable_homes, regimes};
use crate::ids::{Epoch, RegionId};
use crate::regime::{ChangeKind, Mode, Regime};
use crate::vector::VersionVector;

/// Drives one plan. It keeps no knowledge of the world: each call of [`TransitionDriver::next`] is told the regime that
/// the coordinator has adopted and what is observed, and returns what is still to be done.
#[derive(Debug, Clone)]
pub struct TransitionDriver {
    plan: Plan,
    origin: Origin,
    deadline_ns: u64,
    at: usize,
    begun: bool,
    flipped: bool,
    /// The epoch under which the present stage was first seen; older barriers and digests are of another stage.
    stage_epoch: Epoch,
    /// Of the stages so far.
    barriers: BTreeMap<RegionId, Barrier>,
    /// What a step without barriers waits for.
    converge_to: Option<VersionVector>,
    failure: Option<String>,
}

enum Check {
    Holds,
    Open(Vec<Command>),
    Failed(String),
}

impl TransitionDriver {
    /// A driver that has done nothing yet.
    pub fn new(plan: Plan, origin: Origin, now_boot_ns: u64) -> Self {
        let deadline_ns = now_boot_ns.saturating_add(origin.deadline_ms.saturating_mul(1_000_000));
        let stage_epoch = plan.epoch;
        Self {
            plan,
            origin,
            deadline_ns,
            at: 0,
            begun: false,
            flipped: false,
            stage_epoch,
            barriers: BTreeMap::new(),
            converge_to: None,
            failure: None,
        }
    }

    /// The plan that it drives.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The step that it is at; `None` at the end.
    pub fn step(&self) -> Option<&Step> {
        self.plan.steps.get(self.at)
    }

    /// What to do now. `current` is the regime that the coordinator has adopted, which must be a chosen one.
    pub fn next(&mut self, current: &Regime, observations: &Observations, now_boot_ns: u64) -> Vec<Command> {
        let mine = current.transition.as_ref().is_some_and(|transition| transition.id == self.origin.id);
        self.begun |= mine;
        if current.change.id == self.origin.id && current.change.kind == ChangeKind::TransitionDone {
            self.flipped = true;
        }
        if !self.flipped
            && let Some(end) = self.interrupted(current, mine, now_boot_ns)
        {
            return end;
        }
        while let Some(step) = self.plan.steps.get(self.at).cloned() {
            match self.check(&step, current, observations) {
                Check::Holds => {
                    self.at += 1;
                    self.converge_to = None;
                }
                Check::Open(commands) => return commands,
                Check::Failed(reason) => {
                    self.failure = Some(reason);
                    return self.give_up(current, mine);
                }
            }
        }
        vec![Command::Done]
    }

    /// Before the flip: somebody else changed the regime, it failed, or the time is over.
    fn interrupted(&mut self, current: &Regime, mine: bool, now_boot_ns: u64) -> Option<Vec<Command>> {
        if self.begun && !mine {
            let reason = self.failure.clone().unwrap_or_else(|| current.change.reason.clone());
            return Some(vec![Command::Abort(reason)]);
        }
        if !self.begun && current.epoch != self.plan.epoch {
            let planned = self.plan.epoch;
            let reason = format!("planned from epoch {planned}, but the regime is at {}; plan again", current.epoch);
            return Some(vec![Command::Abort(reason)]);
        }
        if now_boot_ns >= self.deadline_ns && self.failure.is_none() {
            let step = self.step().map_or_else(String::new, |step| format!(" at step {step:?}"));
            self.failure = Some(format!("not done within {} ms{step}", self.origin.deadline_ms));
        }
        self.failure.is_some().then(|| self.give_up(current, mine))
    }

    fn give_up(&self, current: &Regime, mine: bool) -> Vec<Command> {
        let reason = self.failure.clone().unwrap_or_default();
        let rollback = regimes::rollback(current, self.plan.coordinator, reason.clone()).filter(|_| mine);
        match rollback {
            Some(regime) => vec![Command::Propose { regime: Box::new(regime), release: false }],
            None => vec![Command::Abort(reason)],
        }
    }

    fn check(&mut self, step: &Step, current: &Regime, observations: &Observations) -> Check {
        match step {
            Step::Enter(stage) => {
                if current.transition.as_ref().is_some_and(|transition| transition.stage == *stage) {
                    self.stage_epoch = current.epoch;
                    return Check::Holds;
                }
                let regime = Box::new(regimes::staged(current, &self.plan, &self.origin, *stage));
                Check::Open(vec![Command::Propose { regime, release: false }])
            }
            Step::Converge(regions) => self.check_converged(regions, observations),
            Step::Close(regions, scope) => self.check_closed(regions, *scope, observations),
            Step::Certify(homes) => self.check_certified(homes, observations),
            Step::Merge(regions) => {
                let generation = current.dataset_generation;
                let behind = |region: &&RegionId| {
                    observations.regions.get(region).is_none_or(|seen| seen.merged_generation < generation)
                };
                let merge = |region: &RegionId| Command::MergeHomes {
                    region: *region,
                    homes: regions.iter().copied().filter(|home| home != region).collect(),
                    generation,
                };
                open_unless_empty(regions.iter().filter(behind).map(merge).collect())
            }
            Step::Flip => {
                if self.flipped {
                    return Check::Holds;
                }
                let barriers: Vec<Barrier> = self.barriers.values().copied().collect();
                let regime = regimes::flipped(current, &self.plan, &self.origin, &barriers, observations);
                let release = current.is_primary(self.plan.coordinator) && !regime.is_primary(self.plan.coordinator);
                Check::Open(vec![Command::Propose { regime: Box::new(regime), release }])
            }
            Step::Purge(regions) => {
                if current.mode != Mode::RegionalIsolation || current.transition.is_some() {
                    // The next transition has begun, be it only its first stage: nobody purges before that one has ended.
                    // Each region knows by itself what it may keep.
                    return Check::Holds;
                }
                if !current.frozen_homes.is_empty() {
                    // Regions purge by themselves once the frozen home is back. Nobody knows when: it is no part of this
                    // transition, or no other change could be driven until then.
                    return Check::Holds;
                }
                let generation = current.dataset_generation;
                let behind = |region: &&RegionId| {
                    observations.regions.get(region).is_none_or(|seen| seen.purged_generation < generation)
                };
                let purge = |region: &RegionId| Command::Purge {
                    region: *region,
                    homes: purgeable_homes(current, *region),
                    generation,
                };
                open_unless_empty(regions.iter().filter(behind).map(purge).collect())
            }
        }
    }

    fn check_converged(&mut self, regions: &BTreeSet<RegionId>, observations: &Observations) -> Check {
        let vector = if self.barriers.is_empty() {
            let here = observations.regions.get(&self.plan.coordinator).map(|seen| seen.applied.clone());
            self.converge_to.get_or_insert_with(|| here.unwrap_or_default()).clone()
        } else {
            self.barriers.values().map(|barrier| (barrier.dot.timeline, barrier.dot.seq)).collect()
        };
        let behind =
            |region: &&RegionId| observations.regions.get(region).is_none_or(|seen| !seen.applied.dominates(&vector));
        let wait = |region: &RegionId| Command::AwaitBarrier { region: *region, vector: vector.clone() };
        open_unless_empty(regions.iter().filter(behind).map(wait).collect())
    }

    fn check_closed(&mut self, regions: &BTreeSet<RegionId>, scope: GateScope, observations: &Observations) -> Check {
        let mut open = Vec::new();
        for region in regions {
            let barrier = observations.regions.get(region).and_then(|seen| seen.barrier);
            match barrier.filter(|barrier| barrier.epoch >= self.stage_epoch && barrier.scope == scope) {
                Some(barrier) => {
                    self.barriers.entry(*region).or_insert(barrier);
                }
                None if self.barriers.contains_key(region) => {}
                None => open.push(Command::CloseGate { region: *region, epoch: self.stage_epoch, scope }),
            }
        }
        open_unless_empty(open)
    }

    fn check_certified(&self, homes: &BTreeSet<RegionId>, observations: &Observations) -> Check {
        let mut open = Vec::new();
        let copy = |home: RegionId, holder: RegionId| {
            observations.copies.get(&(home, holder)).filter(|copy| copy.epoch >= self.stage_epoch)
        };
        for (home, holder) in homes.iter().flat_map(|home| homes.iter().map(move |holder| (*home, *holder))) {
            if home == holder {
                continue;
            }
            let held = copy(home, holder);
            let result = match (copy(home, home), held) {
                (Some(original), Some(held)) => certify(original, held),
                _ => Err(CertificateError::HomeBehind),
            };
            match result {
                Ok(()) => {
                    // A region learns of what it has to put aside with a regime, perhaps only since this was planned.
                    let undecided = held.map_or(0, |held| held.undecided);
                    if undecided > 0 && !self.plan.forced {
                        return Check::Failed(format!(
                            "region {holder} holds {undecided} quarantined operations of home {home}; \
                             merge or discard them, or force: they are erased"
                        ));
                    }
                }
                Err(CertificateError::HomeBehind) => open.push(Command::Certify { home, holder }),
                Err(CertificateError::Differ) => {
                    let reason = CertificateError::Differ;
                    return Check::Failed(format!("records of home {home} at region {holder}: {reason}"));
                }
            }
        }
        open_unless_empty(open)
    }
}

fn open_unless_empty(commands: Vec<Command>) -> Check {
    if commands.is_empty() { Check::Holds } else { Check::Open(commands) }
}
