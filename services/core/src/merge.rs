//! Last-writer-wins, and the exact account of what it discards.

use bytes::Bytes;

use crate::ids::{Dot, OpId, RecordKey};
use crate::operation::{Operation, OperationKind};
use crate::record::Record;
use crate::version::Version;

/// Two operations that cannot both exist. A defect or a foreign history: the link stops, nothing is applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// One version, two operations: versions are unique, because they carry the region.
    #[error("operations {current} and {incoming} have the same version {version}; one of their regions was restored from a copy: give it a new incarnation")]
    SameVersion {
        /// The operation held.
        current: Dot,
        /// The operation that came.
        incoming: Dot,
        /// Their version.
        version: Version,
    },
    /// One operation, two versions.
    #[error("operation {dot} is held with version {current} and came with version {incoming}; one of the histories is foreign: give its region a new incarnation")]
    SameDot {
        /// The operation.
        dot: Dot,
        /// The version held.
        current: Version,
        /// The version that came.
        incoming: Version,
    },
    /// The caller compared different records.
    #[error("operation {dot} writes {incoming} and cannot be merged into {current}")]
    OtherRecord {
        /// The operation.
        dot: Dot,
        /// The record held.
        current: RecordKey,
        /// The record that it writes.
        incoming: RecordKey,
    },
}

/// A write that was discarded by one that had not seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwritten {
    /// The operation that lost.
    pub loser: Dot,
    /// The client's id of the operation that lost.
    pub loser_op_id: OpId,
    /// Its version.
    pub loser_version: Version,
    /// Its value; `None` if it was a delete.
    pub loser_value: Option<Bytes>,
    /// The operation that won.
    pub winner: Dot,
    /// The client's id of the operation that won.
    pub winner_op_id: OpId,
    /// Both carry one operation id: a retry that a second region accepted. Nothing was lost.
    pub retry: bool,
}

/// What an operation does to the record that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merge {
    /// The operation becomes the record.
    pub wins: bool,
    /// It is the record already.
    pub same: bool,
    /// The loser, if neither had seen the other; in either direction.
    pub overwritten: Option<Overwritten>,
    /// It had seen the record and yet has the smaller version: its region stamped without observing what it had
    /// applied. Must never be true; an alarm, not a conflict.
    pub born_dead: bool,
}

/// What `incoming` does to `current` (`None`: there is no such record). Markers do nothing.
///
/// Laws (kept by the tests), for operations with distinct versions:
/// 1. *Idempotent*: an operation merged into the record that it made changes nothing.
/// 2. *Commutative, associative*: any set of operations, in any order and with repetitions, makes the same record: the
///    one with the greatest version, compared bytewise. A delete is a write like any other.
/// 3. *Monotone*: the version of a record never sinks.
/// 4. *Exact*: a conflict is told exactly if neither operation had seen the other (`a` happened before `b` iff
///    `b.context` covers `a.dot`). That another region wrote last is not a conflict.
pub fn merge(current: Option<&Record>, incoming: &Operation) -> Result<Merge, MergeError> {
    let Some(key) = incoming.key().filter(|_| incoming.kind.writes()) else { return Ok(Merge::default()) };
    let Some(current) = current else { return Ok(Merge { wins: true, ..Merge::default() }) };
    if current.key != key {
        return Err(MergeError::OtherRecord { dot: incoming.dot, current: current.key.clone(), incoming: key });
    }
    match (current.dot == incoming.dot, current.version == incoming.version) {
        (true, true) => return Ok(Merge { same: true, ..Merge::default() }),
        (true, false) => {
            return Err(MergeError::SameDot {
                dot: incoming.dot,
                current: current.version,
                incoming: incoming.version,
            });
        }
        (false, true) => {
            return Err(MergeError::SameVersion {
                current: current.dot,
                incoming: incoming.dot,
                version: incoming.version,
            });
        }
        (false, false) => {}
    }
    let wins = incoming.version > current.version;
    let incoming_saw = incoming.context.covers(current.dot);
    let current_saw = current.context.covers(incoming.dot);
    let overwritten = (!incoming_saw && !current_saw).then(|| overwritten(current, incoming, wins));
    Ok(Merge { wins, same: false, overwritten, born_dead: incoming_saw && !wins })
}

fn overwritten(current: &Record, incoming: &Operation, incoming_wins: bool) -> Overwritten {
    let retry = current.op_id == incoming.op_id;
    if incoming_wins {
        Overwritten {
            loser: current.dot,
            loser_op_id: current.op_id,
            loser_version: current.version,
            loser_value: current.value.clone(),
            winner: incoming.dot,
            winner_op_id: incoming.op_id,
            retry,
        }
    } else {
        let deletes = incoming.kind == OperationKind::Delete;
        Overwritten {
            loser: incoming.dot,
            loser_op_id: incoming.op_id,
            loser_version: incoming.version,
            loser_value: if deletes { None } else { incoming.value.clone() },
            winner: current.dot,
            winner_op_id: current.op_id,
            retry,
        }
    }
}
