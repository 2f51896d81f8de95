//! How each change of the regime stands, with its moments on the host's boot clock.

use std::sync::Arc;

use longhaul_core::ids::{Epoch, RegionId};
use longhaul_core::operation::TraceContext;
use longhaul_http::trace::{self, trace_id_text};
use longhaul_http::wire::regime::{ChangeState, ChangeStatus, Milestone};
use uuid::Uuid;

use crate::state::Region;

/// Writes down changes.
pub(super) struct Changes {
    region: Arc<Region>,
}

impl Changes {
    pub(super) fn new(region: Arc<Region>) -> Self {
        Self { region }
    }

    /// Begins the record of a change.
    pub(super) fn begin(&self, id: Uuid, kind: &str, reason: String, trace: Option<TraceContext>) -> Record {
        let regime = self.region.regime();
        let status = ChangeStatus {
            id: id.to_string(),
            kind: kind.to_owned(),
            state: ChangeState::Running,
            region: self.region.config.name().to_owned(),
            epoch_from: regime.epoch.0,
            epoch_to: 0,
            from: self.name(regime.primary),
            to: None,
            reason,
            missing: Vec::new(),
            predicted_loss: None,
            milestones: Vec::new(),
            trace_id: trace.map(trace_id_text),
        };
        let record = Record { region: Arc::clone(&self.region), status };
        record.publish();
        record
    }

    /// Notes a moment of a change that another region drives.
    pub(super) fn witness(&self, id: Uuid, kind: &str, name: &str, trace: Option<TraceContext>) {
        let milestone = Milestone {
            name: name.to_owned(),
            boot_ns: self.region.clock.boot_ns(),
            region: self.region.config.name().to_owned(),
        };
        // Whoever drives a change ends its record; one that this region only saw ends with what it saw.
        if self.region.witness_change(&id.to_string(), milestone.clone()) {
            return;
        }
        let mut record = self.begin(id, kind, "as seen by a region that took part".to_owned(), trace);
        record.mark_at(name, milestone.boot_ns);
        let regime = self.region.regime();
        record.expect(regime.primary, None);
        record.finish(ChangeState::Done, regime.epoch, None);
    }

    fn name(&self, region: Option<RegionId>) -> Option<String> {
        region.map(|region| self.region.config.name_of(region).to_owned())
    }
}

/// The record of one change.
pub(super) struct Record {
    region: Arc<Region>,
    status: ChangeStatus,
}

impl Record {
    /// Notes that something happened now.
    pub(super) fn mark(&mut self, name: &str) {
        self.mark_at(name, self.region.clock.boot_ns());
    }

    /// Notes that something happened then.
    pub(super) fn mark_at(&mut self, name: &str, boot_ns: u64) {
        let region = self.region.config.name().to_owned();
        self.status.milestones.push(Milestone { name: name.to_owned(), boot_ns, region });
        self.publish();
    }

    /// Notes what people should know: who takes over, what is expected to be lost.
    pub(super) fn expect(&mut self, to: Option<RegionId>, predicted_loss: Option<u64>) {
        self.status.to = to.map(|to| self.region.config.name_of(to).to_owned());
        self.status.predicted_loss = predicted_loss.or(self.status.predicted_loss);
        self.publish();
    }

    /// Notes costs and what is missing, one line each.
    pub(super) fn note(&mut self, lines: impl IntoIterator<Item = String>) {
        self.status.missing.extend(lines);
        self.publish();
    }

    /// Ends the record.
    pub(super) fn finish(&mut self, state: ChangeState, epoch: Epoch, reason: Option<String>) {
        self.status.state = state;
        self.status.epoch_to = epoch.0;
        if let Some(reason) = reason {
            self.status.reason = reason;
        }
        self.publish();
        self.trace();
    }

    /// Records this region's part in the change, with its steps: each ends with its milestone. The root of the trace is
    /// control's, which knows what users saw.
    fn trace(&self) {
        let id = self.status.trace_id.as_deref().and_then(trace::parse_trace_id);
        let Some(root) = id.map(trace::anchored).filter(|root| trace::records(*root)) else { return };
        let moments = self.status.milestones.iter().map(|milestone| milestone.boot_ns);
        let (Some(from_ns), Some(to_ns)) = (moments.clone().min(), moments.max()) else { return };
        let part = self.region.trace_ids.child(root);
        tracing::debug_span!(
            "regime.part",
            otel.name = %format_args!("{} at {}", self.status.kind, self.status.region),
            longhaul.context = %trace::Text(part),
            longhaul.parent = %trace::Text(root),
            longhaul.from_ns = from_ns,
            longhaul.to_ns = to_ns,
            longhaul.change = self.status.kind,
            longhaul.region = self.status.region,
            longhaul.from = self.status.from,
            longhaul.to = self.status.to,
            longhaul.epoch = self.status.epoch_to,
            longhaul.reason = self.status.reason,
        );
        let mut began = from_ns;
        for milestone in &self.status.milestones {
            tracing::debug_span!(
                "regime.step",
                otel.name = milestone.name,
                longhaul.context = %trace::Text(self.region.trace_ids.child(root)),
                longhaul.parent = %trace::Text(part),
                longhaul.from_ns = began,
                longhaul.to_ns = milestone.boot_ns,
                longhaul.phase = milestone.name,
                longhaul.region = milestone.region,
            );
            began = began.max(milestone.boot_ns);
        }
    }

    fn publish(&self) {
        self.region.record_change(self.status.clone());
    }
}
