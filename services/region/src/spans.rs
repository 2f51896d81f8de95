//! Spans of what happens to writes in batches: who was in a commit, how long a write waited for its followers, when each
//! peer had it. They are known afterwards only, so they are made in one statement, with their times (see
//! `longhaul_http::trace`).
//!
//! **None of them names a record, an operation or a value, and in isolation nothing is recorded about operations of
//! other homes**: there are none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use longhaul_core::ids::{Dot, RegionId, Timeline};
use longhaul_core::operation::{Operation, TraceContext};
use longhaul_core::vector::VersionVector;
use longhaul_http::trace::{self, Links, Text};

use crate::state::Region;

/// Most writes under way to one peer that are traced; beyond it the oldest is no longer followed.
const SHIPPING_MAX: usize = 8192;

/// The context of an operation whose spans are recorded here.
pub(crate) fn recorded(trace: Option<TraceContext>) -> Option<TraceContext> {
    trace.filter(|context| trace::records(*context))
}

/// A write from its arrival to the writer's turn.
pub(crate) fn accepted(region: &Region, context: TraceContext, arrived_ns: u64, turn_ns: u64) {
    tracing::debug_span!(
        "region.accept",
        longhaul.context = %Text(region.trace_ids.child(context)),
        longhaul.parent = %Text(context),
        longhaul.from_ns = arrived_ns,
        longhaul.to_ns = turn_ns,
    );
}

/// The writes of a commit that are recorded.
#[derive(Default)]
pub(crate) struct Traced(Vec<TraceContext>);

impl Traced {
    /// Notes a write.
    pub(crate) fn add(&mut self, context: TraceContext) {
        self.0.push(context);
    }

    /// Records the commit: once for the group, with links to its writes, and once in the trace of each.
    pub(crate) fn committed(&self, region: &Region, operations: usize, from_ns: u64, to_ns: u64) {
        if self.0.is_empty() {
            return;
        }
        let group = region.trace_ids.root();
        let mut links = Links::default();
        links.extend(self.0.iter().copied());
        let system = region.store.system();
        tracing::debug_span!(
            "region.group_commit",
            longhaul.context = %Text(group),
            longhaul.links = %links,
            longhaul.links.left_out = (links.left_out() > 0).then_some(links.left_out()),
            longhaul.from_ns = from_ns,
            longhaul.to_ns = to_ns,
            longhaul.region = region.config.name(),
            longhaul.operations = operations,
            longhaul.epoch = region.regime().epoch.0,
        );
        let grouped = self.0.len() > 1 || operations > 1;
        for context in &self.0 {
            tracing::debug_span!(
                "region.commit",
                otel.name = "COMMIT operations",
                otel.kind = "client",
                longhaul.context = %Text(region.trace_ids.child(*context)),
                longhaul.parent = %Text(*context),
                longhaul.links = grouped.then_some(group).map(Text).map(tracing::field::display),
                longhaul.from_ns = from_ns,
                longhaul.to_ns = to_ns,
                db.system.name = system,
                db.operation.name = "COMMIT",
                db.collection.name = "operations",
                db.operation.batch.size = (operations > 1).then_some(operations),
            );
        }
    }
}

/// A logged write that waited for the followers which its durability needs, until its client was told.
pub(crate) fn ack_waited(region: &Region, context: TraceContext, from_ns: u64, durability: &str, code: Option<&str>) {
    tracing::debug_span!(
        "region.ack_wait",
        longhaul.context = %Text(region.trace_ids.child(context)),
        longhaul.parent = %Text(context),
        longhaul.from_ns = from_ns,
        longhaul.to_ns = region.clock.boot_ns(),
        longhaul.durability = durability,
        longhaul.code = code,
        otel.status_code = code.map(|_| "ERROR"),
    );
}

/// The context of a write's way to a peer: origin and peer agree on it without telling each other.
fn way(context: TraceContext, peer: RegionId) -> TraceContext {
    trace::derived(context, peer.0)
}

/// Writes of this region that are on their way to peers and are recorded.
#[derive(Debug, Default)]
pub struct Shipping(Mutex<BTreeMap<RegionId, VecDeque<Shipped>>>);

#[derive(Debug, Clone, Copy)]
struct Shipped {
    dot: Dot,
    context: TraceContext,
    committed_ns: u64,
}

