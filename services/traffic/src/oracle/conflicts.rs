//! Concurrent overwrites: what last-writer-wins dropped.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::history::Case;

/// Acknowledged writes that lost against a concurrent one, each with a winner if a region names one.
pub fn losers(case: &Case<'_>) -> BTreeMap<Uuid, Option<Uuid>> {
    let mut losers: BTreeMap<Uuid, Option<Uuid>> = BTreeMap::new();
    for conflict in case.evidence.regions.values().flat_map(|region| &region.conflicts) {
        let acknowledged = |index: &usize| case.ledger.entries[*index].acknowledged();
        if conflict.concurrent && case.history.entry_of.get(&conflict.loser).is_some_and(acknowledged) {
            let winner = losers.entry(conflict.loser).or_insert(conflict.winner);
            *winner = winner.or(conflict.winner);
        }
    }
    losers
}

/// How many there are, and how many of them are inverted: the loser was sent only after the winner had been
/// acknowledged, so the write that was older in real time was kept.
pub fn conflicts(case: &Case<'_>) -> (u64, u64) {
    let losers = losers(case);
    let inverted = losers.iter().filter(|(loser, winner)| {
        let entry = |op_id: &Uuid| case.history.entry_of.get(op_id).map(|index| &case.ledger.entries[*index]);
        let winner = winner.as_ref().and_then(entry).filter(|winner| winner.acknowledged());
        winner.zip(entry(loser)).is_some_and(|(winner, loser)| winner.ended_ns < loser.write_ns)
    });
    (losers.len() as u64, inverted.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn a_loser_counts_once_however_many_regions_tell_and_is_inverted_if_it_came_later() {
        let mut scene = Scene::new();
        let early = scene.put_at(0, 0, 1.0, 1.1);
        let overlapping = scene.put_at(1, 0, 1.05, 1.2);
        let late = scene.put_at(1, 0, 2.0, 2.1);
        scene.remember("eu", &[early, overlapping, late]);
        scene.conflict("eu", overlapping, early);
        scene.conflict("us", overlapping, early);
        scene.conflict("us", late, early);
        assert_eq!(scene.judge(conflicts), (2, 1));
        // What was never acknowledged has lost nothing.
        let unknown = scene.unknown_put(0, 3.0);
        scene.conflict("eu", unknown, late);
        assert_eq!(scene.judge(conflicts), (2, 1));
    }
}
