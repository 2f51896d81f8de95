//! Session guarantees: read your writes, and monotonic reads.
//!
//! A session's operations may overlap, so "before" is not time: it is the chain of session tokens. What an operation's
//! token had seen is what its ancestors in the chain wrote and read. Writes that were lost, and reads that showed
//! them, are left out: they are the recovery point, not the session's.

use std::collections::BTreeMap;

use longhaul_core::report::SessionViolations;
use longhaul_core::version::Version;

use super::history::Case;
use super::versions::{proves, showed_a_lost_write, shown};
use crate::ledger::Consistency;

/// Broken guarantees, and which reads that asked for a session's or the primary's consistency broke any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Broken {
    /// Of all reads, whatever they asked for.
    pub violations: SessionViolations,
    /// One line for each read that broke a guarantee although it asked for it.
    pub promised: Vec<String>,
}

/// Counts them. A read counts at most once for each guarantee.
pub fn sessions(case: &Case<'_>) -> Broken {
    let (ledger, history) = (case.ledger, &case.history);
    let chain = Chain::new(case);
    // What each session did to each record, in the order in which it was sent.
    let mut groups: BTreeMap<(u16, u16, u32), Vec<usize>> = BTreeMap::new();
    for (index, entry) in ledger.entries.iter().enumerate() {
        groups.entry((entry.edge, entry.session, entry.key)).or_default().push(index);
    }
    let mut broken = Broken::default();
    for group in groups.values_mut().filter(|group| group.len() > 1) {
        group.sort_by_key(|index| ledger.entries[*index].sent_ns);
        let mut seen: Vec<(usize, bool, Version)> = Vec::new();
        for index in group.iter().copied() {
            let entry = &ledger.entries[index];
            if entry.acknowledged() {
                if let Some(version) = history.version[index].filter(|_| !history.lost[index]) {
                    seen.push((index, true, version));
                }
                continue;
            }
            if entry.kind.writes() || !entry.succeeded() || showed_a_lost_write(case, entry) {
                continue;
            }
            let now = shown(case, entry);
            let older = |(earlier, wrote, version): &(usize, bool, Version), wrote_too: bool| {
                *wrote == wrote_too && now.is_older_than(*version) && chain.precedes(*earlier, index)
            };
            let own = seen.iter().any(|earlier| older(earlier, true));
            let back = seen.iter().any(|earlier| older(earlier, false));
            broken.violations.read_your_writes += u64::from(own);
            broken.violations.monotonic_reads += u64::from(back);
            if (own || back) && entry.consistency != Consistency::Eventual {
                let key = ledger.key_text(entry.key);
                broken.promised.push(format!(
                    "stale read: operation {} read {key} older than its session had seen it, although it asked for a \
                     session's consistency",
                    entry.op_id
                ));
            }
            let before = seen.iter().filter(|(earlier, ..)| chain.precedes(*earlier, index));
            let before = before.map(|(.., version)| *version).max();
            if let Some(version) = proves(case, entry, before) {
                seen.push((index, false, version));
            }
        }
    }
    broken
}

/// The forest of session tokens, numbered so that "is an ancestor of" is two comparisons.
struct Chain {
    entered: Vec<u32>,
    left: Vec<u32>,
}

