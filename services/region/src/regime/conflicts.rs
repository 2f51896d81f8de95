//! What was found here about records of other homes goes to those homes before it is erased here.
//!
//! Which region counts two writes as a conflict depends on the order in which they arrive: one that merged a later write,
//! which had seen both, before the loser has nothing to count. So a home does not know by itself every conflict about
//! its records; another region may be the only one that does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::ids::RegionId;
use longhaul_core::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
use longhaul_http::client::CallError;

use super::RegimeRole;
use super::messages::CONFLICTS_PATH;
use crate::store::{ConflictRow, StoreError};

/// Conflicts read at a time.
const PAGE: usize = 200;
/// Deadline of one piece on its way to its home.
const CALL: Duration = Duration::from_secs(4);

/// Why conflicts are still here alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandOverError {
    /// They cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They cannot be written as bytes.
    #[error("conflicts cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
    /// Their home did not take them.
    #[error("home {home} did not take the conflicts about its records: {reason}")]
    Home {
        /// Whose records they are about.
        home: RegionId,
        /// What it, or the way to it, said.
        reason: CallError,
    },
}

/// Returns once each of these homes has what this region knows about conflicts of its records. It keeps what it has
/// itself, so that sending twice changes nothing.
pub(super) async fn hand_over(role: &RegimeRole, homes: &BTreeSet<RegionId>) -> Result<(), HandOverError> {
    let region = &role.region;
    let mut offset = 0;
    loop {
        let page = region.store.conflicts(offset, PAGE).await?;
        let last = page.len() < PAGE;
        offset += page.len() as u64;
        let mut by_home: BTreeMap<RegionId, Vec<ConflictRow>> = BTreeMap::new();
        for row in page.into_iter().filter(|row| homes.contains(&row.key.home)) {
            by_home.entry(row.key.home).or_default().push(row);
        }
        for (home, rows) in by_home {
            for piece in pieces(&rows) {
                let bytes = Bytes::from(postcard::to_stdvec(piece)?);
                let taken = role.peers.post_bytes(home, CONFLICTS_PATH, bytes, CALL).await;
                taken.map_err(|reason| HandOverError::Home { home, reason })?;
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// Rows in pieces that one request can carry: at least one row, however large.
fn pieces(rows: &[ConflictRow]) -> Vec<&[ConflictRow]> {
    let mut pieces = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH_OPERATIONS_MAX).take_while(|row| {
            bytes += row.loser_value.as_ref().map_or(0, Bytes::len) + row.key.id.as_str().len();
            bytes <= BATCH_BYTES_MAX
        });
        let (piece, after) = rest.split_at(fits.count().max(1));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::fixtures::{FIRST, SECOND, conflict, dot, key};

    fn row(seq: u64, bytes: usize) -> ConflictRow {
        let row = conflict(&key(1, "a"), dot(SECOND, seq), dot(FIRST, seq), 9);
        ConflictRow { loser_value: Some(vec![b'x'; bytes].into()), ..row }
    }

    fn counts(sizes: &[usize]) -> Vec<usize> {
        let rows: Vec<ConflictRow> = (1..).zip(sizes).map(|(seq, bytes)| row(seq, *bytes)).collect();
        let pieces = pieces(&rows);
        assert_eq!(pieces.concat(), rows);
        pieces.iter().map(|piece| piece.len()).collect()
    }

    #[test]
    fn a_piece_holds_what_a_request_can_carry_and_never_nothing() {
        assert!(counts(&[]).is_empty());
        assert_eq!(counts(&[10, 10, 10]), [3]);
        assert_eq!(counts(&[BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2, 10]), [1, 2]);
        assert_eq!(counts(&[BATCH_BYTES_MAX + 1, 10]), [1, 1]);
        assert_eq!(counts(&vec![1; BATCH_OPERATIONS_MAX + 1]), [BATCH_OPERATIONS_MAX, 1]);
    }
}
