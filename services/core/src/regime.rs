//! The regime: what all regions agree on. One value in a majority compare-and-set register; epochs only grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Epoch, Incarnation, RegionId, Timeline};
use crate::mutants::{Rule, is_broken};
use crate::operation::TraceContext;
use crate::vector::VersionVector;

/// How regions replicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One primary takes writes, the others follow.
    ActivePassive,
    /// Every region takes writes, the last writer wins by version.
    ActiveActive,
    /// A record is written, read and stored only in its home.
    RegionalIsolation,
}

impl Mode {
    /// The name in texts and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActivePassive => "active-passive",
            Self::ActiveActive => "active-active",
            Self::RegionalIsolation => "regional-isolation",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::ActivePassive, Self::ActiveActive, Self::RegionalIsolation]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("mode {text:?} is not one of active-passive, active-active, regional-isolation"))
    }
}

/// When the primary acknowledges a write and makes it visible.
///
/// In text: `local`, `semi(K)`, `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Durability {
    /// Once it is durable at the primary.
    Local,
    /// Once it is durable at the primary and at `k` followers.
    Semi(u8),
    /// Once it is durable at every member of the in-sync set.
    Sync,
}

impl utoipa::PartialSchema for Durability {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

impl utoipa::ToSchema for Durability {}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.pad("local"),
            Self::Semi(k) => f.pad(&format!("semi({k})")),
            Self::Sync => f.pad("sync"),
        }
    }
}

impl FromStr for Durability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let semi = || text.strip_prefix("semi(")?.strip_suffix(')')?.parse::<u8>().ok().filter(|k| *k > 0);
        match text {
            "local" => Ok(Self::Local),
            "sync" => Ok(Self::Sync),
            _ => semi()
                .map(Self::Semi)
                .ok_or_else(|| format!("durability {text:?} is not one of local, semi(K) with K >= 1, sync")),
        }
    }
}

impl TryFrom<String> for Durability {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Durability> for String {
    fn from(durability: Durability) -> Self {
        durability.to_string()
    }
}

/// A region's standing in the regime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Full member: follows, and writes where the mode lets it.
    Active,
    /// Follows, but may not write or count as a candidate until it has caught up.
    Joining,
    /// Left out: its timelines are sealed; it must wipe, quarantine its tail and rejoin under a new incarnation.
    Evicted,
}

/// One region in the regime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The incarnation under which it may write.
    pub incarnation: Incarnation,
    /// Its standing.
    pub state: MemberState,
}

/// What a transition leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The mode afterwards.
    pub mode: Mode,
    /// The primary afterwards (active-passive only).
    pub primary: Option<RegionId>,
    /// The durability afterwards (active-passive only; otherwise `Local`).
    pub durability: Durability,
}

/// How far a transition has come; regions gate requests by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Announced: everything goes on as before while replicas converge.
    Announced,
    /// Every region takes only writes of records whose home it is (on the way to isolation).
    HomeOnly,
    /// Writers that will not write afterwards have closed their gates (on the way to one primary).
    Draining,
    /// Homes exchange their sets again (on the way out of isolation); requests still follow isolation.
    Merging,
}

/// A change under way between two stable regimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Its identity, in events and traces.
    pub id: Uuid,
    /// The region that drives it.
    pub coordinator: RegionId,
    /// Where it leads.
    pub target: Target,
    /// How far it is.
    pub stage: Stage,
    /// Each region rolls it back by itself this long after it learned of it, in milliseconds.
    pub deadline_ms: u64,
}

/// Why a regime came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The first regime of a testbed.
    Genesis,
    /// A transition began or moved to its next stage.
    TransitionStep,
    /// A planned transition (switchover, mode or durability switch) was completed.
    TransitionDone,
    /// A transition was rolled back.
    TransitionAborted,
    /// Unplanned failover, by suspicion or command.
    Failover,
    /// A member joined, left or got a new incarnation.
    Membership,
    /// The in-sync set changed.
    InSync,
}

/// The record of why a regime came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The failover or transition that it belongs to.
    pub id: Uuid,
    /// The region that proposed it (0: control).
    pub by: RegionId,
    /// One line for people.
    pub reason: String,
    /// The trace of the change.
    pub trace: Option<TraceContext>,
}

