//! A region's part in changes that another one drives: report, close the gate, wait, merge, complete a timeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::failover::Fenced;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::Regime;
use longhaul_core::replication::apply::TopUp;
use longhaul_core::replication::frame::Batch;
use longhaul_core::replication::visible_vector;
use longhaul_core::transition::{Barrier, GateScope, HomeCopy};
use longhaul_core::vector::VersionVector;

use super::RegimeRole;
use super::messages::{LOG_PATH, LogRequest, SEEN_PATH, SeenView, TopUpRequest};
use crate::store::quarantine_pages::QuarantinePages;
use crate::store::{QuarantineState, StoreError};
use crate::writer::GateScope as WriterScope;

/// Why a part was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    #[error(transparent)]
    Gone(#[from] crate::writer::WriterGone),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the barrier was not written: {0}")]
    Barrier(String),
    #[error("region {from} did not send its log: {reason}")]
    Log { from: RegionId, reason: String },
    #[error("operations of the old primary were refused: {0}")]
    Refused(String),
    #[error("region {0} did not say what it has")]
    Silent(RegionId),
    #[error("the regime is at epoch {0} already; ask again under that")]
    Stale(u64),
}

impl RegimeRole {
    /// This region as a coordinator sees it.
    pub(super) async fn seen(&self) -> Result<SeenView, PartError> {
        let region = &self.region;
        let positions = region.positions();
        let regime = region.regime();
        let (lag_ms, lag_operations) = self.lag_behind_primary(&regime);
        let progress = self.progress();
        let undecided = self.undecided().await?;
        Ok(SeenView {
            epoch: regime.epoch,
            applied: visible_vector(&positions),
            max_time_ns: positions.values().map(|position| position.version.time_ns).max().unwrap_or(0),
            lag_ms,
            lag_operations,
            quarantined: undecided.values().sum(),
            quarantined_for_others: undecided.iter().filter(|(home, _)| **home != region.id()).map(|(_, n)| n).sum(),
            barrier: progress.barrier,
            merged_generation: progress.merged_generation,
            purged_generation: progress.purged_generation,
        })
    }

    /// Quarantined operations that nobody has decided on, by the home of their record.
    async fn undecided(&self) -> Result<BTreeMap<RegionId, u64>, StoreError> {
        let store = &self.region.store;
        let mut undecided = BTreeMap::new();
        let mut left = store.stats().await?.quarantine_open;
        let mut pages = QuarantinePages::new(&**store);
        while left > 0 {
            let Some(page) = pages.next().await? else { break };
            for row in page.iter().filter(|row| row.state == QuarantineState::Open) {
                *undecided.entry(row.operation.home).or_default() += 1;
                left = left.saturating_sub(1);
            }
        }
        Ok(undecided)
    }

    fn lag_behind_primary(&self, regime: &Regime) -> (u64, u64) {
        let region = &self.region;
        let Some(primary) = regime.primary.filter(|primary| *primary != region.id()) else { return (0, 0) };
        let Some(timeline) = regime.timeline_of(primary) else { return (0, 0) };
        let states = region.peers.states();
        let Some(state) = states.get(&primary) else { return (0, 0) };
        let Some(report) = &state.report else { return (u64::MAX, u64::MAX) };
        let head = report.positions.get(&timeline).map_or(0, |position| position.seq);
        let operations = head.saturating_sub(region.position(timeline).seq);
        let now = region.clock.boot_ns();
        let silence = now.saturating_sub(report.heard_boot_ns);
        let since = state.behind_since_ns.map_or(0, |since| now.saturating_sub(since));
        // Silence beyond the usual heartbeats counts as lag: nobody knows what the primary has accepted since.
        let usual = 4 * u64::try_from(region.config.timings.heartbeat().as_nanos()).unwrap_or(u64::MAX);
        let lag_ns = if silence > usual { silence.max(since) } else { since };
        (lag_ns / 1_000_000, operations)
    }

    /// Adopts the regime, waits until every write admitted before has been answered, and writes a barrier.
    pub(super) async fn close(&self, regime: &Regime, scope: GateScope) -> Result<SeenView, PartError> {
        self.adopt(regime).await?;
        let now = self.region.regime();
        if now.epoch != regime.epoch {
            return Err(PartError::Stale(now.epoch.0));
        }
        let held = match scope {
            GateScope::AllWrites => WriterScope::All,
            GateScope::NonHomeWrites => WriterScope::ForeignHomes,
        };
        self.region.writer.gate(held).await?;
        let dot = self.region.writer.barrier(regime.change.trace).await;
        let dot = dot.map_err(|error| PartError::Barrier(error.detail))?;
        let time_ns = self.region.position(dot.timeline).version.time_ns;
        self.set_progress(|progress| progress.barrier = Some(Barrier { epoch: regime.epoch, scope, dot, time_ns }));
        self.seen().await
    }

