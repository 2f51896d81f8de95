//! Availability: the share of intended operations that succeeded in time. What the regime forbids by design is left
//! out.

use std::collections::BTreeMap;

use super::history::Case;
use crate::ledger::Entry;

/// Per edge.
pub fn by_edge(case: &Case<'_>) -> BTreeMap<String, f64> {
    shares(case, |entry| &case.ledger.edges[usize::from(entry.edge)].name)
}

/// Per home of the record.
pub fn by_home(case: &Case<'_>) -> BTreeMap<String, f64> {
    shares(case, |entry| case.ledger.home_name(entry.key))
}

/// Whether it succeeded within its deadline (users give up at it, so this only guards against a late answer).
pub fn in_time(case: &Case<'_>, entry: &Entry) -> bool {
    // An answer read in the same instant as the deadline may be told a moment later.
    const GRACE_NS: u64 = 50_000_000;
    entry.succeeded() && entry.ended_ns.saturating_sub(entry.intended_ns) <= case.ledger.deadline_ns + GRACE_NS
}

fn shares<'c>(case: &'c Case<'_>, of: impl Fn(&Entry) -> &'c str) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in case.ledger.measured().filter(|entry| !case.ledger.is_policy_denial(entry)) {
        let (ok, all) = counts.entry(of(entry)).or_default();
        *ok += u64::from(in_time(case, entry));
        *all += 1;
    }
    counts.into_iter().map(|(name, (ok, all))| (name.to_owned(), ok as f64 / all as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn denials_do_not_count_and_unknown_outcomes_are_no_success() {
        let mut scene = Scene::new();
        for second in 0..8 {
            scene.put(0, f64::from(second), f64::from(second) + 0.1);
        }
        scene.failed_put(0, 8.0, 8.5);
        scene.unknown_put(0, 9.0);
        scene.denied_read(9.5);
        // Warm-up is not measured.
        scene.failed_put(0, -1.0, -0.5);
        assert!((scene.judge(by_edge)["london"] - 0.8).abs() < 1e-12);
        let homes = scene.judge(by_home);
        assert!((homes["eu"] - 0.8).abs() < 1e-12 && !homes.contains_key("us"), "{homes:?}");
    }
}
