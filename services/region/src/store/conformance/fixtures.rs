//! Rows for the suite, all derived from a few numbers so that a failure can be read.

use bytes::Bytes;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::{Chain, Operation, OperationKind, TraceContext};
use longhaul_core::record::Record;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use uuid::Uuid;

use crate::store::{
    Commit, ConflictKind, ConflictRow, IdempotencyRow, Position, QuarantineReason, QuarantineRow, QuarantineState,
};

/// The timeline of region 1.
pub const FIRST: Timeline = Timeline::new(1, 1);
/// The timeline of region 2.
pub const SECOND: Timeline = Timeline::new(2, 1);

/// A place in a log.
pub const fn dot(timeline: Timeline, seq: u64) -> Dot {
    Dot { timeline, seq }
}

/// A key.
pub fn key(home: u16, id: &str) -> RecordKey {
    RecordKey { home: RegionId(home), id: RecordId::new(id).expect("fixtures have valid ids") }
}

/// A version that rises with `time_ns`.
pub const fn version(time_ns: u64) -> Version {
    Version { time_ns, count: 0, region: RegionId(1) }
}

/// The client's id of the operation at a dot.
pub fn op_id(dot: Dot) -> OpId {
    let high = (u64::from(dot.timeline.region.0) << 32) | u64::from(dot.timeline.incarnation.0);
    OpId(Uuid::from_u64_pair(high, dot.seq))
}

/// A write of `value` at `dot`; a delete if there is none.
pub fn operation(dot: Dot, key: &RecordKey, value: Option<&str>) -> Operation {
    Operation {
        dot,
        epoch: Epoch(3),
        kind: if value.is_some() { OperationKind::Put } else { OperationKind::Delete },
        home: key.home,
        id: Some(key.id.clone()),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        version: version(1000 + dot.seq),
        context: VersionVector::from_iter([(dot.timeline, dot.seq - 1), (Timeline::new(9, 2), 7)]),
        op_id: op_id(dot),
        accepted_ns: 1_700_000_000_000_000_000 + dot.seq,
        trace: dot.seq.is_multiple_of(2).then_some(TraceContext { trace_id: [7; 16], span_id: [5; 8], flags: 1 }),
        merged_from: dot.seq.is_multiple_of(3).then_some(Dot { timeline: dot.timeline, seq: 1 }),
        chain: Chain([dot.seq as u8; 16]),
    }
}

/// A marker without a record.
pub fn marker(dot: Dot) -> Operation {
    let home = key(dot.timeline.region.0, "unused");
    Operation { kind: OperationKind::Noop, id: None, ..operation(dot, &home, None) }
}

/// What a client is answered that sends the operation again.
pub fn remembered(operation: &Operation) -> IdempotencyRow {
    IdempotencyRow {
        op_id: operation.op_id,
        dot: operation.dot,
        key: operation.key().expect("only writes are remembered"),
        version: operation.version,
        // More than an i64 holds: hashes use all bits.
        request_hash: u64::MAX - operation.dot.seq,
    }
}

/// A position after `seq`.
pub fn position(seq: u64) -> Position {
    Position { seq, visible: seq / 2, version: version(1000 + seq), chain: Chain([seq as u8; 16]) }
}

/// One write with everything that belongs to it.
pub fn write(dot: Dot, key: &RecordKey, value: Option<&str>) -> Commit {
    let operation = operation(dot, key, value);
    Commit {
        records: Record::from_operation(&operation).into_iter().collect(),
        idempotency: vec![remembered(&operation)],
        positions: vec![(dot.timeline, position(dot.seq))],
        operations: vec![operation],
        ..Commit::default()
    }
}

/// The writes `1..=last` of a timeline, to keys `k0000`, `k0001`, ... of one home.
pub fn writes(timeline: Timeline, home: u16, last: u64) -> Commit {
    let mut all = Commit::default();
    for seq in 1..=last {
        let one = write(dot(timeline, seq), &key(home, &format!("k{seq:04}")), Some(&format!("\"value {seq}\"")));
        all.operations.extend(one.operations);
        all.records.extend(one.records);
        all.idempotency.extend(one.idempotency);
        all.positions = one.positions;
    }
    all
}

/// A conflict about a key.
pub fn conflict(key: &RecordKey, loser: Dot, winner: Dot, found_ns: u64) -> ConflictRow {
    ConflictRow {
        key: key.clone(),
        loser,
        loser_op_id: op_id(loser),
        loser_version: version(loser.seq),
        loser_value: loser.seq.is_multiple_of(2).then(|| Bytes::from_static(b"\"lost\"")),
        winner,
        winner_op_id: op_id(winner),
        kind: if loser.seq.is_multiple_of(2) { ConflictKind::Concurrent } else { ConflictKind::StaleRetry },
        found_ns,
    }
}

/// An operation that was put aside.
pub fn quarantined(dot: Dot, key: &RecordKey, state: QuarantineState) -> QuarantineRow {
    QuarantineRow {
        operation: operation(dot, key, Some("\"aside\"")),
        reason: QuarantineReason::PastCut,
        epoch: Epoch(4),
        found_ns: 77,
        state,
        repaired: state != QuarantineState::Open,
    }
}
