//! The writer's digests: per bucket, as the store keeps them, and per home.

use std::collections::BTreeMap;

use longhaul_core::digest::Digest;
use longhaul_core::ids::RegionId;
use longhaul_core::record::Record;

use crate::store::DigestMap;

/// Digests per bucket and per home, changed together.
#[derive(Debug, Clone, Default)]
pub(super) struct Digests {
    buckets: DigestMap,
    homes: BTreeMap<RegionId, Digest>,
}

impl Digests {
    pub(super) fn new(buckets: DigestMap) -> Self {
        let mut homes: BTreeMap<RegionId, Digest> = BTreeMap::new();
        for ((home, _), digest) in &buckets {
            let sum = homes.entry(*home).or_default();
            sum.rows = sum.rows.wrapping_add(digest.rows);
            sum.sum = sum.sum.wrapping_add(digest.sum);
        }
        Self { buckets, homes }
    }

    /// Accounts for a row that changed.
    pub(super) fn replace(&mut self, place: (RegionId, u16), before: Option<&Record>, after: Option<&Record>) {
        let bucket = self.buckets.entry(place).or_default();
        let old = *bucket;
        bucket.replace(before, after);
        let home = self.homes.entry(place.0).or_default();
        home.rows = home.rows.wrapping_add(bucket.rows).wrapping_sub(old.rows);
        home.sum = home.sum.wrapping_add(bucket.sum).wrapping_sub(old.sum);
    }

    /// One bucket.
    pub(super) fn bucket(&self, place: (RegionId, u16)) -> Digest {
        self.buckets.get(&place).copied().unwrap_or_default()
    }

    /// Every home.
    pub(super) const fn homes(&self) -> &BTreeMap<RegionId, Digest> {
        &self.homes
    }

    /// Forgets every other home.
    pub(super) fn keep_only(&mut self, home: RegionId) {
        self.buckets.retain(|(of, _), _| *of == home);
        self.homes.retain(|of, _| *of == home);
    }

    /// Whether the home's buckets are exactly these.
    pub(super) fn equal(&self, home: RegionId, counted: &DigestMap) -> bool {
        let live = |map: &DigestMap| -> DigestMap {
            map.iter().filter(|((of, _), digest)| *of == home && digest.rows > 0).map(|(k, v)| (*k, *v)).collect()
        };
        live(&self.buckets) == live(counted)
    }
}