    /// Waits until readers here see everything in the vector, or the time is over.
    pub(super) async fn await_applied(&self, vector: &VersionVector, wait: Duration) -> Result<SeenView, PartError> {
        self.region.await_visible(vector, wait).await;
        self.seen().await
    }

    /// Waits until this region has merged the records of these homes, as far as the homes have them now. The streams
    /// fetch them: after a purge a snapshot of every home comes first, then the log. The vector alone does not tell:
    /// the log of a home may be complete and yet begin after the purge.
    pub(super) async fn merge_homes(
        &self,
        regime: &Regime,
        homes: impl IntoIterator<Item = RegionId>,
        generation: u32,
        wait: Duration,
    ) -> Result<SeenView, PartError> {
        self.adopt(regime).await?;
        if self.region.regime().dataset_generation != generation {
            return Err(PartError::Stale(self.region.regime().epoch.0));
        }
        let homes: BTreeSet<RegionId> = homes.into_iter().collect();
        if !self.region.await_merged(&homes, wait).await {
            return self.seen().await;
        }
        let mut wanted = VersionVector::default();
        for home in homes {
            let seen: SeenView = self.peers.get(home, SEEN_PATH).await.map_err(|_| PartError::Silent(home))?;
            if let Some(timeline) = regime.timeline_of(home) {
                wanted.advance(timeline, seen.applied.get(timeline));
            }
        }
        if self.region.await_visible(&wanted, wait).await && self.region.is_ready() {
            self.set_progress(|progress| progress.merged_generation = generation);
        }
        self.seen().await
    }

    /// This region's copy of a home's records.
    pub(super) async fn home_copy(&self, home: RegionId) -> Result<HomeCopy, PartError> {
        // The regime first: the copy may be of a later moment than it says, never of an earlier one.
        let epoch = self.region.regime().epoch;
        let undecided = self.undecided().await?.get(&home).copied().unwrap_or(0);
        // Vector and digest as the writer published them, together. Read apart, from the store and from the positions,
        // they may be of two commits: equal vectors with unequal digests, which says that the regions have diverged.
        let published = self.region.digests();
        let digest = published.homes.get(&home).copied().unwrap_or_default();
        Ok(HomeCopy {
            epoch,
            vector: visible_vector(&published.positions),
            count: digest.rows,
            digest: digest.sum.to_be_bytes().to_vec(),
            undecided,
        })
    }

    /// Completes the old primary's timeline from another region that has promised as well.
    pub(super) async fn complete_timeline(&self, request: TopUpRequest) -> Result<Fenced, PartError> {
        let region = &self.region;
        region.set_top_up(Some(TopUp { timeline: request.timeline, up_to: request.up_to }));
        let result = self.fetch_timeline(request).await;
        region.set_top_up(None);
        result.map(|()| self.fenced_position())
    }

    async fn fetch_timeline(&self, request: TopUpRequest) -> Result<(), PartError> {
        let log_error = |reason: String| PartError::Log { from: request.from, reason };
        loop {
            let have = self.region.position(request.timeline).seq;
            if have >= request.up_to {
                return Ok(());
            }
            let ask = LogRequest { timeline: request.timeline, after: have, up_to: request.up_to };
            let bytes = self.peers.post_for_bytes(request.from, LOG_PATH, &ask).await;
            let bytes = bytes.map_err(|error| log_error(error.to_string()))?;
            let batch: Batch = postcard::from_bytes(&bytes).map_err(|error| log_error(error.to_string()))?;
            if batch.operations.is_empty() {
                return Err(log_error("its log does not reach back so far".to_owned()));
            }
            let applied = self.region.writer.apply(batch).await?;
            applied.map_err(|refused| PartError::Refused(refused.detail))?;
        }
    }

    /// A piece of this region's log for a region that completes an old primary's timeline, under the promised epoch.
    pub(super) async fn log_piece(&self, request: LogRequest) -> Result<Batch, PartError> {
        use longhaul_core::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
        let region = &self.region;
        let mut operations =
            region.store.log(request.timeline, request.after, BATCH_OPERATIONS_MAX, BATCH_BYTES_MAX).await?;
        operations.retain(|operation| operation.dot.seq <= request.up_to);
        let visible = region.position(request.timeline).visible;
        Ok(Batch { epoch: region.promised(), timeline: request.timeline, operations, visible })
    }
}

/// For tasks that need the role behind an `Arc`.
pub(super) type SharedRole = Arc<RegimeRole>;
