//! How the changes of the regime stand that this region drove or took part in.
//!
//! Two tasks write about the same change: the one that drives it, and the one that keeps the lease and sees the new
//! primary become active. So that neither undoes what the other noted, the driver's record is joined with the moments
//! that are known already, and whoever only saw a moment adds that moment and nothing else.

use std::sync::{Mutex, PoisonError};

use longhaul_http::wire::regime::{ChangeStatus, Milestone};

/// How many changes are remembered.
const MOST: usize = 256;

/// The newest changes, oldest first.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    changes: Mutex<Vec<ChangeStatus>>,
}

impl ChangeLog {
    /// Replaces what is known of a change, or adds it; moments that others noted stay.
    pub(super) fn record(&self, mut change: ChangeStatus) {
        self.with(|changes| {
            if let Some(known) = changes.iter_mut().find(|known| known.id == change.id) {
                for milestone in std::mem::take(&mut known.milestones) {
                    add(&mut change.milestones, milestone);
                }
                *known = change;
                return;
            }
            if changes.len() == MOST {
                changes.remove(0);
            }
            changes.push(change);
        });
    }

    /// Adds a moment, unless the change has one of this name; whether the change is known.
    pub(super) fn witness(&self, id: &str, milestone: Milestone) -> bool {
        self.with(|changes| {
            let Some(known) = changes.iter_mut().find(|known| known.id == id) else { return false };
            if known.milestones.iter().all(|noted| noted.name != milestone.name) {
                add(&mut known.milestones, milestone);
            }
            true
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<ChangeStatus> {
        self.with(|changes| changes.clone())
    }

    fn with<T>(&self, run: impl FnOnce(&mut Vec<ChangeStatus>) -> T) -> T {
        run(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Adds a moment in its place, unless it is there.
fn add(milestones: &mut Vec<Milestone>, milestone: Milestone) {
    if !milestones.contains(&milestone) {
        let place = milestones.partition_point(|noted| noted.boot_ns <= milestone.boot_ns);
        milestones.insert(place, milestone);
    }
}

#[cfg(test)]
mod tests {
    use longhaul_http::wire::regime::ChangeState;

    use super::*;

    fn moment(name: &str, boot_ns: u64) -> Milestone {
        Milestone { name: name.to_owned(), boot_ns, region: "eu-west".to_owned() }
    }

    fn change(id: &str, state: ChangeState, milestones: Vec<Milestone>) -> ChangeStatus {
        ChangeStatus {
            id: id.to_owned(),
            kind: "switchover".to_owned(),
            state,
            region: "eu-west".to_owned(),
            epoch_from: 1,
            epoch_to: 0,
            from: None,
            to: None,
            reason: String::new(),
            missing: Vec::new(),
            predicted_loss: None,
            milestones,
            trace_id: None,
        }
    }

    #[test]
    fn a_moment_seen_after_the_end_does_not_undo_the_end() {
        let log = ChangeLog::default();
        log.record(change("a", ChangeState::Running, vec![moment("announced", 1)]));
        log.record(change("a", ChangeState::Done, vec![moment("announced", 1), moment("flipped", 3)]));
        assert!(log.witness("a", moment("activated", 2)));
        let known = log.all().remove(0);
        let names: Vec<&str> = known.milestones.iter().map(|milestone| milestone.name.as_str()).collect();
        assert_eq!((known.state, names), (ChangeState::Done, vec!["announced", "activated", "flipped"]));
    }

    #[test]
    fn the_end_keeps_a_moment_that_only_a_witness_saw() {
        let log = ChangeLog::default();
        log.record(change("a", ChangeState::Running, vec![moment("announced", 1)]));
        assert!(log.witness("a", moment("activated", 2)) && log.witness("a", moment("activated", 9)));
        log.record(change("a", ChangeState::Done, vec![moment("announced", 1)]));
        assert_eq!(log.all()[0].milestones, [moment("announced", 1), moment("activated", 2)]);
    }

    #[test]
    fn an_unknown_change_is_not_witnessed_and_the_oldest_is_forgotten() {
        let log = ChangeLog::default();
        assert!(!log.witness("a", moment("activated", 1)));
        for n in 0..=MOST {
            log.record(change(&n.to_string(), ChangeState::Done, Vec::new()));
        }
        let all = log.all();
        assert_eq!((all.len(), all[0].id.as_str()), (MOST, "1"));
    }
}
