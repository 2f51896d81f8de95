//! What was injected, and how it stands.

use std::sync::{Mutex, PoisonError};

use longhaul_core::limits::FAULTS_KEPT_MAX;
use longhaul_core::plan::Action;
use longhaul_http::wire::faults::{FaultState, FaultView};

/// The record of faults, oldest first.
#[derive(Default)]
pub(crate) struct FaultBook(Mutex<Vec<FaultView>>);

impl FaultBook {
    /// Adds a fault, or replaces the one with its id.
    pub(crate) fn put(&self, fault: FaultView) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.iter_mut().find(|known| known.id == fault.id) {
            Some(known) => *known = fault,
            None => faults.push(fault),
        }
        if faults.len() > FAULTS_KEPT_MAX
            && let Some(oldest) = faults.iter().position(|fault| fault.state != FaultState::Active)
        {
            faults.remove(oldest);
        }
    }

    /// Every fault that is remembered.
    pub(crate) fn all(&self) -> Vec<FaultView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One fault.
    pub(crate) fn get(&self, id: &str) -> Option<FaultView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|fault| fault.id == id).cloned()
    }

    /// Faults in force, newest first: the order in which to heal.
    pub(crate) fn active(&self) -> Vec<FaultView> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().rev().filter(|fault| fault.state == FaultState::Active).cloned().collect()
    }

    /// Marks as healed what an act of healing took back.
    pub(crate) fn healed_by(&self, healing: &Action, boot_ns: u64) {
        self.heal(|fault| takes_back(healing, fault), boot_ns);
    }

    /// Marks as healed the changes of links that nothing is left of: every direction that they changed is `as_declared`.
    pub(crate) fn healed_links(&self, as_declared: impl Fn(&str, &str) -> bool, boot_ns: u64) {
        let is_over = |fault: &Action| match fault {
            Action::Link { from, to, both, .. } => as_declared(from, to) && (!both || as_declared(to, from)),
            _ => false,
        };
        self.heal(is_over, boot_ns);
    }

    fn heal(&self, is_over: impl Fn(&Action) -> bool, boot_ns: u64) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter_mut().filter(|fault| fault.state == FaultState::Active && is_over(&fault.action)) {
            fault.state = FaultState::Healed;
            fault.healed_boot_ns = Some(boot_ns);
        }
    }
}

fn takes_back(healing: &Action, fault: &Action) -> bool {
    match (healing, fault) {
        // A process that is killed and started anew is neither stopped nor skewed.
        (Action::RegionReturn { region: healed }, fault) => match fault {
            Action::RegionLoss { region } | Action::ClockSkew { region, .. } => healed == region,
            Action::Kill { target } | Action::Pause { target } => healed == target,
            _ => false,
        },
        (Action::Restart { target: healed }, fault) => match fault {
            Action::ClockSkew { region, .. } => healed == region,
            Action::Kill { target } | Action::Pause { target } => healed == target,
            _ => false,
        },
        (Action::Resume { target: healed }, Action::Pause { target }) => healed == target,
        (Action::ClockSkew { region: healed, .. }, Action::ClockSkew { region, .. }) => healed == region,
        (Action::HealLinks, Action::Link { .. }) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::link::LinkPatch;

    use super::*;

    fn fault(id: &str, action: Action) -> FaultView {
        FaultView {
            id: id.into(),
            action,
            state: FaultState::Active,
            started_boot_ns: 1,
            verified_boot_ns: None,
            healed_boot_ns: None,
            text: String::new(),
            trouble: None,
        }
    }

    #[test]
    fn an_act_of_healing_ends_its_own_fault_only() {
        let book = FaultBook::default();
        book.put(fault("1", Action::RegionLoss { region: "eu".into() }));
        book.put(fault("2", Action::RegionLoss { region: "us".into() }));
        book.put(fault("3", Action::Pause { target: "us".into() }));
        book.healed_by(&Action::RegionReturn { region: "us".into() }, 9);
        assert_eq!(book.active().iter().map(|fault| fault.id.as_str()).collect::<Vec<_>>(), ["1"]);
        assert_eq!(book.get("2").unwrap().healed_boot_ns, Some(9));
    }

    #[test]
    fn a_change_of_links_ends_when_every_direction_of_it_is_as_declared() {
        let book = FaultBook::default();
        let link = |both| Action::Link { from: "a".into(), to: "b".into(), both, change: LinkPatch::default() };
        book.put(fault("there", link(false)));
        book.put(fault("both", link(true)));
        book.healed_links(|from, _| from == "a", 9);
        assert_eq!(book.active().iter().map(|fault| fault.id.as_str()).collect::<Vec<_>>(), ["both"]);
        assert_eq!(book.get("there").unwrap().healed_boot_ns, Some(9));
    }

    #[test]
    fn what_is_in_force_is_never_forgotten() {
        let book = FaultBook::default();
        book.put(fault("kept", Action::HealLinks));
        for n in 0..FAULTS_KEPT_MAX + 5 {
            let mut done = fault(&n.to_string(), Action::HealLinks);
            done.state = FaultState::Done;
            book.put(done);
        }
        assert!(book.get("kept").is_some());
        assert_eq!(book.all().len(), FAULTS_KEPT_MAX);
    }
}