impl Shipping {
    /// Notes writes that have just become durable here.
    pub(crate) fn committed(&self, region: &Region, writes: impl Iterator<Item = (Dot, TraceContext)>, now_ns: u64) {
        if region.is_isolated() {
            return;
        }
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (dot, context) in writes {
            for peer in region.config.peers.keys() {
                let queue = ways.entry(*peer).or_default();
                if queue.len() == SHIPPING_MAX
                    && let Some(oldest) = queue.pop_front()
                {
                    oldest.record(region, *peer, Some("unacknowledged"));
                }
                queue.push_back(Shipped { dot, context, committed_ns: now_ns });
            }
        }
    }

    /// Records the ways that end with an acknowledgement of `peer`.
    pub(crate) fn acknowledged(&self, region: &Region, peer: RegionId, durable: &VersionVector) {
        let done: Vec<Shipped> = {
            let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(queue) = ways.get_mut(&peer) else { return };
            let count = queue.iter().take_while(|shipped| durable.covers(shipped.dot)).count();
            queue.drain(..count).collect()
        };
        for shipped in done {
            shipped.record(region, peer, None);
        }
    }

    /// Ends every way, at the end of this process or of the timeline: nobody will acknowledge it to this region. A peer
    /// that has the write already said so in the same trace, inside of this way.
    pub(crate) fn end(&self, region: &Region) {
        let ways = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (peer, shipped) in ways.into_iter().flat_map(|(peer, queue)| queue.into_iter().map(move |one| (peer, one)))
        {
            shipped.record(region, peer, Some("unacknowledged"));
        }
    }
}

impl Shipped {
    /// Records that the way to a peer ends now.
    fn record(self, region: &Region, peer: RegionId, outcome: Option<&str>) {
        tracing::debug_span!(
            "replication.ship",
            otel.name = "send longhaul.replication",
            otel.kind = "producer",
            longhaul.context = %Text(way(self.context, peer)),
            longhaul.parent = %Text(self.context),
            longhaul.from_ns = self.committed_ns,
            longhaul.to_ns = region.clock.boot_ns(),
            longhaul.peer = region.config.name_of(peer),
            longhaul.outcome = outcome,
            messaging.system = "longhaul",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            messaging.destination.name = "longhaul.replication",
        );
    }
}

/// A batch that has arrived from a peer.
pub(crate) struct Arrived {
    timeline: Timeline,
    operations: usize,
    writes: Vec<TraceContext>,
    from_ns: u64,
}

impl Arrived {
    /// Notes its recorded writes; `None` if there are none or they may not be told.
    pub(crate) fn note(region: &Region, timeline: Timeline, operations: &[Operation]) -> Option<Self> {
        if region.is_isolated() || !trace::policy::is_recording() {
            return None;
        }
        let writes: Vec<_> = operations.iter().filter_map(|operation| recorded(operation.trace)).collect();
        let from_ns = region.clock.boot_ns();
        (!writes.is_empty()).then_some(Self { timeline, operations: operations.len(), writes, from_ns })
    }

    /// Records that the batch is durable here: once as a batch, with links to its writes, and once in the trace of each.
    pub(crate) fn applied(self, region: &Region, peer: RegionId) {
        let to_ns = region.clock.boot_ns();
        let batch = region.trace_ids.root();
        let mut links = Links::default();
        links.extend(self.writes.iter().copied());
        let (here, from) = (region.config.name(), region.config.name_of(peer));
        let origin = region.config.name_of(self.timeline.region);
        tracing::debug_span!(
            "replication.batch",
            otel.name = "process longhaul.replication",
            otel.kind = "consumer",
            longhaul.context = %Text(batch),
            longhaul.links = %links,
            longhaul.links.left_out = (links.left_out() > 0).then_some(links.left_out()),
            longhaul.from_ns = self.from_ns,
            longhaul.to_ns = to_ns,
            longhaul.region = here,
            longhaul.peer = from,
            longhaul.operations = self.operations,
            messaging.system = "longhaul",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = "longhaul.replication",
            messaging.batch.message_count = self.operations,
        );
        for context in self.writes {
            tracing::debug_span!(
                "replication.apply",
                otel.name = %format_args!("apply at {here}"),
                otel.kind = "consumer",
                longhaul.context = %Text(region.trace_ids.child(context)),
                longhaul.parent = %Text(way(context, region.id())),
                longhaul.links = %Text(batch),
                longhaul.from_ns = self.from_ns,
                longhaul.to_ns = to_ns,
                longhaul.region = here,
                longhaul.peer = (from != origin).then_some(from),
            );
        }
    }
}
