//! How the rate moves over a run.

use longhaul_core::plan::Shape;

/// By what the plan's rate is multiplied at `at_s` (seconds from the start of the measured run; the warm-up is
/// negative) at the `edge`-th of `edges`.
pub(super) fn factor(shape: Shape, at_s: f64, edge: usize, edges: usize) -> f64 {
    match shape {
        Shape::Constant => 1.0,
        Shape::Step { at_s: from, factor } => {
            if at_s >= from {
                factor
            } else {
                1.0
            }
        }
        Shape::Spike { at_s: from, length_s, factor } => {
            if at_s >= from && at_s < from + length_s {
                factor
            } else {
                1.0
            }
        }
        Shape::FollowTheSun { period_s } => {
            let turns = at_s / period_s - edge as f64 / edges as f64;
            1.0 + (std::f64::consts::TAU * turns).cos()
        }
    }
}

/// The largest factor that [`factor`] gives at any time.
pub(super) fn peak(shape: Shape) -> f64 {
    match shape {
        Shape::Constant => 1.0,
        Shape::Step { factor, .. } | Shape::Spike { factor, .. } => factor.max(1.0),
        Shape::FollowTheSun { .. } => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_what_they_say() {
        assert!((factor(Shape::Step { at_s: 10.0, factor: 3.0 }, 9.9, 0, 3) - 1.0).abs() < 1e-12);
        assert!((factor(Shape::Step { at_s: 10.0, factor: 3.0 }, 10.0, 0, 3) - 3.0).abs() < 1e-12);
        let spike = Shape::Spike { at_s: 5.0, length_s: 2.0, factor: 4.0 };
        let over: Vec<f64> = [4.9, 5.0, 6.9, 7.0].map(|at_s| factor(spike, at_s, 0, 1)).to_vec();
        assert_eq!(over, [1.0, 4.0, 4.0, 1.0]);
        // The second of two edges peaks half a period after the first.
        let sun = Shape::FollowTheSun { period_s: 60.0 };
        assert!((factor(sun, 0.0, 0, 2) - 2.0).abs() < 1e-9);
        assert!(factor(sun, 0.0, 1, 2).abs() < 1e-9);
        assert!((factor(sun, 30.0, 1, 2) - 2.0).abs() < 1e-9);
    }
}
