//! Lost updates: acknowledged appends that are not in the final lists.
//!
//! The lists themselves are the proof, whatever the servers count. What the servers count is then held against it:
//! every lost update must be explained, by a conflict row, by a quarantine row or by the recovery point. One more
//! explanation is the client's own doing and leaves no row: another append that was built on an older list and written
//! without a condition after this one had arrived there. The writing region had this one already, so to it the two
//! were in order. And a list that lost takes with it the appends that it was built on, wherever it was known first: a
//! region that has merged the loser already counts no conflict when those arrive.

use std::collections::BTreeSet;

use longhaul_core::version::Version;
use uuid::Uuid;

use super::conflicts::losers;
use super::history::{Case, History};
use super::lag::smallest_ns;
use crate::evidence::Final;
use crate::ledger::Entry;
use crate::workload::{Kind, Slot};

/// Appends and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updates {
    /// Acknowledged appends.
    pub appends: u64,
    /// Those that are in no final list and not part of the recovery point.
    pub lost: u64,
    /// Those that nothing explains.
    pub unexplained: Vec<Uuid>,
}

/// Judges every append.
pub fn updates(case: &Case<'_>) -> Updates {
    let (ledger, history) = (case.ledger, &case.history);
    let mut updates = Updates::default();
    let mut conflicted: BTreeSet<Uuid> = losers(case).into_keys().collect();
    let rows = case.evidence.regions.values().flat_map(|region| &region.conflicts);
    conflicted.extend(rows.filter(|row| !row.concurrent).map(|row| row.loser));
    let lags = smallest_ns(case);
    for (key, writes) in history.writes.iter().enumerate() {
        if !matches!(ledger.keys[key].slot, Slot::List(..)) {
            continue;
        }
        let appends: Vec<usize> = writes.iter().copied().filter(|i| ledger.entries[*i].kind == Kind::Append).collect();
        let present: BTreeSet<u32> = match History::latest(case.evidence, key as u32) {
            Some(Final::Present { list: Some(list), .. }) => list.iter().copied().collect(),
            Some(Final::Present { .. } | Final::Absent) => BTreeSet::new(),
            // No region could be asked: the operations themselves are judged by the recovery point.
            Some(Final::Refused) | None => {
                updates.appends += appends.iter().filter(|index| ledger.entries[**index].acknowledged()).count() as u64;
                continue;
            }
        };
        let overwritten = |index: usize| {
            let mut others = appends.iter();
            others.any(|other| overwrote_blindly(history, ledger.entries.as_slice(), *other, index, &lags))
        };
        // The newest first: whatever explains why a list is gone explains what it was built on, if that went with it.
        let mut gone: BTreeSet<Version> = BTreeSet::new();
        for index in appends.iter().rev().copied() {
            let entry = &ledger.entries[index];
            let is_lost = !present.contains(&entry.n) && !history.lost[index];
            let explained = is_lost
                && (conflicted.contains(&entry.op_id)
                    || history.version[index].is_some_and(|version| gone.contains(&version))
                    || overwritten(index));
            if explained {
                gone.extend(entry.base);
            }
            if !entry.acknowledged() {
                continue;
            }
            updates.appends += 1;
            if is_lost {
                updates.lost += 1;
                if !explained && !history.quarantined.contains(&entry.op_id) {
                    updates.unexplained.push(entry.op_id);
                }
            }
        }
    }
    updates
}

/// Whether `other` replaced the list with one built before `lost`, at a region that had `lost` already: because it
/// wrote both in this order, or because `lost` had had the time to get there.
fn overwrote_blindly(
    history: &History,
    entries: &[Entry],
    other: usize,
    lost: usize,
    lags: &std::collections::BTreeMap<(u16, u16), u64>,
) -> bool {
    let (Some(newer), Some(older)) = (history.version[other], history.version[lost]) else { return false };
    let (writer, victim) = (&entries[other], &entries[lost]);
    let built_before = writer.base.is_none_or(|base| base < older);
    if newer <= older || !built_before {
        return false;
    }
    let origin = |entry: &Entry| entry.dot.map(|dot| dot.timeline.region.0.wrapping_sub(1));
    match (origin(victim), origin(writer)) {
        (Some(a), Some(b)) if a == b => true,
        (Some(a), Some(b)) => {
            victim.write_ns.saturating_add(lags.get(&(a, b)).copied().unwrap_or(0)) <= writer.ended_ns
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn an_append_that_no_list_has_is_lost_and_a_conflict_row_explains_it() {
        let mut scene = Scene::new();
        let first = scene.append(0, 0, 1.0, 1.1, None);
        let here = scene.append(0, 0, 2.0, 2.1, Some(first));
        let there = scene.append(1, 0, 2.01, 2.11, Some(first));
        scene.remember("eu", &[first, here, there]);
        scene.show_list("eu", there, &[first, there]);
        // 200 ms from eu to us: `here` cannot have been there when `there` was written. Only a conflict row explains it.
        scene.visible("eu", first, 1.05);
        scene.visible("us", first, 1.25);
        let updates_now = scene.judge(updates);
        assert_eq!((updates_now.appends, updates_now.lost, updates_now.unexplained.len()), (3, 1, 1));
        scene.conflict("us", here, there);
        let updates_now = scene.judge(updates);
        assert_eq!((updates_now.lost, updates_now.unexplained.len()), (1, 0));
    }

    #[test]
    fn a_blind_overwrite_at_one_region_explains_itself() {
        let mut scene = Scene::new();
        let first = scene.append(0, 0, 1.0, 1.1, None);
        let second = scene.append(0, 0, 2.0, 2.1, Some(first));
        let blind = scene.append(0, 0, 2.05, 2.2, Some(first));
        scene.remember("eu", &[first, second, blind]);
        scene.show_list("eu", blind, &[first, blind]);
        let updates = scene.judge(updates);
        assert_eq!((updates.lost, updates.unexplained.len()), (1, 0));
    }

    #[test]
    fn what_explains_why_a_list_is_gone_explains_what_it_was_built_on() {
        let mut scene = Scene::new();
        let first = scene.append(0, 0, 1.0, 1.1, None);
        let here = scene.append(0, 0, 2.9, 2.95, Some(first));
        let on_it = scene.append(0, 0, 3.0, 3.1, Some(here));
        let there = scene.append(1, 0, 3.01, 3.11, Some(first));
        scene.remember("eu", &[first, here, on_it, there]);
        scene.show_list("eu", there, &[first, there]);
        scene.visible("eu", first, 1.05);
        scene.visible("us", first, 1.95);
        assert_eq!(scene.judge(updates).unexplained.len(), 2);
        scene.conflict("us", on_it, there);
        let updates = scene.judge(updates);
        assert_eq!((updates.lost, updates.unexplained.len()), (2, 0));
    }

    #[test]
    fn what_the_recovery_point_counts_is_not_counted_again() {
        let mut scene = Scene::new();
        let first = scene.append(0, 0, 1.0, 1.1, None);
        let gone = scene.append(0, 0, 2.0, 2.1, Some(first));
        scene.remember("eu", &[first]);
        scene.show_list("eu", first, &[first]);
        let _ = gone;
        let updates = scene.judge(updates);
        assert_eq!((updates.appends, updates.lost), (2, 0));
    }
}