impl Chain {
    fn new(case: &Case<'_>) -> Self {
        let entries = &case.ledger.entries;
        let index_of: BTreeMap<u32, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.n, index)).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        let mut roots = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match entry.parent.and_then(|parent| index_of.get(&parent)) {
                Some(parent) => children[*parent].push(index),
                None => roots.push(index),
            }
        }
        let (mut entered, mut left) = (vec![0; entries.len()], vec![0; entries.len()]);
        let mut time = 0;
        // Depth first without recursion: a session's chain is as long as its run.
        let mut stack: Vec<(usize, bool)> = roots.into_iter().map(|root| (root, false)).collect();
        while let Some((index, done)) = stack.pop() {
            time += 1;
            if done {
                left[index] = time;
            } else {
                entered[index] = time;
                stack.push((index, true));
                stack.extend(children[index].iter().map(|child| (*child, false)));
            }
        }
        Self { entered, left }
    }

    fn precedes(&self, earlier: usize, later: usize) -> bool {
        self.entered[earlier] < self.entered[later] && self.left[later] < self.left[earlier]
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn a_session_that_goes_back_is_counted_once_for_each_guarantee() {
        let mut scene = Scene::new();
        let (old, new) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[old, new]);
        let fresh = scene.read(0, 3.0, 3.1, Some(new));
        let back = scene.read(0, 4.0, 4.1, Some(old));
        scene.chain(&[old, new, fresh, back]);
        let broken = scene.judge(sessions);
        assert_eq!(broken.violations, SessionViolations { read_your_writes: 1, monotonic_reads: 1 });
        assert!(broken.promised.is_empty());
        scene.ledger.entries[back].consistency = Consistency::Session;
        assert_eq!(scene.judge(sessions).promised.len(), 1);
    }

    #[test]
    fn a_read_of_nothing_proves_only_the_oldest_delete_that_it_may_have_seen() {
        let mut scene = Scene::new();
        let (first, deleted) = (scene.put(0, 1.0, 1.1), scene.delete(0, 2.0, 2.1));
        let (again, deleted_again) = (scene.put(0, 3.0, 3.1), scene.delete(0, 3.2, 3.9));
        scene.remember("eu", &[first, deleted, again, deleted_again]);
        let saw = scene.read(0, 1.5, 1.6, Some(first));
        // While the second delete was on its way, a region that was behind showed the first.
        let nothing = scene.read(0, 3.3, 3.4, None);
        let later = scene.read(0, 3.5, 3.6, Some(again));
        scene.chain(&[saw, nothing, later]);
        assert_eq!(scene.judge(sessions), Broken::default());
        let back = scene.read(0, 4.5, 4.6, Some(first));
        scene.chain(&[saw, nothing, later, back]);
        assert_eq!(scene.judge(sessions).violations.monotonic_reads, 1);
    }

    #[test]
    fn what_a_token_did_not_carry_was_not_promised() {
        let mut scene = Scene::new();
        let (first, own) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[first, own]);
        // The read was sent with the token of the first write: the second was still on its way.
        let read = scene.read(0, 2.05, 2.2, Some(first));
        scene.chain(&[first, own]);
        scene.chain(&[first, read]);
        assert_eq!(scene.judge(sessions), Broken::default());
    }

    #[test]
    fn a_lost_write_is_not_held_against_the_session() {
        let mut scene = Scene::new();
        let (kept, lost) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[kept]);
        let saw = scene.read(0, 3.0, 3.1, Some(lost));
        let after = scene.read(0, 9.0, 9.1, Some(kept));
        scene.chain(&[kept, lost, saw, after]);
        assert_eq!(scene.judge(sessions), Broken::default());
    }

    #[test]
    fn who_read_nothing_twice_may_have_seen_the_same_delete_twice() {
        let mut scene = Scene::new();
        let (first, deleted) = (scene.put(0, 1.0, 1.1), scene.delete(0, 2.0, 2.1));
        let (again, deleted_again) = (scene.put(0, 3.0, 3.1), scene.delete(0, 3.2, 3.9));
        scene.remember("eu", &[first, deleted, again, deleted_again]);
        let saw = scene.read(0, 1.5, 1.6, Some(first));
        let nothing = [scene.read(0, 3.3, 3.4, None), scene.read(0, 3.5, 3.6, None)];
        let later = scene.read(0, 3.7, 3.8, Some(again));
        scene.chain(&[saw, nothing[0], nothing[1], later]);
        assert_eq!(scene.judge(sessions), Broken::default());
    }

    #[test]
    fn who_saw_a_delete_that_was_lost_may_see_the_value_again() {
        let mut scene = Scene::new();
        let (kept, lost) = (scene.put(0, 1.0, 1.1), scene.delete(0, 2.0, 2.1));
        scene.remember("eu", &[kept]);
        let (saw, nothing) = (scene.read(0, 1.5, 1.6, Some(kept)), scene.read(0, 3.0, 3.1, None));
        let after = scene.read(0, 9.0, 9.1, Some(kept));
        scene.chain(&[kept, saw, nothing, after]);
        assert_eq!(scene.judge(sessions), Broken::default());
        scene.remember("eu", &[lost]);
        assert_eq!(scene.judge(sessions).violations.monotonic_reads, 1);
    }

    #[test]
    fn who_saw_a_write_that_was_put_aside_and_repeated_since_may_see_less_in_between() {
        let mut scene = Scene::new();
        let (kept, repeated) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 5.1));
        scene.remember("eu", &[kept, repeated]);
        // Seen where it was put aside later, under the version that it had there.
        let saw = scene.read(0, 3.0, 3.1, Some(repeated));
        let version =
            scene.ledger.entries[repeated].version.map(|version| Version { count: version.count + 1, ..version });
        scene.ledger.entries[saw].version = version;
        let between = scene.read(0, 4.0, 4.1, Some(kept));
        scene.chain(&[saw, between]);
        assert_eq!(scene.judge(sessions).violations.monotonic_reads, 1);
        scene.put_aside("us", repeated);
        scene.region("us").quarantine[0].dot.seq += 1000;
        assert_eq!(scene.judge(sessions), Broken::default());
    }
}
