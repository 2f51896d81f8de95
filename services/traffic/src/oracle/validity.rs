//! Whether the run proves anything, and what a reader of its figures should know.

use longhaul_http::wire::traffic::OutcomeCounts;

use super::history::Case;
use super::lost_updates::Updates;
use super::rpo::holes;

/// Share of operations that may go unsent before the run says more about the load generator than about the testbed.
const NOT_SENT_MAX: f64 = 0.001;
/// An operation that starts this much too late was held up by the load generator.
const LATE_NS: u64 = 250_000_000;
/// Share of operations that may start too late.
const LATE_MAX: f64 = 0.01;
/// Lines of one kind.
const LINES_MAX: usize = 20;

/// Why the run is invalid, and notes.
pub fn validity(case: &Case<'_>, outcomes: &OutcomeCounts, updates: &Updates) -> (Vec<String>, Vec<String>) {
    let (mut invalid, mut notes) = (Vec::new(), Vec::new());
    let all = outcomes.ok + outcomes.failed + outcomes.unknown;
    if all == 0 {
        invalid.push("no operation was measured; lengthen the run or raise the rate".to_owned());
    }
    let share = |count: u64| count as f64 / (all.max(1)) as f64;
    if share(outcomes.not_sent) > NOT_SENT_MAX {
        invalid.push(format!(
            "the load generator fell behind: {} of {all} operations were never sent; lower the rate or use a larger machine",
            outcomes.not_sent
        ));
    }
    let late = case.ledger.measured().filter(|entry| entry.sent_ns > entry.intended_ns.saturating_add(LATE_NS));
    let late = late.count() as u64;
    if share(late) > LATE_MAX {
        invalid.push(format!(
            "the load generator fell behind: {late} of {all} operations started more than {} ms late; lower the rate or use a larger machine",
            LATE_NS / 1_000_000
        ));
    } else if late > 0 {
        notes.push(format!("{late} of {all} operations started more than {} ms late", LATE_NS / 1_000_000));
    }
    for (region, reason) in &case.evidence.missing {
        invalid.push(format!(
            "region {region} gave no evidence: {reason}; bring it back, or say that it is meant to be down"
        ));
    }
    for region in &case.circumstances.regions_expected_down {
        notes.push(format!("region {region} is down at the end: what only it holds counts as lost"));
    }
    notes.extend(holes(case).into_iter().take(LINES_MAX));
    let unexplained = updates.unexplained.iter().take(LINES_MAX);
    notes.extend(unexplained.map(|op_id| format!("nothing explains why append {op_id} is lost")));
    (invalid, notes)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::super::judge;
    use super::*;

    #[test]
    fn one_in_a_thousand_unsent_is_tolerated_and_more_is_not() {
        let mut scene = Scene::new();
        for step in 0..1000_u32 {
            scene.put(0, f64::from(step) / 50.0, f64::from(step) / 50.0 + 0.01);
        }
        let unsent = |scene: &mut Scene, index: usize| {
            let entry = &mut scene.ledger.entries[index];
            (entry.sent_ns, entry.write_ns, entry.attempts, entry.version, entry.dot) = (0, 0, 0, None, None);
            entry.outcome = crate::ledger::Outcome::Failed;
        };
        let invalid = |scene: &Scene| judge(&scene.ledger, &scene.evidence, &scene.circumstances).invalid;
        unsent(&mut scene, 10);
        assert!(invalid(&scene).is_empty());
        unsent(&mut scene, 11);
        assert!(invalid(&scene)[0].contains("2 of 1000 operations were never sent"), "{:?}", invalid(&scene));
    }

    #[test]
    fn a_region_without_evidence_makes_the_run_invalid_unless_it_is_meant_to_be_down() {
        let mut scene = Scene::new();
        scene.put(0, 1.0, 1.1);
        scene.circumstances.regions_expected_down.push("us".to_owned());
        scene.evidence.missing.insert("eu".to_owned(), "refused".to_owned());
        let found = scene
            .judge(|case| validity(case, &OutcomeCounts { ok: 1, ..OutcomeCounts::default() }, &Updates::default()));
        assert_eq!((found.0.len(), found.1.len()), (1, 1));
        assert!(found.0[0].contains("region eu gave no evidence"));
    }
}
