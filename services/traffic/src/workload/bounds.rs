//! The bounds within which a workload can be played; they are those of a drill plan's `traffic`.

use longhaul_core::limits::{EDGES_MAX, LEDGER_OPERATIONS_MAX};
use longhaul_core::plan::{KeyDistribution, Shape, Workload};

/// A workload that cannot be played.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// A figure is out of its bounds.
    #[error("workload.{field} is {value}, and it must be {bounds}; correct it")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        bounds: &'static str,
    },
    /// The shares of the writes exceed 1.
    #[error("delete_share, append_share and insert_share add up to {sum}, and they may add up to 1; lower one of them")]
    Shares {
        /// Their sum.
        sum: f64,
    },
    /// A consistency that does not exist.
    #[error("workload.consistency is {0:?}, and it must be eventual, session or primary; correct it")]
    Consistency(String),
    /// No edge, or too many.
    #[error("{count} edges were given, and there must be 1 to {EDGES_MAX}; correct the list")]
    Edges {
        /// How many.
        count: usize,
    },
    /// The run would not fit into the ledger.
    #[error(
        "{rate_per_s}/s over {seconds} s are more than the {LEDGER_OPERATIONS_MAX} operations that a ledger holds; shorten the run or lower the rate"
    )]
    TooLong {
        /// Operations a second.
        rate_per_s: f64,
        /// Warm-up and run together.
        seconds: f64,
    },
}

/// Whether `edges` edges can play `workload` for `seconds` (`None`: until stopped, and no ledger is kept).
pub fn check(workload: &Workload, edges: usize, seconds: Option<f64>) -> Result<(), WorkloadError> {
    let within = |field, value: f64, low: f64, high: f64, bounds| {
        if value >= low && value <= high { Ok(()) } else { Err(WorkloadError::OutOfBounds { field, value, bounds }) }
    };
    if edges == 0 || edges > EDGES_MAX {
        return Err(WorkloadError::Edges { count: edges });
    }
    within("rate_per_s", workload.rate_per_s, 0.1, 20_000.0, "0.1 to 20000")?;
    for (field, share) in [
        ("read_share", workload.read_share),
        ("delete_share", workload.delete_share),
        ("append_share", workload.append_share),
        ("insert_share", workload.insert_share),
        ("foreign_share", workload.foreign_share),
    ] {
        within(field, share, 0.0, 1.0, "0 to 1")?;
    }
    let sum = workload.delete_share + workload.append_share + workload.insert_share;
    if sum > 1.0 + 1e-9 {
        return Err(WorkloadError::Shares { sum });
    }
    within("keys_per_home", workload.keys_per_home.into(), 1.0, 1e6, "1 to 1000000")?;
    within("append_keys_per_home", workload.append_keys_per_home.into(), 1.0, 1e4, "1 to 10000")?;
    within("value_bytes", workload.value_bytes.into(), 64.0, 60_000.0, "64 to 60000")?;
    within("sessions_per_edge", workload.sessions_per_edge.into(), 1.0, 1e4, "1 to 10000")?;
    within("deadline_ms", workload.deadline_ms as f64, 10.0, 60_000.0, "10 to 60000")?;
    if let KeyDistribution::Zipf(exponent) = workload.keys {
        within("keys.zipf", exponent, f64::MIN_POSITIVE, 5.0, "above 0 and at most 5")?;
    }
    let factor = match workload.shape {
        Shape::Constant => 1.0,
        Shape::Step { factor, .. } | Shape::Spike { factor, .. } => factor,
        Shape::FollowTheSun { period_s } => {
            within("shape.period_s", period_s, 1.0, 86_400.0, "1 to 86400")?;
            1.0
        }
    };
    within("shape.factor", factor, 0.0, 20_000.0 / workload.rate_per_s, "at least 0, and at most 20000/s at the peak")?;
    // The schedule draws at the peak rate and thins: without an end, a rate that falls to nothing would never yield.
    if let (Shape::Step { factor, .. }, None) = (workload.shape, seconds) {
        within("shape.factor", factor, 0.001, f64::MAX, "at least 0.001 where the traffic has no end")?;
    }
    if !["eventual", "session", "primary"].contains(&workload.consistency.as_str()) {
        return Err(WorkloadError::Consistency(workload.consistency.clone()));
    }
    if let Some(seconds) = seconds {
        within("seconds", seconds, 0.1, 7.0 * 86_400.0, "0.1 to 604800")?;
        let rate_per_s = workload.rate_per_s * factor.max(1.0);
        if rate_per_s * seconds > f64::from(LEDGER_OPERATIONS_MAX) {
            return Err(WorkloadError::TooLong { rate_per_s, seconds });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_workload_can_be_played_and_nonsense_cannot() {
        let workload = Workload::default();
        assert_eq!(check(&workload, 3, Some(120.0)), Ok(()));
        assert!(matches!(check(&workload, 0, None), Err(WorkloadError::Edges { count: 0 })));
        assert!(matches!(check(&workload, 3, Some(100_000.0)), Err(WorkloadError::TooLong { .. })));
        let nan = Workload { rate_per_s: f64::NAN, ..Workload::default() };
        assert!(matches!(check(&nan, 3, None), Err(WorkloadError::OutOfBounds { field: "rate_per_s", .. })));
        let greedy = Workload { insert_share: 0.9, append_share: 0.2, ..Workload::default() };
        assert!(matches!(check(&greedy, 3, None), Err(WorkloadError::Shares { .. })));
        let ceasing = Workload { shape: Shape::Step { at_s: 1.0, factor: 0.0 }, ..Workload::default() };
        assert_eq!(check(&ceasing, 3, Some(10.0)), Ok(()));
        assert!(matches!(check(&ceasing, 3, None), Err(WorkloadError::OutOfBounds { field: "shape.factor", .. })));
        let odd = Workload { consistency: "strict".to_owned(), ..Workload::default() };
        assert!(check(&odd, 3, None).unwrap_err().to_string().contains("\"strict\""));
    }
}
