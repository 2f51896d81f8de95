//! Replication lag: from visible at the origin to visible at each peer, from samples that both took on one clock.

use std::collections::BTreeMap;

use longhaul_core::report::Percentiles;
use uuid::Uuid;

use super::history::Case;
use super::latency::Durations;

/// The lags of one directed pair, nanoseconds.
type Lags = BTreeMap<(u16, u16), Vec<u64>>;

/// Every sampled lag, by region of origin and peer (indices into the ledger's regions). Where the origin has no sample
/// of an operation, its acknowledgement stands for it; a lag below 0 (a slow acknowledgement) counts as 0.
fn samples(case: &Case<'_>) -> Lags {
    let (ledger, history) = (case.ledger, &case.history);
    let visible_at = |region: &str| -> Option<BTreeMap<Uuid, u64>> {
        case.evidence.regions.get(region).map(|evidence| evidence.visible.iter().copied().collect())
    };
    let visible: Vec<Option<BTreeMap<Uuid, u64>>> = ledger.regions.iter().map(|name| visible_at(name)).collect();
    let mut lags = Lags::new();
    for (peer, seen) in visible.iter().enumerate() {
        for (op_id, visible_ns) in seen.iter().flatten() {
            let Some(entry) = history.entry_of.get(op_id).map(|index| &ledger.entries[*index]) else { continue };
            let Some(dot) = entry.dot else { continue };
            let origin = usize::from(dot.timeline.region.0).wrapping_sub(1);
            if origin == peer || origin >= visible.len() {
                continue;
            }
            let at_origin = visible[origin].as_ref().and_then(|seen| seen.get(op_id)).copied();
            let lag_ns = visible_ns.saturating_sub(at_origin.unwrap_or(entry.ended_ns));
            lags.entry((origin as u16, peer as u16)).or_default().push(lag_ns);
        }
    }
    lags
}

/// Per directed pair, as `origin→peer`.
pub fn lag_ms(case: &Case<'_>) -> BTreeMap<String, Percentiles> {
    let name = |region: u16| &case.ledger.regions[usize::from(region)];
    samples(case)
        .into_iter()
        .map(|((origin, peer), lags)| {
            let mut durations = Durations::new();
            for lag_ns in lags {
                durations.add(lag_ns);
            }
            (format!("{}→{}", name(origin), name(peer)), durations.percentiles())
        })
        .collect()
}

/// The smallest lag of each directed pair: no operation got there sooner.
pub fn smallest_ns(case: &Case<'_>) -> BTreeMap<(u16, u16), u64> {
    samples(case).into_iter().filter_map(|(pair, lags)| Some((pair, lags.into_iter().min()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn lag_is_the_difference_of_two_samples_or_of_a_sample_and_the_acknowledgement() {
        let mut scene = Scene::new();
        let (both, one) = (scene.put(0, 1.0, 1.2), scene.put(0, 2.0, 2.2));
        scene.visible("eu", both, 1.1);
        scene.visible("us", both, 1.18);
        scene.visible("us", one, 2.3);
        let lags = scene.judge(lag_ms);
        let lag = lags["eu→us"];
        assert_eq!((lags.len(), lag.count), (1, 2));
        assert!((lag.p50 - 80.0).abs() < 0.1 && (lag.max - 100.0).abs() < 0.1, "{lag:?}");
        let smallest = scene.judge(smallest_ns)[&(0, 1)];
        assert!(smallest.abs_diff(80_000_000) < 1_000, "{smallest}");
    }
}
