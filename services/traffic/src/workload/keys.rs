//! How keys are drawn.

use longhaul_core::plan::KeyDistribution;
use rand::Rng;
use rand::rngs::SmallRng;

/// Draws key numbers below `count`.
#[derive(Debug, Clone)]
pub(super) enum KeyDraw {
    Uniform {
        count: u32,
    },
    /// The cumulative distribution by rank; key n has rank n + 1.
    Zipf {
        cumulative: Vec<f64>,
    },
}

impl KeyDraw {
    pub(super) fn new(distribution: KeyDistribution, count: u32) -> Self {
        match distribution {
            KeyDistribution::Uniform => Self::Uniform { count },
            KeyDistribution::Zipf(exponent) => {
                let mut sum = 0.0;
                let mut cumulative: Vec<f64> = (1..=count)
                    .map(|rank| {
                        sum += f64::from(rank).powf(-exponent);
                        sum
                    })
                    .collect();
                for share in &mut cumulative {
                    *share /= sum;
                }
                Self::Zipf { cumulative }
            }
        }
    }

    pub(super) fn draw(&self, rng: &mut SmallRng) -> u32 {
        match self {
            Self::Uniform { count } => rng.random_range(0..*count),
            Self::Zipf { cumulative } => {
                let point: f64 = rng.random();
                // The last share may round to a hair below 1.
                cumulative.partition_point(|share| *share <= point).min(cumulative.len() - 1) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn zipf_gives_each_rank_its_share() {
        // s = 1 over 4 keys: weights 1, 1/2, 1/3, 1/4, which are 48 %, 24 %, 16 % and 12 % of their sum 25/12.
        let draw = KeyDraw::new(KeyDistribution::Zipf(1.0), 4);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            counts[draw.draw(&mut rng) as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.48, 0.24, 0.16, 0.12]) {
            assert!((f64::from(count) / 1e5 - share).abs() < 0.01, "{counts:?}");
        }
    }
}
