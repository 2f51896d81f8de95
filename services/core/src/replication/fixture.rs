//! What the tests of the replication rules start from.

use bytes::Bytes;
use uuid::Uuid;

use super::Position;
use crate::chain;
use crate::ids::{Dot, Epoch, OpId, RecordId, RegionId, Timeline};
use crate::operation::{Operation, OperationKind};
use crate::regime::{Durability, Mode, Regime};
use crate::vector::VersionVector;
use crate::version::Version;

/// Three regions.
pub(crate) fn regime(mode: Mode) -> Regime {
    Regime::genesis((1..=3).map(RegionId), mode, Some(RegionId(1)), Durability::Local)
}

/// The first `count` operations of a timeline, one nanosecond apart from `time_ns` on.
pub(crate) fn log(timeline: Timeline, count: u64, time_ns: u64) -> Vec<Operation> {
    let mut last = chain::START;
    (1..=count)
        .map(|seq| {
            let mut operation = Operation {
                dot: Dot { timeline, seq },
                epoch: Epoch(1),
                kind: OperationKind::Put,
                home: RegionId(1),
                id: Some(RecordId::new("a").expect("a sound id")),
                value: Some(Bytes::from_static(b"1")),
                version: Version { time_ns: time_ns + seq, count: 0, region: timeline.region },
                context: VersionVector::default(),
                op_id: OpId(Uuid::from_u64_pair(u64::from(timeline.region.0), seq)),
                accepted_ns: 0,
                trace: None,
                merged_from: None,
                chain: last,
            };
            operation.chain = chain::next(last, &operation);
            last = operation.chain;
            operation
        })
        .collect()
}

/// The position after the last of these operations.
pub(crate) fn position(log: &[Operation]) -> Position {
    log.last().map_or(Position::START, |last| Position {
        seq: last.dot.seq,
        visible: last.dot.seq,
        version: last.version,
        chain: last.chain,
    })
}
