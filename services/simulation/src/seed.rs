//! One seed for everything random: each purpose draws from a stream of its own, so that a new draw in one place does
//! not change all others.

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// A seed of its own for a purpose (splitmix64 of both).
pub(crate) fn derive(seed: u64, purpose: u64) -> u64 {
    let mut z = seed.wrapping_add(purpose.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A generator of its own for a purpose.
pub(crate) fn stream(seed: u64, purpose: u64) -> SmallRng {
    SmallRng::seed_from_u64(derive(seed, purpose))
}
