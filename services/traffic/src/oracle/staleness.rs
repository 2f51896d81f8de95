//! Staleness: how old the answers of reads were.

use longhaul_core::report::Percentiles;
use longhaul_core::version::Version;

use super::history::Case;
use super::latency::Durations;
use super::versions::{Shown, shown};

/// For each record, its acknowledged writes that stand: version, and the earliest acknowledgement of this version or a
/// newer one; in order of versions.
pub struct Acknowledged(Vec<Vec<(Version, u64)>>);

impl Acknowledged {
    /// From the ledger.
    pub fn new(case: &Case<'_>) -> Self {
        let (ledger, history) = (case.ledger, &case.history);
        let by_key = history.writes.iter().map(|writes| {
            let mut acknowledged: Vec<(Version, u64)> = writes
                .iter()
                .filter(|index| ledger.entries[**index].acknowledged() && history.stands(**index))
                .filter_map(|index| Some((history.version[*index]?, ledger.entries[*index].ended_ns)))
                .collect();
            let mut earliest = u64::MAX;
            for (_, ended_ns) in acknowledged.iter_mut().rev() {
                earliest = earliest.min(*ended_ns);
                *ended_ns = earliest;
            }
            acknowledged
        });
        Self(by_key.collect())
    }

    /// For how long, at `at_ns`, an acknowledged write newer than `version` of the record had been there; 0 if none.
    pub fn stale_ns(&self, key: u32, version: Version, at_ns: u64) -> u64 {
        let writes = &self.0[key as usize];
        let newer = writes.partition_point(|(known, _)| *known <= version);
        writes.get(newer).map_or(0, |(_, earliest_ns)| at_ns.saturating_sub(*earliest_ns))
    }
}

/// Ages of the answers of the measured reads, and the share of them that were stale at all.
///
/// The age is the time from the earliest acknowledgement of a newer write (in version order) to the start of the read.
pub fn staleness(case: &Case<'_>) -> (Percentiles, f64) {
    let acknowledged = Acknowledged::new(case);
    let mut durations = Durations::new();
    let mut stale: u64 = 0;
    for index in case.history.reads.iter().flatten() {
        let read = &case.ledger.entries[*index];
        if !case.ledger.is_measured(read) {
            continue;
        }
        let age_ns = match shown(case, read) {
            Shown::AtLeast(version) => acknowledged.stale_ns(read.key, version, read.sent_ns),
            Shown::Anything => 0,
        };
        stale += u64::from(age_ns > 0);
        durations.add(age_ns);
    }
    let percentiles = durations.percentiles();
    (percentiles, if percentiles.count == 0 { 0.0 } else { stale as f64 / percentiles.count as f64 })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn the_age_reaches_from_the_first_newer_acknowledgement_to_the_start_of_the_read() {
        let mut scene = Scene::new();
        let ops = [scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1), scene.put(0, 3.0, 3.1)];
        scene.remember("eu", &ops);
        scene.read(0, 3.5, 3.6, Some(ops[2])); // the newest: 0
        scene.read(0, 3.5, 3.6, Some(ops[0])); // superseded since 2.1: 1.4 s
        scene.read(0, 3.0, 3.2, Some(ops[1])); // the third was not acknowledged at 3.0: 0
        scene.read(0, 1.0, 1.2, None); // before the first acknowledgement: 0
        let (ages, share) = scene.judge(staleness);
        assert_eq!(ages.count, 4);
        assert!((ages.max - 1400.0).abs() < 2.0, "{ages:?}");
        assert!((share - 0.25).abs() < 1e-12);
    }

    #[test]
    fn an_absent_record_is_as_new_as_the_newest_delete_that_it_may_show() {
        let mut scene = Scene::new();
        let old = scene.put(0, 1.0, 1.1);
        let delete = scene.delete(0, 2.0, 2.1);
        let new = scene.put(0, 3.0, 3.1);
        scene.remember("eu", &[old, delete, new]);
        scene.read(0, 2.5, 2.6, None); // 0
        scene.read(0, 3.6, 3.7, None); // the put of 3.1 is newer: 0.5 s
        let (ages, share) = scene.judge(staleness);
        assert!((ages.max - 500.0).abs() < 1.0 && (share - 0.5).abs() < 1e-12, "{ages:?}");
    }
}
