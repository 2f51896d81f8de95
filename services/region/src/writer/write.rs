//! Accepting writes: the checks of one write in their order, and the operation that it becomes.

use std::sync::Arc;

use longhaul_core::chain;
use longhaul_core::clock::ClockError;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::{GateRefusal, write_gate};
use longhaul_core::ids::{Dot, OpId, RecordKey, RegionId};
use longhaul_core::limits::{UNAPPLIED_MAX, WRITE_QUEUE_MAX};
use longhaul_core::operation::{Chain, Operation, OperationKind, TraceContext};
use longhaul_core::record::Record;
use longhaul_core::regime::{MemberState, Mode};
use longhaul_core::replication::Position;
use longhaul_core::version::Version;

use super::acks::Waiting;
use super::task::Writer;
use super::transaction::{Reply, Transaction, request_hash};
use super::{Condition, GateScope, QueuedWrite, WriteError, WriteRequest};
use crate::spans;

/// A write that is in the log, now or since before.
struct Accepted {
    dot: Dot,
    version: Version,
    repeated: bool,
}

/// What becomes an operation, once it has a place and a version.
struct Draft {
    kind: OperationKind,
    home: RegionId,
    key: Option<RecordKey>,
    value: Option<bytes::Bytes>,
    op_id: OpId,
    trace: Option<TraceContext>,
    merged_from: Option<Dot>,
}

impl Writer {
    /// Stages one write; its record and its operation id must have been loaded.
    pub(super) fn stage_write(&mut self, transaction: &mut Transaction, write: QueuedWrite) {
        let QueuedWrite { request, reply, .. } = write;
        let trace = spans::recorded(request.trace);
        match self.accept(transaction, request) {
            Ok(accepted) => {
                let deadline = self.region.config.timings.ack_deadline_ms * 1_000_000;
                let accepted_ns = self.region.clock.boot_ns();
                let waiting = Waiting {
                    dot: accepted.dot,
                    version: accepted.version,
                    regime: Arc::clone(&self.regime),
                    repeated: accepted.repeated,
                    deadline_ns: accepted_ns.saturating_add(deadline),
                    reply,
                    accepted_ns,
                    trace,
                };
                let visible = accepted.dot.timeline != self.own || accepted.dot.seq <= self.position(self.own).visible;
                if visible && (!accepted.repeated || self.is_durable(accepted.dot)) {
                    transaction.replies.push(Reply::Written(waiting));
                } else if visible {
                    self.waiting_count += 1;
                    self.repeats.push(waiting);
                } else {
                    self.waiting_count += 1;
                    self.waiting.entry(accepted.dot.seq).or_default().push(waiting);
                }
            }
            Err(error) => {
                self.region.counters.writes_refused.add(1);
                transaction.replies.push(Reply::Refused(reply, error));
            }
        }
    }

    fn accept(&mut self, transaction: &mut Transaction, request: WriteRequest) -> Result<Accepted, WriteError> {
        self.check_gate(request.key.home)?;
        if let Some(row) = transaction.remembered(request.op_id) {
            let hash = request_hash(request.kind, request.value.as_deref(), &request.key);
            if row.request_hash != hash || row.key != request.key {
                let detail = "the idempotency key was used for another request; draw a new one for each operation";
                return Err(WriteError::new(ErrorCode::KeyReused, detail));
            }
            return Ok(Accepted { dot: row.dot, version: row.version, repeated: true });
        }
        let head = self.overlay.get(&request.key).or_else(|| transaction.record(&request.key));
        check_condition(&request, head, &self.regime.cuts)?;
        let head_version = head.map_or(Version::ZERO, |head| head.version);
        if self.waiting_count >= WRITE_QUEUE_MAX {
            let detail = format!("{WRITE_QUEUE_MAX} writes wait for followers already; try again later");
            return Err(WriteError::new(ErrorCode::Overloaded, detail));
        }
        // A client stops waiting at its deadline; its operation waits for followers as long as it takes.
        if self.unapplied.get(&self.own).is_some_and(|waiting| waiting.len() >= UNAPPLIED_MAX) {
            let detail = format!("{UNAPPLIED_MAX} logged writes wait for followers already; try again later");
            return Err(WriteError::new(ErrorCode::Overloaded, detail));
        }
        if let Some(after) = request.after {
            let wall_ns = self.region.clock.wall_ns();
            self.clock.admit(&after, wall_ns).map_err(|error| clock_error(&error))?;
        }
        let draft = Draft {
            kind: request.kind,
            home: request.key.home,
            key: Some(request.key),
            value: request.value,
            op_id: request.op_id,
            trace: request.trace,
            merged_from: request.merged_from,
        };
        let version = self.draw_version()?;
        if version <= head_version {
            let detail = "this region's clock is behind the record's version, so that the write would lose at once; \
                          try again shortly";
            return Err(WriteError::new(ErrorCode::ClockBehind, detail));
        }
        let operation = self.append(transaction, draft, version);
        Ok(Accepted { dot: operation.dot, version, repeated: false })
    }

