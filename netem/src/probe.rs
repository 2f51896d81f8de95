//! Measures the round trip of each directed pair by asking the locations to measure each other over their links.

use std::time::Duration;

use futures::StreamExt;
use longhaul_core::ids::LocationName;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::wire::probe::{PROBE_MEASURE_PATH, ProbeRequest, ProbeResult};

use crate::certificate::Measurements;

/// One directed pair to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Who measures.
    pub from: LocationName,
    /// Who answers.
    pub to: LocationName,
    /// Where the measuring location is reached by whoever asks, `host:port`.
    pub prober: String,
    /// What the measuring location dials for the other one: the relay's address for this pair, `host:port`.
    pub address: String,
}

/// How pairs are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Round trips per pair.
    pub samples: u32,
    /// The deadline of each of them.
    pub deadline: Duration,
    /// Pairs measured at the same time, at least 1.
    pub at_a_time: usize,
}

/// A pair that was not measured, and why.
#[derive(Debug, thiserror::Error)]
#[error("the link from {from} to {to} was not measured: {error}")]
pub struct ProbeError {
    /// Who was to measure.
    pub from: LocationName,
    /// Who was to answer.
    pub to: LocationName,
    /// Why not.
    pub error: CallError,
}

/// The lower quartile of round trips, milliseconds; `None` without any.
///
/// Not the median: a busy machine adds to a round trip and never takes from it, while a link that is wrong is wrong in
/// every sample.
pub fn lower_quartile_ms(mut round_trips_ms: Vec<f64>) -> Option<f64> {
    round_trips_ms.sort_by(f64::total_cmp);
    round_trips_ms.get(round_trips_ms.len().saturating_sub(1) / 4).copied()
}

/// The lower quartile of the round trips of one pair over one warm connection, milliseconds. `deadline` is for each exchange.
pub async fn measure(
    client: &HttpClient,
    pair: &Pair,
    samples: u32,
    deadline: Duration,
) -> Result<Option<f64>, ProbeError> {
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let request = ProbeRequest { address: pair.address.clone(), samples, deadline_ms };
    // The exchange that opens the connection comes first and takes two round trips.
    let whole = deadline.saturating_mul(samples.saturating_add(2));
    match client.post::<_, ProbeResult>(&pair.prober, PROBE_MEASURE_PATH, &request, whole).await {
        Ok(result) => Ok(lower_quartile_ms(result.round_trips_ms)),
        Err(error) => Err(ProbeError { from: pair.from.clone(), to: pair.to.clone(), error }),
    }
}

/// Measures every pair, some at a time. Pairs that do not answer are missing in the measurements, and named beside them.
pub async fn survey(client: &HttpClient, pairs: &[Pair], how: Survey) -> (Measurements, Vec<ProbeError>) {
    let Survey { samples, deadline, at_a_time } = how;
    let mut measurements = Measurements::new();
    let mut failures = Vec::new();
    let asks: Vec<_> =
        pairs.iter().map(|pair| async move { (pair, measure(client, pair, samples, deadline).await) }).collect();
    let mut answers = futures::stream::iter(asks).buffer_unordered(at_a_time.max(1));
    while let Some((pair, answer)) = answers.next().await {
        match answer {
            Ok(Some(figure)) => {
                measurements.insert((pair.from.clone(), pair.to.clone()), figure);
            }
            Ok(None) => {}
            Err(error) => failures.push(error),
        }
    }
    (measurements, failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_samples_is_at_or_below_the_lower_quartile() {
        assert_eq!(lower_quartile_ms(vec![]), None);
        assert_eq!(lower_quartile_ms(vec![7.0]), Some(7.0));
        assert_eq!(lower_quartile_ms(vec![9.0, 1.0, 2.0, 5.0, 8.0]), Some(2.0));
        assert_eq!(lower_quartile_ms((0..13).rev().map(f64::from).collect()), Some(3.0));
    }
}
