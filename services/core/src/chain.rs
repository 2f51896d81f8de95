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
