//! The rolling hash of a timeline. Two histories under one sequence number, as a restored copy makes them, differ in
//! it from the first difference on for good.
//!
//! It detects accidents, not an adversary: SipHash-2-4 with 128 bits and a fixed key over a canonical encoding.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::operation::{Chain, Operation};

/// The chain before the first operation of a timeline.
pub const START: Chain = Chain([0; 16]);

const KEY: [u8; 16] = *b"longhaul chain 1";

/// The chain after `operation`, given the chain before it. The operation's own `chain` takes no part.
pub fn next(prev: Chain, operation: &Operation) -> Chain {
    let mut hash = SipHasher24::new_with_key(&KEY);
    hash.write(&prev.0);
    encode(operation, &mut |bytes| hash.write(bytes));
    Chain(hash.finish128().as_bytes())
}

/// Whether the operation's chain is the one that follows `prev`.
pub fn verify(prev: Chain, operation: &Operation) -> bool {
    operation.chain == next(prev, operation)
}

/// The canonical encoding: fixed order, fixed width, big-endian; what may be absent or has a length is preceded by it,
/// so that different operations never encode alike.
fn encode(operation: &Operation, put: &mut impl FnMut(&[u8])) {
    let dot = |put: &mut dyn FnMut(&[u8]), dot: crate::ids::Dot| {
        put(&dot.timeline.region.0.to_be_bytes());
        put(&dot.timeline.incarnation.0.to_be_bytes());
        put(&dot.seq.to_be_bytes());
    };
    let optional = |put: &mut dyn FnMut(&[u8]), bytes: Option<&[u8]>| match bytes {
        None => put(&[0]),
        Some(bytes) => {
            put(&[1]);
            put(&(bytes.len() as u64).to_be_bytes());
            put(bytes);
        }
    };
    dot(put, operation.dot);
    put(&operation.epoch.0.to_be_bytes());
    put(&[operation.kind.code()]);
    put(&operation.home.0.to_be_bytes());
    optional(put, operation.id.as_ref().map(|id| id.as_str().as_bytes()));
    optional(put, operation.value.as_deref());
    put(&operation.version.to_bytes());
    put(&(operation.context.0.len() as u64).to_be_bytes());
    for (timeline, seq) in operation.context.iter() {
        dot(put, crate::ids::Dot { timeline, seq });
    }
    put(operation.op_id.0.as_bytes());
    put(&operation.accepted_ns.to_be_bytes());
    put(&[u8::from(operation.trace.is_some())]);
    if let Some(trace) = &operation.trace {
        put(&trace.trace_id);
        put(&trace.span_id);
        put(&[trace.flags]);
    }
    put(&[u8::from(operation.merged_from.is_some())]);
    if let Some(from) = operation.merged_from {
        dot(put, from);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Dot, Epoch, OpId, RecordId, RegionId, Timeline};
    use crate::operation::{OperationKind, TraceContext};
    use crate::vector::VersionVector;
    use crate::version::Version;

    fn operation() -> Operation {
        Operation {
            dot: Dot { timeline: Timeline::new(1, 1), seq: 1 },
            epoch: Epoch(1),
            kind: OperationKind::Put,
            home: RegionId(1),
            id: Some(RecordId::new("ab").unwrap()),
            value: Some(Bytes::from_static(b"c")),
            version: Version { time_ns: 1, count: 0, region: RegionId(1) },
            context: VersionVector::default(),
            op_id: OpId(Uuid::nil()),
            accepted_ns: 1,
            trace: None,
            merged_from: None,
            chain: START,
        }
    }

    #[test]
    fn a_change_of_any_field_changes_the_chain() {
        let edits: [fn(&mut Operation); 14] = [
            |o| o.dot.seq = 2,
            |o| o.dot.timeline = Timeline::new(1, 2),
            |o| o.epoch = Epoch(2),
            |o| o.kind = OperationKind::Merge,
            |o| o.home = RegionId(2),
            |o| o.id = Some(RecordId::new("a").unwrap()),
            |o| o.value = None,
            |o| o.value = Some(Bytes::from_static(b"bc")),
            |o| o.version.count = 1,
            |o| o.context.set(Timeline::new(2, 1), 1),
            |o| o.op_id = OpId(Uuid::from_u128(1)),
            |o| o.accepted_ns = 2,
            |o| {
                o.trace = Some(TraceContext { trace_id: [1; 16], span_id: [1; 8], flags: 1 });
            },
            |o| {
                o.merged_from = Some(Dot { timeline: Timeline::new(1, 1), seq: 1 });
            },
        ];
        let mut chains = std::collections::BTreeSet::from([next(START, &operation())]);
        for edit in edits {
            let mut edited = operation();
            edit(&mut edited);
            assert!(chains.insert(next(START, &edited)), "{edited:?}");
        }
        assert!(chains.insert(next(Chain([1; 16]), &operation())));
    }

    #[test]
    fn an_operation_verifies_against_the_chain_before_it_only() {
        let mut first = operation();
        first.chain = next(START, &first);
        assert!(verify(START, &first));
        assert!(!verify(first.chain, &first));
    }
}
