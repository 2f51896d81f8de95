//! Whether the regions have converged.

use std::collections::{BTreeMap, VecDeque};

use longhaul_core::regime::Mode;
use longhaul_http::wire::status::DigestView;

/// What each region held at one moment.
type Snapshot = BTreeMap<String, DigestView>;

/// Earlier snapshots that a later one is compared with.
const KEPT: usize = 32;

/// The latest snapshots, oldest first.
#[derive(Debug, Default)]
pub struct Snapshots(VecDeque<Snapshot>);

impl Snapshots {
    /// Adds a snapshot; true if with it the regions have converged.
    pub fn add(&mut self, now: Snapshot, mode: Mode) -> bool {
        let converged = is_converged(&now, self.0.iter(), mode);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(now);
        converged
    }
}

/// Whether the regions hold the same: equal digests of every home, and equal vectors. Idle timelines go on with
/// no-ops, so instead of equal vectors it is enough that every region has by now what all together had at some earlier
/// moment after the traffic. In isolation every home stands alone, and there is nothing to compare.
pub fn is_converged<'a>(now: &Snapshot, earlier: impl Iterator<Item = &'a Snapshot>, mode: Mode) -> bool {
    let mut views = now.values();
    let Some(first) = views.next() else { return false };
    if mode == Mode::RegionalIsolation {
        return true;
    }
    if !views.clone().all(|view| view.homes == first.homes && view.rows == first.rows) {
        return false;
    }
    views.all(|view| view.vector == first.vector)
        || earlier.into_iter().any(|before| {
            before.len() == now.len()
                && before.values().flat_map(|view| &view.vector).all(|(timeline, seq)| {
                    now.values().all(|view| view.vector.get(timeline).copied().unwrap_or(0) >= *seq)
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(digest: &str, vector: &[(&str, u64)]) -> DigestView {
        DigestView {
            vector: vector.iter().map(|(timeline, seq)| ((*timeline).to_owned(), *seq)).collect(),
            homes: BTreeMap::from([("eu".to_owned(), digest.to_owned())]),
            rows: BTreeMap::from([("eu".to_owned(), 1)]),
        }
    }

    fn snapshot(a: DigestView, b: DigestView) -> Snapshot {
        BTreeMap::from([("eu".to_owned(), a), ("us".to_owned(), b)])
    }

    #[test]
    fn equal_digests_and_vectors_are_convergence_and_different_digests_never_are() {
        let mut snapshots = Snapshots::default();
        let apart = snapshot(view("aa", &[("1.1", 5)]), view("bb", &[("1.1", 5)]));
        assert!(!snapshots.add(apart.clone(), Mode::ActiveActive));
        assert!(snapshots.add(apart, Mode::RegionalIsolation));
        assert!(snapshots.add(snapshot(view("aa", &[("1.1", 5)]), view("aa", &[("1.1", 5)])), Mode::ActiveActive));
    }

    #[test]
    fn noops_that_keep_the_vectors_apart_do_not_hide_convergence() {
        let mut snapshots = Snapshots::default();
        let first = snapshot(view("aa", &[("1.1", 6), ("2.1", 2)]), view("aa", &[("1.1", 5), ("2.1", 2)]));
        let second = snapshot(view("aa", &[("1.1", 7), ("2.1", 2)]), view("aa", &[("1.1", 6), ("2.1", 2)]));
        assert!(!snapshots.add(first.clone(), Mode::ActiveActive));
        assert!(!snapshots.add(first, Mode::ActiveActive));
        assert!(snapshots.add(second, Mode::ActiveActive));
    }
}
