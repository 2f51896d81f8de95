//! Drawing and deriving trace and span ids.

use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::operation::TraceContext;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::{SAMPLED, policy};

/// Draws trace and span ids from a seed.
#[derive(Clone)]
pub struct TraceIds(Arc<Mutex<SmallRng>>);

impl TraceIds {
    /// A generator; two processes need different seeds.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// A new root context of a trace that is kept.
    pub fn root(&self) -> TraceContext {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        rng.fill_bytes(&mut trace_id);
        rng.fill_bytes(&mut span_id);
        // All zero is not a valid id.
        trace_id[15] |= 1;
        span_id[7] |= 1;
        TraceContext { trace_id, span_id, flags: SAMPLED }
    }

    /// A new root context of a request; the process's [`policy`] says whether its trace is kept.
    pub fn request(&self) -> TraceContext {
        let root = self.root();
        TraceContext { flags: if policy::chooses(root.trace_id) { SAMPLED } else { 0 }, ..root }
    }

    /// A child of `parent`: the same trace, a new span.
    pub fn child(&self, parent: TraceContext) -> TraceContext {
        TraceContext { trace_id: parent.trace_id, flags: parent.flags, ..self.root() }
    }
}

/// The span that two processes agree on without telling each other: a function of a span that both know and of a number
/// that says what it is for.
pub fn derived(context: TraceContext, number: u16) -> TraceContext {
    // SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): a bijection, so that
    // different numbers give different spans.
    let mut z =
        u64::from_be_bytes(context.span_id).wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(number) + 1));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    TraceContext { span_id: z.max(1).to_be_bytes(), ..context }
}

/// The root span of a trace of which only the id is known: of a change of the regime or a drill, whose root is recorded
/// by control, and whose parts are recorded by regions.
pub fn anchored(trace_id: [u8; 16]) -> TraceContext {
    let span_id = (u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| trace_id[byte])) | 1).to_be_bytes();
    TraceContext { trace_id, span_id, flags: SAMPLED }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn derived_spans_are_of_the_trace_and_differ() {
        let context = TraceIds::new(1).root();
        let spans: BTreeSet<_> = (0..64).map(|number| derived(context, number).span_id).collect();
        assert_eq!(spans.len(), 64);
        assert!(!spans.contains(&context.span_id));
        assert_eq!(derived(context, 3), derived(context, 3));
        assert_eq!(derived(context, 3).trace_id, context.trace_id);
    }

    #[test]
    fn whoever_knows_the_trace_knows_its_root() {
        let context = TraceIds::new(1).root();
        assert_eq!(anchored(context.trace_id), anchored(context.trace_id));
        assert_ne!(anchored([0; 16]).span_id, [0; 8]);
    }
}
