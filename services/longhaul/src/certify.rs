//! Measuring the links of a running testbed for its certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;
use longhaul_core::topology::Topology;
use longhaul_http::client::HttpClient;
use longhaul_http::wire::probe::{PROBE_MEASURE_PATH, ProbeRequest, ProbeResult};
use longhaul_netem::certificate;
use longhaul_netem::probe::{Pair, Survey, survey};

/// Round trips per pair of the certificate.
const SAMPLES: u32 = 12;
/// Exchanges of a location with itself: many, because they are short.
const OWN_SAMPLES: u32 = 50;
/// Deadline of one of them, milliseconds.
const OWN_DEADLINE_MS: u64 = 1000;
/// Deadline of all of them.
const OWN_WHOLE: Duration = Duration::from_secs(5);
/// How the links are measured. Probes are small, so that a few at a time hardly disturb each other.
const SURVEY: Survey = Survey { samples: SAMPLES, deadline: Duration::from_secs(3), at_a_time: 8 };
/// A pair outside the tolerance is measured again this many times, and the smallest figure counts: a busy machine adds to
/// a round trip now and then and never takes from it, and a wrong link is wrong each time.
const REPEATS: usize = 8;

/// Measures every pair and judges it against the declared round trip. `selves` are the locations, each paired with itself: an
/// exchange without a link. What it costs the two programs is no part of the link and is subtracted.
pub(crate) async fn certify(
    client: &HttpClient,
    topology: &Topology,
    pairs: &[Pair],
    selves: &[Pair],
) -> Vec<LinkCheck> {
    let own = own_costs(client, selves).await;
    let look = async |pairs: &[Pair]| {
        let (mut measured, failures) = survey(client, pairs, SURVEY).await;
        for ((from, _), figure) in &mut measured {
            *figure = (*figure - own.get(from).copied().unwrap_or(0.0)).max(0.0);
        }
        (measured, failures)
    };
    let (mut measured, failures) = look(pairs).await;
    for failure in failures {
        tracing::warn!(%failure, "a link was not measured");
    }
    let mut checks = certificate::judge(topology, &measured, None);
    for _ in 0..REPEATS {
        let off = |pair: &&Pair| {
            checks.iter().any(|check| !check.ok && check.from == pair.from.as_str() && check.to == pair.to.as_str())
        };
        let again: Vec<Pair> = pairs.iter().filter(off).cloned().collect();
        if again.is_empty() {
            break;
        }
        for (pair, figure) in look(&again).await.0 {
            let smallest = measured.entry(pair).or_insert(figure);
            *smallest = smallest.min(figure);
        }
        checks = certificate::judge(topology, &measured, None);
    }
    checks
}

/// What an exchange with itself costs each location at least, milliseconds: one after the other, so that they do not disturb
/// each other. The least, because whatever a busy machine adds to it must not be taken from a link.
async fn own_costs(client: &HttpClient, selves: &[Pair]) -> BTreeMap<LocationName, f64> {
    let mut costs = BTreeMap::new();
    for pair in selves {
        let request =
            ProbeRequest { address: pair.address.clone(), samples: OWN_SAMPLES, deadline_ms: OWN_DEADLINE_MS };
        match client.post::<_, ProbeResult>(&pair.prober, PROBE_MEASURE_PATH, &request, OWN_WHOLE).await {
            Ok(result) => {
                let least = result.round_trips_ms.into_iter().reduce(f64::min);
                costs.extend(least.map(|least| (pair.from.clone(), least)));
            }
            Err(error) => tracing::warn!(at = %pair.from, %error, "what a measurement itself costs is not known"),
        }
    }
    tracing::debug!(?costs, "what a measurement itself costs, milliseconds");
    costs
}