    /// Stages a no-op or a barrier. Barriers end the writing of a region that is being drained, so they pass a gate
    /// that is closed for writes; like writes they need the right to the timeline.
    pub(super) fn stage_marker(
        &mut self,
        transaction: &mut Transaction,
        kind: OperationKind,
        trace: Option<TraceContext>,
    ) -> Result<Dot, WriteError> {
        let me = self.region.id();
        let may_write = match self.regime.mode {
            Mode::ActivePassive => self.regime.primary == Some(me) && self.region.lease_valid(),
            Mode::ActiveActive | Mode::RegionalIsolation => true,
        };
        let member = self.regime.members.get(&me).is_some_and(|member| member.state == MemberState::Active);
        if !may_write || !member || self.is_sealed(self.own) {
            let detail = "this region may not append to its log under the present regime; ask the primary";
            return Err(WriteError::new(ErrorCode::NotPrimary, detail));
        }
        if !self.region.is_ready_to_write() {
            return Err(not_ready());
        }
        let op_id = OpId(self.region.random_uuid());
        let draft = Draft { kind, home: me, key: None, value: None, op_id, trace, merged_from: None };
        let version = self.draw_version()?;
        Ok(self.append(transaction, draft, version).dot)
    }

    fn check_gate(&self, home: RegionId) -> Result<(), WriteError> {
        let me = self.region.id();
        let ready = self.region.is_ready_to_write() && !self.is_sealed(self.own);
        write_gate(&self.regime, me, home, self.region.lease_valid(), ready).map_err(gate_error)?;
        let held = match self.gate {
            GateScope::Open => false,
            GateScope::All => true,
            GateScope::ForeignHomes => home != me,
        };
        if held { Err(gate_error(GateRefusal::Switching { next: None })) } else { Ok(()) }
    }

    fn draw_version(&mut self) -> Result<Version, WriteError> {
        let (wall_ns, boot_ns) = (self.region.clock.wall_ns(), self.region.clock.boot_ns());
        let drawn = self.clock.tick(wall_ns, boot_ns);
        let blocked = matches!(drawn, Err(ClockError::Behind { .. } | ClockError::Jumped { .. }));
        if blocked != self.clock_blocked {
            self.clock_blocked = blocked;
            self.region.set_clock_blocked_since(blocked.then_some(boot_ns));
            // Reads go on: the clock is only needed to stamp.
            tracing::warn!(blocked, "the wall clock is out of bounds or was corrected; writes follow it");
        }
        drawn.map_err(|error| clock_error(&error))
    }

    /// Gives the draft its place, chains and logs it, and shows it if the durability allows that at once.
    fn append(&mut self, transaction: &mut Transaction, draft: Draft, version: Version) -> Arc<Operation> {
        let timeline = self.own;
        let held = self.position(timeline);
        let mut operation = Operation {
            dot: Dot { timeline, seq: held.seq + 1 },
            epoch: self.regime.epoch,
            kind: draft.kind,
            home: draft.home,
            id: draft.key.map(|key| key.id),
            value: draft.value,
            version,
            context: self.vector.clone(),
            op_id: draft.op_id,
            accepted_ns: self.region.clock.wall_ns(),
            trace: draft.trace,
            merged_from: draft.merged_from,
            chain: Chain::default(),
        };
        operation.chain = chain::next(held.chain, &operation);
        let operation = Arc::new(operation);
        let at_once = self.shows_at_once();
        let visible = if at_once { operation.dot.seq } else { held.visible };
        let position = Position { seq: operation.dot.seq, visible, version, chain: operation.chain };
        self.positions.insert(timeline, position);
        self.vector.set(timeline, operation.dot.seq);
        transaction.log(Arc::clone(&operation));
        if at_once {
            self.apply(transaction, &operation);
        } else {
            if let (Some(key), Some(record)) = (operation.key(), Record::from_operation(&operation)) {
                self.overlay.insert(key, record);
            }
            self.unapplied.entry(timeline).or_default().push_back(Arc::clone(&operation));
        }
        operation
    }
}

fn clock_error(error: &ClockError) -> WriteError {
    tracing::debug!(%error, "a write was refused because of the clock");
    WriteError::new(ErrorCode::ClockBehind, error.to_string())
}

fn check_condition(
    request: &WriteRequest,
    head: Option<&Record>,
    cuts: &longhaul_core::vector::VersionVector,
) -> Result<(), WriteError> {
    let live = head.filter(|head| !head.is_tombstone());
    let holds = match request.condition {
        None => true,
        Some(Condition::Version(version)) => live.is_some_and(|live| live.version == version),
        Some(Condition::Exists) => live.is_some(),
        Some(Condition::Absent) => live.is_none(),
        Some(Condition::Head(version)) => head.is_some_and(|head| head.version == version),
        Some(Condition::Sealed) => head.is_none_or(|head| cuts.covers(head.dot)),
    };
    if !holds {
        let detail = "the record is not as the condition demands; read it and decide again";
        let mut error = WriteError::new(ErrorCode::PreconditionFailed, detail);
        error.current = live.map(|live| live.version);
        return Err(error);
    }
    if request.kind == OperationKind::Delete && live.is_none() {
        return Err(WriteError::new(ErrorCode::NotFound, "there is no such record, so there is nothing to delete"));
    }
    Ok(())
}

pub(super) fn gate_error(refusal: GateRefusal) -> WriteError {
    WriteError { code: refusal.code(), detail: refusal.to_string(), ask: refusal.hint(), current: None }
}

pub(super) fn not_ready() -> WriteError {
    gate_error(GateRefusal::NotReady)
}
