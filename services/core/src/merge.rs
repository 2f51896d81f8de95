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
    #[error(
        "operations {current} and {incoming} have the same version {version}; one of their regions was restored from a copy: give it a new incarnation"
    )]
    SameVersion {
        /// The operation held.
        current: Dot,
        /// The operation that came.
        incoming: Dot,
        /// Their version.
        version: Version,
    },
    /// One operation, two versions.
    #[error(
        "operation {dot} is held with version {current} and came with version {incoming}; one of the histories is foreign: give its region a new incarnation"
    )]
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
    let Some(key) = incoming.key().filter(|_| incoming.kind.writes()) else {
        return Ok(Merge::default());
    };
    let Some(current) = current else {
        return Ok(Merge { wins: true, ..Merge::default() });
    };
    if current.key != key {
        return Err(MergeError::OtherRecord { dot: incoming.dot, current: current.key.clone(), incoming: key });
    }
    match (current.dot == incoming.dot, current.version == incoming.version) {
        (true, true) => {
            return Ok(Merge { same: true, ..Merge::default() });
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Epoch, RecordId, RegionId, Timeline};
    use crate::operation::Chain;
    use crate::vector::VersionVector;

    fn operation(
        region: u16,
        seq: u64,
        time_ns: u64,
        context: &[(u16, u64)],
        value: Option<&'static str>,
    ) -> Operation {
        let timeline = Timeline::new(region, 1);
        Operation {
            dot: Dot { timeline, seq },
            epoch: Epoch(1),
            kind: if value.is_some() { OperationKind::Put } else { OperationKind::Delete },
            home: RegionId(1),
            id: Some(RecordId::new("a").unwrap()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            version: Version { time_ns, count: 0, region: RegionId(region) },
            context: context.iter().map(|(region, seq)| (Timeline::new(*region, 1), *seq)).collect(),
            op_id: OpId(Uuid::from_u64_pair(u64::from(region), seq)),
            accepted_ns: 0,
            trace: None,
            merged_from: None,
            chain: Chain::default(),
        }
    }

    fn fold(operations: &[Operation]) -> Option<Record> {
        operations.iter().fold(None, |record, operation| {
            let merged = merge(record.as_ref(), operation).unwrap();
            if merged.wins { Record::from_operation(operation) } else { record }
        })
    }

    #[test]
    fn an_overwrite_that_saw_the_record_is_no_conflict() {
        let record = Record::from_operation(&operation(1, 1, 10, &[], Some("1")));
        let merged = merge(record.as_ref(), &operation(2, 1, 20, &[(1, 1)], Some("2"))).unwrap();
        assert!(merged.wins && merged.overwritten.is_none() && !merged.born_dead);
    }

    #[test]
    fn concurrent_writes_conflict_in_either_order_of_arrival_with_one_loser() {
        let (a, b) = (operation(1, 1, 10, &[], Some("1")), operation(2, 1, 20, &[], None));
        for (first, second) in [(&a, &b), (&b, &a)] {
            let merged = merge(Record::from_operation(first).as_ref(), second).unwrap();
            let lost = merged.overwritten.unwrap();
            assert_eq!((lost.loser, lost.winner, lost.retry), (a.dot, b.dot, false));
            assert_eq!(lost.loser_value.as_deref(), Some(b"1".as_slice()));
        }
    }

    #[test]
    fn a_late_older_write_that_the_record_had_seen_is_no_conflict() {
        let record = Record::from_operation(&operation(2, 1, 20, &[(1, 1)], Some("2")));
        let merged = merge(record.as_ref(), &operation(1, 1, 10, &[], Some("1"))).unwrap();
        assert_eq!(merged, Merge::default());
    }

    #[test]
    fn a_write_below_what_it_had_seen_is_born_dead() {
        let record = Record::from_operation(&operation(1, 1, 20, &[], Some("1")));
        assert!(merge(record.as_ref(), &operation(2, 1, 10, &[(1, 1)], Some("2"))).unwrap().born_dead);
    }

    #[test]
    fn two_operations_under_one_version_or_one_dot_are_an_error() {
        let record = Record::from_operation(&operation(1, 1, 20, &[], Some("1")));
        let same_version = Operation { dot: operation(1, 2, 0, &[], None).dot, ..operation(1, 1, 20, &[], Some("2")) };
        assert!(matches!(merge(record.as_ref(), &same_version), Err(MergeError::SameVersion { .. })));
        let same_dot = operation(1, 1, 30, &[], Some("2"));
        assert!(matches!(merge(record.as_ref(), &same_dot), Err(MergeError::SameDot { .. })));
    }

    #[test]
    fn a_retry_accepted_twice_is_told_apart_from_a_lost_update() {
        let (a, mut b) = (operation(1, 1, 10, &[], Some("1")), operation(2, 1, 20, &[], Some("1")));
        b.op_id = a.op_id;
        assert!(merge(Record::from_operation(&a).as_ref(), &b).unwrap().overwritten.unwrap().retry);
    }

    proptest! {
        #[test]
        fn any_order_with_repetitions_makes_the_same_record(
            times in prop::collection::vec((1_u16..4, 1_u64..50, any::<bool>()), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let operations: Vec<_> = times.iter().enumerate()
                .map(|(i, (region, time, put))| {
                    let mut operation = operation(*region, i as u64 + 1, *time, &[], put.then_some("1"));
                    operation.version.count = i as u32;
                    operation
                })
                .collect();
            let mut shuffled: Vec<_> = order.iter().map(|index| index.get(&operations).clone()).collect();
            shuffled.extend(operations.iter().rev().cloned());
            let expected = operations.iter().max_by_key(|operation| operation.version.to_bytes()).unwrap();
            prop_assert_eq!(fold(&operations), Record::from_operation(expected));
            prop_assert_eq!(fold(&shuffled), Record::from_operation(expected));
        }

        #[test]
        fn a_conflict_is_told_exactly_if_neither_saw_the_other(a_saw: bool, b_saw: bool, a_time in 1_u64..9, b_time in 1_u64..9) {
            let a = operation(1, 1, a_time, if a_saw { &[(2, 1)] } else { &[] }, Some("1"));
            let b = operation(2, 1, b_time, if b_saw { &[(1, 1)] } else { &[] }, Some("2"));
            let merged = merge(Record::from_operation(&a).as_ref(), &b).unwrap();
            prop_assert_eq!(merged.overwritten.is_some(), !a_saw && !b_saw);
            prop_assert_eq!(merged.wins, b.version > a.version);
        }
    }

    #[test]
    fn markers_do_nothing() {
        let mut noop = operation(1, 1, 1, &[], None);
        (noop.kind, noop.id) = (OperationKind::Noop, None);
        noop.context = VersionVector::default();
        assert_eq!(merge(None, &noop).unwrap(), Merge::default());
    }
}
