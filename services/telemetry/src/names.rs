//! Names of spans and attributes: the only list of them. Whatever is not here follows OpenTelemetry's semantic
//! conventions. A contract test compares the list with what the services write.
//!
//! No name stands for the id or the value of a record: under `regional-isolation` traces cross borders that records
//! must not.

/// Names of spans.
pub mod span {
    /// A user's operation, from its intended start to its outcome.
    pub const USER: &str = "user.operation";
    /// A request at a server, named `METHOD route` when exported.
    pub const SERVER: &str = "http.server";
    /// A user's request on its way through a gateway.
    pub const GATEWAY_REQUEST: &str = "gateway.request";
    /// One attempt of a gateway at one region.
    pub const GATEWAY_ATTEMPT: &str = "gateway.attempt";
    /// A request that waits for a newer regime, or for a region to come back.
    pub const GATEWAY_HOLD: &str = "gateway.hold";
    /// A write from its arrival to the writer's turn: the queue and the gate.
    pub const REGION_ACCEPT: &str = "region.accept";
    /// A write's transaction in the store.
    pub const REGION_COMMIT: &str = "region.commit";
    /// The transaction that many writes share, linked to them.
    pub const REGION_GROUP_COMMIT: &str = "region.group_commit";
    /// A logged write that waits for the followers which its durability needs.
    pub const REGION_ACK_WAIT: &str = "region.ack_wait";
    /// A read from the store.
    pub const REGION_READ: &str = "region.read";
    /// A write on its way to one peer: from its commit to the peer's acknowledgement.
    pub const SHIP: &str = "replication.ship";
    /// The same write at the peer: from its arrival until it is durable there.
    pub const APPLY: &str = "replication.apply";
    /// A batch of operations at a peer, linked to the writes in it.
    pub const BATCH: &str = "replication.batch";
    /// A failover, switchover, mode switch or change of durability, as users saw it.
    pub const CHANGE: &str = "regime.change";
    /// A region's part in a change, with its steps below it.
    pub const CHANGE_PART: &str = "regime.part";
    /// One step of a region's part.
    pub const CHANGE_STEP: &str = "regime.step";
    /// The recovery of one edge's writes after a fault, with its phases below it.
    pub const RECOVERY: &str = "recovery";
    /// One phase of a recovery.
    pub const RECOVERY_PHASE: &str = "recovery.phase";
    /// A drill, with its phases below it.
    pub const DRILL: &str = "drill";
    /// One phase of a drill.
    pub const DRILL_PHASE: &str = "drill.phase";
    /// A fault, from its injection until it was healed.
    pub const FAULT: &str = "drill.fault";
    /// An acknowledged write that was lost, linked to its trace.
    pub const LOST: &str = "write.lost";

    /// All of them.
    pub const ALL: &[&str] = &[
        USER,
        SERVER,
        GATEWAY_REQUEST,
        GATEWAY_ATTEMPT,
        GATEWAY_HOLD,
        REGION_ACCEPT,
        REGION_COMMIT,
        REGION_GROUP_COMMIT,
        REGION_ACK_WAIT,
        REGION_READ,
        SHIP,
        APPLY,
        BATCH,
        CHANGE,
        CHANGE_PART,
        CHANGE_STEP,
        RECOVERY,
        RECOVERY_PHASE,
        DRILL,
        DRILL_PHASE,
        FAULT,
        LOST,
    ];
}

