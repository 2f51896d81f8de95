//! What regions say to each other about the regime, besides the votes themselves.

use std::collections::BTreeSet;

use longhaul_core::failover::Fenced;
use longhaul_core::ids::{Dot, Epoch, RegionId, Timeline};
use longhaul_core::operation::Chain;
use longhaul_core::regime::Regime;
use longhaul_core::transition::{Barrier, GateScope, Seen};
use longhaul_core::vector::VersionVector;
use longhaul_core::voter::VoterState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `POST` of `VoterRequest`, answers `VoterReply`.
pub(super) const VOTE_PATH: &str = "/internal/v1/vote";
/// `GET`, or `POST` of an [`Introduction`]: [`VoterStateView`].
pub(super) const VOTER_STATE_PATH: &str = "/internal/v1/voter";
/// `PUT` of a chosen [`Regime`].
pub(super) const ADOPT_PATH: &str = "/internal/v1/regime";
/// `GET`: [`Fenced`], read after the promise is durable.
pub(super) const POSITION_PATH: &str = "/internal/v1/position";
/// `POST` of a [`ChainRequest`], answers [`ChainAnswer`].
pub(super) const CHAIN_PATH: &str = "/internal/v1/chain";
/// `POST` of a [`TopUpRequest`].
pub(super) const TOP_UP_PATH: &str = "/internal/v1/top-up";
/// `POST` of a [`LogRequest`], answers a `Batch` in postcard.
pub(super) const LOG_PATH: &str = "/internal/v1/log";
/// `GET`: [`SeenView`].
pub(super) const SEEN_PATH: &str = "/internal/v1/transition/seen";
/// `POST` of a [`CloseRequest`], answers [`SeenView`].
pub(super) const CLOSE_PATH: &str = "/internal/v1/transition/close";
/// `POST` of an [`AwaitRequest`], answers [`SeenView`].
pub(super) const AWAIT_PATH: &str = "/internal/v1/transition/await";
/// `POST` of a [`MergeRequest`], answers [`SeenView`].
pub(super) const MERGE_PATH: &str = "/internal/v1/transition/merge";
/// `POST` of conflicts about the receiver's records, in postcard, before the sender erases them.
pub(super) const CONFLICTS_PATH: &str = "/internal/v1/transition/conflicts";
/// `GET .../{home}`: `HomeCopy`.
pub(super) const COPY_PATH: &str = "/internal/v1/transition/copy/{home}";

/// A region without a memory of its votes says who it is. Whoever answers remembers it first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub region: RegionId,
    /// Of its store: another one if it loses that.
    pub life: Uuid,
}

/// What a peer knows of votes, and of the region that asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct VoterStateView {
    /// The peer's own vote; none while it has no memory.
    pub state: Option<VoterState>,
    /// Whether the region that asks has introduced itself before with another store.
    pub lived_before: bool,
}

/// What a fenced region has.
pub(super) type PositionAnswer = Fenced;

/// Asks for the rolling hash at a dot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ChainRequest {
    pub dot: Dot,
}

/// The rolling hash; none if the log does not hold the dot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ChainAnswer {
    pub chain: Option<Chain>,
}

/// Asks a chosen candidate to complete a timeline from another fenced region.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct TopUpRequest {
    /// Who has it.
    pub from: RegionId,
    /// The old primary's timeline.
    pub timeline: Timeline,
    /// How far.
    pub up_to: u64,
}

/// Asks for a piece of a log.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct LogRequest {
    pub timeline: Timeline,
    pub after: u64,
    pub up_to: u64,
}

/// A region as a transition's coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenView {
    pub epoch: Epoch,
    pub applied: VersionVector,
    pub max_time_ns: u64,
    pub lag_ms: u64,
    pub lag_operations: u64,
    pub quarantined: u64,
    #[serde(default)]
    pub quarantined_for_others: u64,
    pub barrier: Option<Barrier>,
    pub merged_generation: u32,
    pub purged_generation: u32,
}

impl From<SeenView> for Seen {
    fn from(view: SeenView) -> Self {
        Self {
            applied: view.applied,
            max_time_ns: view.max_time_ns,
            lag_ms: view.lag_ms,
            lag_operations: view.lag_operations,
            quarantined: view.quarantined,
            quarantined_for_others: view.quarantined_for_others,
            barrier: view.barrier,
            merged_generation: view.merged_generation,
            purged_generation: view.purged_generation,
        }
    }
}

/// Asks a region to close its gate and write a barrier. Carries the regime, so that one message is enough.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CloseRequest {
    pub regime: Regime,
    pub scope: GateScope,
}

/// Asks a region to wait until it has applied this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AwaitRequest {
    pub vector: VersionVector,
    pub wait_ms: u64,
}

/// Asks a region to merge the records of these homes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MergeRequest {
    pub regime: Regime,
    pub homes: BTreeSet<RegionId>,
    pub generation: u32,
    pub wait_ms: u64,
}
