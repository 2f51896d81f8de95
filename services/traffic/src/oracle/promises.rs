//! Reads that asked for the newest value (`primary`) where one primary writes: each must be linearizable.
//!
//! Two checks. By versions: a read must be as new as every write that was acknowledged before it began. By values
//! alone, without trusting versions: the history of each record must be linearizable ([`super::linearizability`]);
//! records that were deleted are left to the first check, because absence is not a unique value.
//!
//! Lost writes, and reads that showed them, are left out: they are the recovery point.

use longhaul_core::regime::Mode;

use super::history::Case;
use super::linearizability::{RegisterOperation, linearizable};
use super::staleness::Acknowledged;
use super::versions::{Shown, showed_a_lost_write, shown};
use crate::ledger::{Consistency, Outcome};
use crate::value::Observed;
use crate::workload::{Kind, Slot};

/// One line for each broken promise.
pub fn stale_primary_reads(case: &Case<'_>) -> Vec<String> {
    if case.modes().iter().any(|(_, mode)| *mode != Mode::ActivePassive) {
        return Vec::new();
    }
    let acknowledged = Acknowledged::new(case);
    let mut broken = Vec::new();
    for key in 0..case.ledger.keys.len() {
        if !matches!(case.ledger.keys[key].slot, Slot::Register(_)) {
            continue;
        }
        let before = broken.len();
        for index in &case.history.reads[key] {
            let read = &case.ledger.entries[*index];
            if read.consistency != Consistency::Primary || showed_a_lost_write(case, read) {
                continue;
            }
            if let Shown::AtLeast(version) = shown(case, read) {
                let age_ns = acknowledged.stale_ns(read.key, version, read.sent_ns);
                if age_ns > 0 {
                    broken.push(format!(
                        "stale read: operation {} asked for the newest value of {} and got one that had been replaced {:.3} ms before",
                        read.op_id,
                        case.ledger.key_text(read.key),
                        age_ns as f64 / 1e6
                    ));
                }
            }
        }
        if broken.len() == before
            && let Some(history) = register(case, key)
            && let Err(why) = linearizable(&history)
        {
            broken.push(format!("stale read: {} is not linearizable: {why}", case.ledger.key_text(key as u32)));
        }
    }
    broken
}

/// The history of a record that was never deleted; a value is the number of its operation plus 1.
fn register(case: &Case<'_>, key: usize) -> Option<Vec<RegisterOperation>> {
    let (entries, history) = (&case.ledger.entries, &case.history);
    let mut operations = Vec::new();
    for index in history.writes[key].iter().copied().filter(|index| !history.lost[*index]) {
        let write = &entries[index];
        if write.kind == Kind::Delete {
            return None;
        }
        let end = if write.outcome == Outcome::Ok { write.ended_ns } else { u64::MAX };
        operations.push(RegisterOperation { write: true, value: u64::from(write.n) + 1, start: write.write_ns, end });
    }
    for index in &history.reads[key] {
        let read = &entries[*index];
        if read.consistency != Consistency::Primary || showed_a_lost_write(case, read) {
            continue;
        }
        let value = match read.observed {
            Observed::Absent => 0,
            // Values that nobody wrote are phantoms, which are counted as such.
            Observed::Value(op_id) => match history.entry_of.get(&op_id) {
                Some(index) if entries[*index].may_have_effect() && entries[*index].key == read.key => {
                    u64::from(entries[*index].n) + 1
                }
                _ => continue,
            },
            Observed::Nothing | Observed::Foreign => continue,
        };
        operations.push(RegisterOperation { write: false, value, start: read.sent_ns, end: read.ended_ns });
    }
    Some(operations)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn a_read_of_the_newest_value_that_is_old_breaks_its_promise_and_an_eventual_one_does_not() {
        let mut scene = Scene::new();
        let (old, new) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[old, new]);
        let read = scene.read(0, 3.0, 3.1, Some(old));
        assert!(scene.judge(stale_primary_reads).is_empty());
        scene.ledger.entries[read].consistency = Consistency::Primary;
        assert_eq!(scene.judge(stale_primary_reads).len(), 1);
        scene.ledger.entries[read].sent_ns = scene.at(2.05);
        assert!(scene.judge(stale_primary_reads).is_empty());
    }

    #[test]
    fn values_alone_show_what_wrong_versions_hide() {
        let mut scene = Scene::new();
        let (old, new) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[old, new]);
        let read = scene.read(0, 3.0, 3.1, Some(old));
        scene.ledger.entries[read].consistency = Consistency::Primary;
        // The answer claims the version of the newer write.
        scene.ledger.entries[read].version = scene.ledger.entries[new].version;
        let broken = scene.judge(stale_primary_reads);
        assert!(broken.len() == 1 && broken[0].contains("not linearizable"), "{broken:?}");
    }
}