/// What all regions agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regime {
    /// Grows with every change; the fencing token.
    pub epoch: Epoch,
    /// How regions replicate.
    pub mode: Mode,
    /// Who takes writes (active-passive only).
    pub primary: Option<RegionId>,
    /// When a write is acknowledged (active-passive only; otherwise `Local`).
    pub durability: Durability,
    /// The followers whose acknowledgement `sync` needs.
    pub in_sync: BTreeSet<RegionId>,
    /// Every region of the topology.
    pub members: BTreeMap<RegionId, Member>,
    /// Sealed timelines: the last sequence number that belongs to history. What lies beyond is quarantined.
    pub cuts: VersionVector,
    /// No region stamps at or below this physical time, nanoseconds since the Unix epoch.
    pub hlc_floor_ns: u64,
    /// Grows when replicas are purged (isolation): vectors from before then mean nothing.
    pub dataset_generation: u32,
    /// Homes whose records are known only to a region that is away (it was left behind when isolation began or ended):
    /// nobody else serves, writes or purges them until it is back.
    #[serde(default)]
    pub frozen_homes: BTreeSet<RegionId>,
    /// The change under way, if any.
    pub transition: Option<Transition>,
    /// Why this regime came to be.
    pub change: Change,
}

impl Regime {
    /// The first regime: epoch 1, every region active in incarnation 1. It is a function of the configuration, so that
    /// all regions start from the same value without a vote.
    pub fn genesis(
        regions: impl IntoIterator<Item = RegionId>,
        mode: Mode,
        primary: Option<RegionId>,
        durability: Durability,
    ) -> Self {
        let members: BTreeMap<_, _> = regions
            .into_iter()
            .map(|region| (region, Member { incarnation: Incarnation(1), state: MemberState::Active }))
            .collect();
        let primary = match mode {
            Mode::ActivePassive => primary.or_else(|| members.keys().next().copied()),
            Mode::ActiveActive | Mode::RegionalIsolation => None,
        };
        let durability = if mode == Mode::ActivePassive { durability } else { Durability::Local };
        let in_sync = if durability == Durability::Sync {
            members.keys().copied().filter(|region| Some(*region) != primary).collect()
        } else {
            BTreeSet::new()
        };
        Self {
            epoch: Epoch(1),
            mode,
            primary,
            durability,
            in_sync,
            members,
            cuts: VersionVector::default(),
            hlc_floor_ns: 0,
            dataset_generation: 1,
            frozen_homes: BTreeSet::new(),
            transition: None,
            change: Change {
                kind: ChangeKind::Genesis,
                id: Uuid::nil(),
                by: RegionId(0),
                reason: "the testbed was created".to_owned(),
                trace: None,
            },
        }
    }

    /// The timeline under which a region writes now.
    pub fn timeline_of(&self, region: RegionId) -> Option<Timeline> {
        self.members.get(&region).map(|member| Timeline { region, incarnation: member.incarnation })
    }

    /// How many voters make a majority.
    pub fn majority(&self) -> usize {
        majority_of(self.members.len())
    }

    /// How many voters it takes to have one of every majority among them.
    pub fn meets_every_majority(&self) -> usize {
        self.members.len() - self.members.len() / 2
    }

    /// Whether this region is the one that takes writes in active-passive.
    pub fn is_primary(&self, region: RegionId) -> bool {
        self.mode == Mode::ActivePassive && self.primary == Some(region)
    }

    /// Whether this region is a full member.
    pub fn is_active(&self, region: RegionId) -> bool {
        self.members.get(&region).is_some_and(|member| member.state == MemberState::Active)
    }

    /// Every member that is not left out.
    pub fn participants(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.members.iter().filter(|(_, member)| member.state != MemberState::Evicted).map(|(region, _)| *region)
    }

    /// Every participant but the primary.
    pub fn followers(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.participants().filter(|region| Some(*region) != self.primary)
    }

    /// Active-passive has an active member as primary; the other modes have none.
    pub fn primary_fits_mode(&self) -> bool {
        match (self.mode, self.primary) {
            (Mode::ActivePassive, Some(primary)) => self.is_active(primary),
            (Mode::ActiveActive | Mode::RegionalIsolation, None) => true,
            _ => false,
        }
    }
}

/// How many of so many voters make a majority: any two majorities have a voter in common.
pub(crate) fn majority_of(voters: usize) -> usize {
    let majority = voters / 2 + 1;
    if is_broken(Rule::Majority) { (majority - 1).max(1) } else { majority }
}
