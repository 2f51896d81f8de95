//! Measuring the links of a running testbed for its certificate.

use std::time::Duration;

use longhaul_core::report::LinkCheck;
use longhaul_core::topology::Topology;
use longhaul_http::client::HttpClient;
use longhaul_netem::certificate;
use longhaul_netem::probe::{Pair, survey};

/// Round trips per pair of the certificate.
const SAMPLES: u32 = 12;
/// Deadline of one round trip of the certificate.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(3);
/// A pair outside the tolerance is measured again this many times, and the smallest figure counts: a busy machine adds to
/// a round trip now and then and never takes from it, and a wrong link is wrong each time.
const REPEATS: usize = 8;

/// Measures every pair and judges it against the declared round trip.
pub(crate) async fn certify(client: &HttpClient, topology: &Topology, pairs: &[Pair]) -> Vec<LinkCheck> {
    let (mut measured, failures) = survey(client, pairs, SAMPLES, SAMPLE_DEADLINE).await;
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
        for (pair, figure) in survey(client, &again, SAMPLES, SAMPLE_DEADLINE).await.0 {
            let smallest = measured.entry(pair).or_insert(figure);
            *smallest = smallest.min(figure);
        }
        checks = certificate::judge(topology, &measured, None);
    }
    checks
}
