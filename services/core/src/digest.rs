//! Anti-entropy digests: the proof that regions converged, and the alarm if they did not.
//!
//! A digest is an order-independent sum of row hashes, kept up to date in the transaction that changes the rows.
//! **A tombstone counts as no row**: regions collect tombstones at different moments, so only live rows are equal
//! wherever the vectors are. With that, equal vectors must mean equal digests.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::ids::RecordId;
use crate::limits::DIGEST_BUCKETS;
use crate::record::Record;
use crate::vector::VersionVector;

const BUCKET_KEY: [u8; 16] = *b"longhaul bucket1";
const ROW_KEY: [u8; 16] = *b"longhaul row 001";

/// The bucket of a record inside its home, below `DIGEST_BUCKETS`.
pub fn bucket(id: &RecordId) -> u16 {
    let mut hash = SipHasher24::new_with_key(&BUCKET_KEY);
    hash.write(id.as_str().as_bytes());
    (hash.finish128().h1 % u64::from(DIGEST_BUCKETS)) as u16
}

/// The hash of a row over key, version and value; 0 for a tombstone.
pub fn row_hash(record: &Record) -> u128 {
    let Some(value) = &record.value else { return 0 };
    let mut hash = SipHasher24::new_with_key(&ROW_KEY);
    hash.write(&record.key.home.0.to_be_bytes());
    let id = record.key.id.as_str().as_bytes();
    hash.write(&(id.len() as u64).to_be_bytes());
    hash.write(id);
    hash.write(&record.version.to_bytes());
    hash.write(value);
    hash.finish128().as_u128()
}

/// The sum over the live rows of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest {
    /// Live rows.
    pub rows: u64,
    /// Wrapping sum of their hashes.
    pub sum: u128,
}

impl Digest {
    /// Accounts for a row that changed from `before` to `after` (`None`: no row).
    pub fn replace(&mut self, before: Option<&Record>, after: Option<&Record>) {
        let live = |record: &&Record| !record.is_tombstone();
        if let Some(record) = before.filter(live) {
            self.rows = self.rows.wrapping_sub(1);
            self.sum = self.sum.wrapping_sub(row_hash(record));
        }
        if let Some(record) = after.filter(live) {
            self.rows = self.rows.wrapping_add(1);
            self.sum = self.sum.wrapping_add(row_hash(record));
        }
    }

    /// The digest of these rows from scratch.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut digest = Self::default();
        for row in rows {
            digest.replace(None, Some(row));
        }
        digest
    }
}

/// One region's row and the vector that it held at the same instant.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Its row, if any.
    pub row: Option<&'a Record>,
    /// What it had applied.
    pub vector: &'a VersionVector,
}

/// Whether two regions' rows of one key are consistent: they are equal, or one of them holds an operation that the
/// other has not applied. Otherwise the regions have diverged: an alarm, never something to repair in silence.
pub fn consistent(a: Side<'_>, b: Side<'_>) -> bool {
    let live = |side: Side<'_>| side.row.filter(|row| !row.is_tombstone()).map(|row| (row.version, row_hash(row)));
    let beyond = |of: Side<'_>, other: Side<'_>| of.row.is_some_and(|row| !other.vector.covers(row.dot));
    live(a) == live(b) || beyond(a, b) || beyond(b, a)
}
