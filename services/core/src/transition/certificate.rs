//! The certificate that comes before a purge, and what may be purged.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, RegionId};
use crate::regime::{Mode, Regime};
use crate::vector::VersionVector;

/// What a region holds of one home's records, read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeCopy {
    /// The regime that the region had adopted.
    pub epoch: Epoch,
    /// What it has applied.
    pub vector: VersionVector,
    /// Records of the home, tombstones included.
    pub count: u64,
    /// Digest over them.
    pub digest: Vec<u8>,
    /// Quarantined operations on them that nobody has decided on.
    #[serde(default)]
    pub undecided: u64,
}

/// Why a home's records at a holder may not be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The holder has applied something that the home has not: wait.
    #[error("the home has not applied everything that the holder has")]
    HomeBehind,
    /// The same operations led to different records: stop, and keep everything.
    #[error("home and holder have applied the same operations and differ; keep both and compare them")]
    Differ,
}

/// Whether everything that the holder has of the home's records is at the home.
pub fn certify(home: &HomeCopy, holder: &HomeCopy) -> Result<(), CertificateError> {
    if !home.vector.dominates(&holder.vector) {
        return Err(CertificateError::HomeBehind);
    }
    if holder.vector.dominates(&home.vector) && (home.count, &home.digest) != (holder.count, &holder.digest) {
        return Err(CertificateError::Differ);
    }
    Ok(())
}

/// The homes whose records region `me` must not hold under this regime: every other active member's, once isolation is
/// stable. A region does this by itself whenever it adopts a regime whose generation it has not purged for; the
/// coordinator only watches.
///
/// Never the last copy: records of a frozen home stay where they are (it was not there to prove that it has them), and
/// a region that was left behind purges nothing before it is a full member again (its own tail is certified by nobody).
pub fn purgeable_homes(regime: &Regime, me: RegionId) -> BTreeSet<RegionId> {
    if regime.mode != Mode::RegionalIsolation || regime.transition.is_some() || !regime.is_active(me) {
        return BTreeSet::new();
    }
    let others = regime.members.keys().copied().filter(|home| *home != me);
    others.filter(|home| regime.is_active(*home) && !regime.frozen_homes.contains(home)).collect()
}
