//! Identities drawn from the configured seed.

use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

/// Draws ids.
pub(crate) struct Ids(Mutex<SmallRng>);

impl Ids {
    /// A generator. `salt` (the boot clock) keeps two runs with one seed apart: ids name things, they drive nothing.
    pub(crate) fn new(seed: u64, salt: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed ^ salt.rotate_left(32))))
    }

    /// The next id.
    pub(crate) fn next(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
