//! Recovery point: acknowledged writes that are gone.

use std::collections::BTreeMap;

use longhaul_core::ids::Timeline;
use longhaul_core::report::{LostWrite, Rpo};

use super::history::Case;
use crate::ledger::Outcome;

/// What was lost.
///
/// `seconds`: for each log that lost a write, the last acknowledgement out of it minus the acknowledgement of the
/// earliest write that it lost; the largest of them. Everything acknowledged before that point survived.
pub fn rpo(case: &Case<'_>) -> Rpo {
    let (ledger, history) = (case.ledger, &case.history);
    let mut rpo = Rpo { predicted_writes: predicted(case), ..Rpo::default() };
    let mut earliest: BTreeMap<Timeline, u64> = BTreeMap::new();
    let mut last: BTreeMap<Timeline, u64> = BTreeMap::new();
    for (index, entry) in ledger.entries.iter().enumerate() {
        if entry.may_have_effect() && entry.outcome == Outcome::Unknown {
            let survived = history.surviving.contains_key(&entry.op_id) || history.shown.contains(&entry.op_id);
            if survived { rpo.unknown_survived += 1 } else { rpo.unknown_absent += 1 }
        }
        if !entry.acknowledged() {
            continue;
        }
        if let Some(dot) = entry.dot {
            let last = last.entry(dot.timeline).or_insert(0);
            *last = (*last).max(entry.ended_ns);
            if history.lost[index] {
                let earliest = earliest.entry(dot.timeline).or_insert(u64::MAX);
                *earliest = (*earliest).min(entry.ended_ns);
            }
        }
        if history.lost[index] {
            rpo.lost.push(LostWrite {
                op_id: entry.op_id.to_string(),
                key: ledger.key_text(entry.key),
                edge: ledger.edges[usize::from(entry.edge)].name.clone(),
                region: entry.region.map(|region| ledger.regions[usize::from(region)].clone()),
                acknowledged_s: ledger.seconds(entry.ended_ns),
                quarantined: history.quarantined.contains(&entry.op_id),
                trace_id: entry.trace.map(longhaul_http::trace::trace_id_text),
            });
        }
    }
    rpo.lost.sort_by(|a, b| a.acknowledged_s.total_cmp(&b.acknowledged_s).then_with(|| a.op_id.cmp(&b.op_id)));
    rpo.writes = rpo.lost.len() as u64;
    let spans = earliest.iter().map(|(timeline, earliest)| last[timeline].saturating_sub(*earliest) as f64 / 1e9);
    rpo.seconds = spans.fold(0.0, f64::max);
    rpo
}

/// What the servers expected to lose, over all failovers (the same one from several regions counts once).
fn predicted(case: &Case<'_>) -> Option<u64> {
    let mut by_change: BTreeMap<&str, u64> = BTreeMap::new();
    for change in &case.circumstances.changes {
        if let Some(loss) = change.predicted_loss {
            let known = by_change.entry(&change.id).or_insert(0);
            *known = (*known).max(loss);
        }
    }
    (!by_change.is_empty()).then(|| by_change.values().sum())
}

/// Holes in what was lost: one line for each log in which an acknowledged write beyond a lost one survived. A cut
/// loses a tail and nothing but a tail.
pub fn holes(case: &Case<'_>) -> Vec<String> {
    let mut first_lost: BTreeMap<Timeline, u64> = BTreeMap::new();
    let mut last_kept: BTreeMap<Timeline, u64> = BTreeMap::new();
    for (index, entry) in case.ledger.entries.iter().enumerate() {
        let (true, Some(dot)) = (entry.acknowledged(), entry.dot) else { continue };
        if case.history.lost[index] {
            let first = first_lost.entry(dot.timeline).or_insert(u64::MAX);
            *first = (*first).min(dot.seq);
        } else if case.history.surviving.get(&entry.op_id).is_some_and(|dots| dots.contains(&dot)) {
            let last = last_kept.entry(dot.timeline).or_insert(0);
            *last = (*last).max(dot.seq);
        }
    }
    first_lost
        .into_iter()
        .filter_map(|(timeline, first)| {
            let last = last_kept.get(&timeline).copied()?;
            (last > first).then(|| {
                format!("log {timeline} lost operation {first} and kept {last}: the loss is not a tail, which no cut explains")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn what_no_region_has_is_lost_and_the_seconds_reach_from_the_first_loss_to_the_last_acknowledgement() {
        // Acknowledged at 10.0, 10.5, 11.0, 11.2 s out of one log; the first two survive, so 2 writes and 0.2 s.
        let mut scene = Scene::new();
        let ops: Vec<_> = [10.0, 10.5, 11.0, 11.2].map(|at_s| scene.put(0, at_s, at_s)).to_vec();
        scene.remember("eu", &ops[..2]);
        scene.remember("us", &ops[..1]);
        let rpo = scene.judge(rpo);
        assert_eq!(rpo.writes, 2);
        assert!((rpo.seconds - 0.2).abs() < 1e-6, "{}", rpo.seconds);
        assert!((rpo.lost[0].acknowledged_s - 11.0).abs() < 1e-6);
        assert!(scene.judge(holes).is_empty());
    }

    #[test]
    fn a_remembered_operation_beyond_a_cut_is_lost_and_quarantined() {
        let mut scene = Scene::new();
        let op = scene.put(0, 1.0, 1.1);
        scene.remember("eu", &[op]);
        scene.put_aside("eu", op);
        let rpo = scene.judge(rpo);
        assert_eq!((rpo.writes, rpo.lost[0].quarantined), (1, true));
    }

    #[test]
    fn an_overwritten_write_that_is_remembered_is_not_lost() {
        let mut scene = Scene::new();
        let (older, newer) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
        scene.remember("eu", &[older, newer]);
        scene.show("eu", newer);
        assert_eq!(scene.judge(rpo).writes, 0);
    }

    #[test]
    fn a_created_record_that_nobody_shows_is_lost_although_it_is_remembered() {
        let mut scene = Scene::new();
        let op = scene.insert(1.0, 1.1);
        scene.remember("eu", &[op]);
        assert_eq!(scene.judge(rpo).writes, 0);
        scene.absent("eu", op);
        assert_eq!(scene.judge(rpo).writes, 1);
    }

    #[test]
    fn unknown_writes_are_counted_apart() {
        let mut scene = Scene::new();
        let (here, _gone) = (scene.unknown_put(0, 1.0), scene.unknown_put(1, 1.0));
        scene.remember("eu", &[here]);
        let rpo = scene.judge(rpo);
        assert_eq!((rpo.writes, rpo.unknown_survived, rpo.unknown_absent), (0, 1, 1));
    }

    #[test]
    fn a_loss_in_the_middle_of_a_log_is_called_a_hole() {
        let mut scene = Scene::new();
        let ops: Vec<_> = [1.0, 2.0, 3.0].map(|at_s| scene.put(0, at_s, at_s)).to_vec();
        scene.remember("eu", &[ops[0], ops[2]]);
        assert_eq!(scene.judge(holes).len(), 1);
    }
}
