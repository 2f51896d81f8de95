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

const REQUEST_KEY: [u8; 16] = *b"longhaul request";

/// The hash of a canonical request, remembered with its operation id.
pub fn request_hash(canonical: &[u8]) -> u64 {
    let mut hash = SipHasher24::new_with_key(&REQUEST_KEY);
    hash.write(canonical);
    hash.finish128().h1
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Dot, Epoch, OpId, RecordKey, RegionId, Timeline};
    use crate::version::Version;

    fn row(id: u8, region: u16, seq: u64, live: bool) -> Record {
        Record {
            key: RecordKey { home: RegionId(1), id: RecordId::new(format!("r{id}")).unwrap() },
            value: live.then(|| Bytes::from_static(b"1")),
            version: Version { time_ns: seq, count: 0, region: RegionId(region) },
            dot: Dot { timeline: Timeline::new(region, 1), seq },
            epoch: Epoch(1),
            op_id: OpId(Uuid::nil()),
            context: VersionVector::default(),
        }
    }

    fn vector(a: u64, b: u64) -> VersionVector {
        VersionVector::from_iter([(Timeline::new(1, 1), a), (Timeline::new(2, 1), b)])
    }

    #[test]
    fn rows_may_differ_only_where_a_vector_explains_it() {
        let (a, b, dead) = (row(0, 1, 5, true), row(0, 2, 6, true), row(0, 2, 7, false));
        let judge = |a: Option<&Record>, av: &VersionVector, b: Option<&Record>, bv: &VersionVector| {
            consistent(Side { row: a, vector: av }, Side { row: b, vector: bv })
        };
        assert!(judge(Some(&a), &vector(5, 0), Some(&a), &vector(5, 0)));
        assert!(judge(Some(&a), &vector(5, 0), Some(&b), &vector(5, 6)));
        assert!(!judge(Some(&a), &vector(5, 6), Some(&b), &vector(5, 6)));
        assert!(!judge(None, &vector(5, 6), Some(&b), &vector(5, 6)));
        assert!(judge(None, &vector(5, 7), Some(&dead), &vector(5, 7)), "a collected tombstone is no difference");
        assert!(!judge(Some(&b), &vector(5, 7), Some(&dead), &vector(5, 7)));
    }

    #[test]
    fn buckets_are_used_and_bounded() {
        let used: std::collections::BTreeSet<_> =
            (0..2000).map(|i| bucket(&RecordId::new(format!("user-{i}")).unwrap())).collect();
        assert!(used.iter().all(|bucket| *bucket < DIGEST_BUCKETS));
        assert!(used.len() > usize::from(DIGEST_BUCKETS) * 9 / 10);
    }

    proptest! {
        #[test]
        fn a_digest_kept_up_to_date_is_the_digest_from_scratch(
            changes in prop::collection::vec((0_u8..5, 1_u64..9, prop::option::of(any::<bool>())), 0..50),
        ) {
            let (mut rows, mut digest) = (std::collections::BTreeMap::new(), Digest::default());
            for (id, seq, live) in changes {
                let after = live.map(|live| row(id, 1, seq, live));
                let before = match &after {
                    Some(after) => rows.insert(id, after.clone()),
                    None => rows.remove(&id),
                };
                digest.replace(before.as_ref(), after.as_ref());
            }
            prop_assert_eq!(digest, Digest::of(rows.values()));
            prop_assert_eq!(digest, Digest::of(rows.values().rev()));
        }
    }
}
