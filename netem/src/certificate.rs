//! The certificate: whether each link is as declared, judged from measured round trips.

use std::collections::BTreeMap;

use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::Topology;

/// Median round trips by directed pair (who measured, whom), milliseconds. A pair without a figure did not answer.
pub type Measurements = BTreeMap<(LocationName, LocationName), f64>;

/// Smallest tolerance, milliseconds.
const TOLERANCE_MS_MIN: f64 = 1.0;
/// Tolerance as a share of the declared round trip.
const TOLERANCE_SHARE: f64 = 0.02;

/// What is tolerated around a declared round trip: the larger of 1 ms and 2 %.
pub fn tolerance_ms(declared_rtt_ms: f64) -> f64 {
    (declared_rtt_ms * TOLERANCE_SHARE).max(TOLERANCE_MS_MIN)
}

/// Judges every directed pair of the topology. `after` is absent until the run is over. A pair is as declared when it
/// answered within the tolerance each time that it was measured.
pub fn judge(topology: &Topology, before: &Measurements, after: Option<&Measurements>) -> Vec<LinkCheck> {
    topology
        .links
        .iter()
        .map(|(pair, link)| {
            let (from, to) = pair;
            let declared_rtt_ms = topology.round_trip_ms(from, to).unwrap_or(f64::NAN);
            let tolerance_ms = tolerance_ms(declared_rtt_ms);
            let within =
                |figure: Option<f64>| figure.is_some_and(|figure| (figure - declared_rtt_ms).abs() <= tolerance_ms);
            let measured_rtt_ms = before.get(pair).copied();
            let measured_after_rtt_ms = after.and_then(|after| after.get(pair).copied());
            LinkCheck {
                from: from.to_string(),
                to: to.to_string(),
                declared_rtt_ms,
                measured_rtt_ms,
                measured_after_rtt_ms,
                tolerance_ms,
                ok: within(measured_rtt_ms) && (after.is_none() || within(measured_after_rtt_ms)),
                source: link.source.clone(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology::shipped("three-continents").unwrap().unwrap()
    }

    fn as_declared(topology: &Topology) -> Measurements {
        let figure = |(from, to): &(LocationName, LocationName)| topology.round_trip_ms(from, to).unwrap();
        topology.links.keys().map(|pair| (pair.clone(), figure(pair))).collect()
    }

    #[test]
    fn every_directed_pair_is_judged_and_keeps_its_source() {
        let topology = topology();
        let checks = judge(&topology, &as_declared(&topology), None);
        assert_eq!(checks.len(), 30);
        assert!(checks.iter().all(|check| check.ok && !check.source.is_empty()));
    }

    #[test]
    fn the_tolerance_is_the_larger_of_one_millisecond_and_two_percent() {
        let topology = topology();
        let name = |text: &str| LocationName::new(text).unwrap();
        let check = |from: &str, to: &str, off: f64| {
            let mut measured = as_declared(&topology);
            *measured.get_mut(&(name(from), name(to))).unwrap() += off;
            let checks = judge(&topology, &measured, None);
            assert_eq!(checks.iter().filter(|check| !check.ok).count(), usize::from(!find(&checks, from, to).ok));
            find(&checks, from, to).ok
        };
        assert!(check("new-york", "us-east-1", 0.99) && !check("new-york", "us-east-1", -1.01));
        assert!(check("us-east-1", "ap-southeast-1", 4.7) && !check("us-east-1", "ap-southeast-1", 4.8));
    }

    fn find<'a>(checks: &'a [LinkCheck], from: &str, to: &str) -> &'a LinkCheck {
        checks.iter().find(|check| check.from == from && check.to == to).unwrap()
    }

    #[test]
    fn a_pair_that_does_not_answer_is_not_as_declared() {
        let topology = topology();
        let complete = as_declared(&topology);
        let mut partial = complete.clone();
        let (pair, _) = partial.pop_first().unwrap();
        for checks in [judge(&topology, &partial, None), judge(&topology, &complete, Some(&partial))] {
            let check = find(&checks, pair.0.as_str(), pair.1.as_str());
            assert!(!check.ok);
            assert_eq!(checks.iter().filter(|check| !check.ok).count(), 1);
        }
    }
}