/// Names of attributes.
pub mod attribute {
    /// The span's own ids as a `traceparent`: the exported span has exactly these. Not exported.
    pub const CONTEXT: &str = "longhaul.context";
    /// The parent in another process, as a `traceparent`. Not exported.
    pub const PARENT: &str = "longhaul.parent";
    /// Spans that this one has to do with, as `traceparent`s with commas between them. Exported as links.
    pub const LINKS: &str = "longhaul.links";
    /// Beginning of a span of what has happened already, nanoseconds since boot. Exported as the span's own.
    pub const FROM_NS: &str = "longhaul.from_ns";
    /// End of a span of what has happened already, nanoseconds since boot. Exported as the span's own.
    pub const TO_NS: &str = "longhaul.to_ns";
    /// How long what has just ended took, nanoseconds. Exported as the span's beginning.
    pub const LASTED_NS: &str = "longhaul.lasted_ns";
    /// `true` on a span that was recorded only because its request was slow or failed.
    pub const LATE: &str = "longhaul.late";
    /// The role of the process.
    pub const ROLE: &str = "longhaul.role";
    /// A region, by name.
    pub const REGION: &str = "longhaul.region";
    /// An edge, by name.
    pub const EDGE: &str = "longhaul.edge";
    /// The other region of a replication link, by name.
    pub const PEER: &str = "longhaul.peer";
    /// The home of a record, by name.
    pub const HOME: &str = "longhaul.home";
    /// The epoch of a regime; after a change, the new one.
    pub const EPOCH: &str = "longhaul.epoch";
    /// The mode of a regime.
    pub const MODE: &str = "longhaul.mode";
    /// An error code.
    pub const CODE: &str = "longhaul.code";
    /// How an operation ended: `ok`, `failed`, `unknown`.
    pub const OUTCOME: &str = "longhaul.outcome";
    /// Attempts of an operation.
    pub const ATTEMPTS: &str = "longhaul.attempts";
    /// Regions that a gateway would ask, best first.
    pub const CANDIDATES: &str = "longhaul.candidates";
    /// Durability under which a write was accepted.
    pub const DURABILITY: &str = "longhaul.durability";
    /// Operations in a batch or commit.
    pub const OPERATIONS: &str = "longhaul.operations";
    /// Links that were left out because a span keeps only so many.
    pub const LINKS_LEFT_OUT: &str = "longhaul.links.left_out";
    /// Recovery time, milliseconds.
    pub const RTO_MS: &str = "longhaul.rto_ms";
    /// Acknowledged writes that were lost.
    pub const RPO_WRITES: &str = "longhaul.rpo.writes";
    /// The same in seconds.
    pub const RPO_SECONDS: &str = "longhaul.rpo.seconds";
    /// Primary before a change, by name.
    pub const FROM: &str = "longhaul.from";
    /// Primary after a change, by name.
    pub const TO: &str = "longhaul.to";
    /// Why, in one line.
    pub const REASON: &str = "longhaul.reason";
    /// A drill's plan, by name.
    pub const PLAN: &str = "longhaul.plan";
    /// A drill's verdict.
    pub const VERDICT: &str = "longhaul.verdict";
    /// A phase of a recovery or a drill, by name.
    pub const PHASE: &str = "longhaul.phase";
    /// What a fault is.
    pub const FAULT: &str = "longhaul.fault";
    /// What kind of change of the regime it is.
    pub const CHANGE: &str = "longhaul.change";
    /// `true` on a write that was lost.
    pub const LOST: &str = "longhaul.lost";
    /// Whether a lost write lies in a quarantine.
    pub const QUARANTINED: &str = "longhaul.quarantined";

    /// All of them.
    pub const ALL: &[&str] = &[
        CONTEXT,
        PARENT,
        LINKS,
        FROM_NS,
        TO_NS,
        LASTED_NS,
        LATE,
        ROLE,
        REGION,
        EDGE,
        PEER,
        HOME,
        EPOCH,
        MODE,
        CODE,
        OUTCOME,
        ATTEMPTS,
        CANDIDATES,
        DURABILITY,
        OPERATIONS,
        LINKS_LEFT_OUT,
        RTO_MS,
        RPO_WRITES,
        RPO_SECONDS,
        FROM,
        TO,
        REASON,
        PLAN,
        VERDICT,
        PHASE,
        FAULT,
        CHANGE,
        LOST,
        QUARANTINED,
    ];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_own_attribute_has_our_prefix_and_no_name_is_used_twice() {
        assert!(attribute::ALL.iter().all(|name| name.starts_with("longhaul.")));
        assert_eq!(attribute::ALL.iter().collect::<BTreeSet<_>>().len(), attribute::ALL.len());
        assert_eq!(span::ALL.iter().collect::<BTreeSet<_>>().len(), span::ALL.len());
    }
}
