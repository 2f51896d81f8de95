//! What is gathered while a drill runs: faults with their moments, regime changes, and when each gateway followed.

use std::collections::BTreeMap;

use longhaul_core::plan::Action;
use longhaul_http::wire::faults::{FaultState, FaultView};
use longhaul_http::wire::regime::ChangeStatus;
use longhaul_http::wire::traffic::{FaultMark, GatewayAdoption, ModeSpan};

use super::prepare::gateways;
use crate::faults::{heals, kind, place};
use crate::state::Control;

/// The evidence so far.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// By edge and epoch. A gateway that dies forgets; this does not.
    adoptions: BTreeMap<(String, u64), GatewayAdoption>,
    /// By change and region that reported it, for the same reason.
    changes: BTreeMap<(String, String), ChangeStatus>,
}

/// One step as it went.
#[derive(Debug, Clone)]
pub(crate) struct StepResult {
    /// Which step of the plan, from 1.
    pub(crate) number: usize,
    /// The fault, if there is a record of it.
    pub(crate) fault: Option<FaultView>,
    /// What the plan asked for.
    pub(crate) action: Action,
    /// The regime change that it started.
    pub(crate) change: Option<String>,
    /// Why it did not take effect.
    pub(crate) trouble: Option<String>,
}

impl Evidence {
    /// Asks gateways and regions once more.
    pub(crate) async fn gather(&mut self, control: &Control) {
        let (gateways, changes) = futures::future::join(gateways(control), control.raw_changes()).await;
        for (edge, status) in gateways.into_iter().filter_map(|(edge, answer)| Some((edge, answer.ok()?))) {
            for adopted in status.adopted {
                self.adoptions.entry((edge.clone(), adopted.epoch)).or_insert_with(|| GatewayAdoption {
                    edge: edge.clone(),
                    epoch: adopted.epoch,
                    boot_ns: adopted.boot_ns,
                    primary: adopted.primary,
                });
            }
        }
        for change in changes {
            self.changes.insert((change.id.clone(), change.region.clone()), change);
        }
    }

    /// When each gateway adopted each regime, from `since` on.
    pub(crate) fn adoptions(&self, since: u64) -> Vec<GatewayAdoption> {
        self.adoptions.values().filter(|adoption| adoption.boot_ns >= since).cloned().collect()
    }

    /// Every record of every change that moved after `since`.
    pub(crate) fn changes(&self, since: u64) -> Vec<ChangeStatus> {
        let moved = |change: &&ChangeStatus| change.milestones.iter().any(|milestone| milestone.boot_ns >= since);
        self.changes.values().filter(moved).cloned().collect()
    }

    /// When each mode that a step switched to came into force: when the new regime was decided (`flipped`), or else
    /// when the step was seen to be complete.
    pub(crate) fn modes(&self, steps: &[StepResult]) -> Vec<ModeSpan> {
        let span = |step: &StepResult| {
            let (Action::Switch { mode, .. }, None) = (&step.action, &step.trouble) else { return None };
            let flipped = step.change.as_ref().and_then(|id| self.flipped(id));
            let boot_ns = flipped.or_else(|| step.fault.as_ref()?.verified_boot_ns)?;
            Some(ModeSpan { boot_ns, mode: *mode })
        };
        let mut spans: Vec<ModeSpan> = steps.iter().filter_map(span).collect();
        spans.sort_by_key(|span| span.boot_ns);
        spans
    }

    fn flipped(&self, id: &str) -> Option<u64> {
        let milestones = self.changes.iter().filter(|((change, _), _)| change == id).flat_map(|(_, c)| &c.milestones);
        milestones.filter(|milestone| milestone.name == "flipped").map(|milestone| milestone.boot_ns).min()
    }
}

/// The faults of the steps that took effect, as the judge wants them.
pub(crate) fn marks(steps: &[StepResult], control: &Control) -> Vec<FaultMark> {
    let mark = |step: &StepResult| {
        // Healed since: the book knows it.
        let fault = step.fault.as_ref().map(|fault| control.faults.get(&fault.id).unwrap_or_else(|| fault.clone()))?;
        if fault.state == FaultState::Failed || (heals(&fault.action) && kind(&fault.action) == "clock-skew") {
            return None;
        }
        let region = place(&fault.action).filter(|name| control.config.topology.region_id(name).is_some());
        Some(FaultMark {
            boot_ns: fault.started_boot_ns,
            kind: kind(&fault.action).to_owned(),
            what: fault.text.clone(),
            heal_boot_ns: fault.healed_boot_ns,
            region: region.map(str::to_owned),
        })
    };
    steps.iter().filter_map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_core::regime::{Durability, Mode};
    use longhaul_http::wire::regime::{ChangeState, Milestone};

    fn change(id: &str, region: &str, milestones: &[(&str, u64)]) -> ChangeStatus {
        ChangeStatus {
            id: id.into(),
            kind: "mode_switch".into(),
            state: ChangeState::Done,
            region: region.into(),
            epoch_from: 1,
            epoch_to: 2,
            from: None,
            to: None,
            reason: String::new(),
            missing: Vec::new(),
            predicted_loss: None,
            milestones: milestones
                .iter()
                .map(|(name, boot_ns)| Milestone { name: (*name).into(), boot_ns: *boot_ns, region: region.into() })
                .collect(),
            trace_id: None,
        }
    }

    #[test]
    fn a_mode_is_in_force_from_the_flip_on() {
        let mut evidence = Evidence::default();
        evidence.changes.insert(("c".into(), "a".into()), change("c", "a", &[("announced", 5), ("flipped", 9)]));
        let action =
            Action::Switch { mode: Mode::ActiveActive, durability: Durability::Local, primary: None, force: false };
        let step = StepResult { number: 1, fault: None, action, change: Some("c".into()), trouble: None };
        let spans = evidence.modes(std::slice::from_ref(&step));
        assert_eq!(spans, [ModeSpan { boot_ns: 9, mode: Mode::ActiveActive }]);
        let failed = StepResult { trouble: Some("refused".into()), ..step };
        assert_eq!(evidence.modes(&[failed]), []);
    }

    #[test]
    fn changes_from_before_the_run_are_left_out() {
        let mut evidence = Evidence::default();
        evidence.changes.insert(("old".into(), "a".into()), change("old", "a", &[("flipped", 5)]));
        evidence.changes.insert(("new".into(), "a".into()), change("new", "a", &[("flipped", 15)]));
        assert_eq!(evidence.changes(10).len(), 1);
    }
}
