//! Control's API: the topology, the regime and its changes, regions and events, as people and scripts see them.

use std::collections::BTreeMap;

use longhaul_core::ids::RegionId;
use longhaul_core::link::LinkProfile;
use longhaul_core::regime::{ChangeKind, Durability, MemberState, Mode, Regime, Stage};
use longhaul_core::topology::{LocationKind, Topology};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::regime::ChangeStatus;
use super::status::{ConflictView, QuarantineView, RegionStatus};

/// `GET`: [`TopologyView`].
pub const TOPOLOGY_PATH: &str = "/v1/topology";
/// `GET`: [`RegimeView`]; `PUT`: [`RegimeChange`].
pub const CONTROL_REGIME_PATH: &str = "/v1/regime";
/// `GET`: the newest [`Regime`] that control has seen, for gateways that reach no region. Nobody is asked.
pub const KNOWN_REGIME_PATH: &str = "/internal/v1/regime";
/// `POST` [`FailoverCommand`]; `GET`: list of [`ChangeView`].
pub const CONTROL_FAILOVERS_PATH: &str = "/v1/failovers";
/// `GET`: list of [`RegionView`].
pub const REGIONS_PATH: &str = "/v1/regions";
/// `GET`: [`ConflictPage`].
pub const CONTROL_CONFLICTS_PATH: &str = "/v1/conflicts";
/// `GET`: server-sent [`Event`]s.
pub const EVENTS_PATH: &str = "/v1/events";

/// One location, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocationView {
    /// Its name.
    pub name: String,
    /// `region` or `edge`.
    pub kind: LocationKind,
    /// Its number (regions only).
    pub region: Option<u16>,
    /// The home of its users (edges only), by name.
    pub home: Option<String>,
}

/// One directed link as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeclaredLink {
    /// From which location.
    pub from: String,
    /// To which location.
    pub to: String,
    /// The profile; delays are one-way.
    pub profile: LinkProfile,
    /// Where the figure comes from.
    pub source: String,
}

/// The topology as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyView {
    /// Its name.
    pub name: String,
    /// Which set of regions a data folder of it belongs to.
    pub fingerprint: String,
    /// `embedded`, `containers` or `simulated`.
    pub world: String,
    /// Every location, regions first.
    pub locations: Vec<LocationView>,
    /// Every directed link.
    pub links: Vec<DeclaredLink>,
}

impl TopologyView {
    /// The view of a topology in a world.
    pub fn new(topology: &Topology, world: &str) -> Self {
        let name_of = |region: RegionId| topology.region_name(region).map(ToString::to_string);
        Self {
            name: topology.name.clone(),
            fingerprint: topology.fingerprint.clone(),
            world: world.to_owned(),
            locations: topology
                .locations
                .iter()
                .map(|location| LocationView {
                    name: location.name.to_string(),
                    kind: location.kind,
                    region: location.region.map(|region| region.0),
                    home: location.home.and_then(name_of),
                })
                .collect(),
            links: topology
                .links
                .iter()
                .map(|((from, to), link)| DeclaredLink {
                    from: from.to_string(),
                    to: to.to_string(),
                    profile: link.profile.clone(),
                    source: link.source.clone(),
                })
                .collect(),
        }
    }
}

/// One member of the regime, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// The incarnation under which it may write.
    pub incarnation: u32,
    /// Its standing.
    pub state: MemberState,
}

/// A change under way, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransitionView {
    /// Its identity (UUID).
    pub id: String,
    /// The region that drives it.
    pub coordinator: String,
    /// The mode afterwards.
    pub mode: Mode,
    /// The primary afterwards.
    pub primary: Option<String>,
    /// The durability afterwards.
    pub durability: Durability,
    /// How far it is.
    pub stage: Stage,
}

/// The regime, with names in the place of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegimeView {
    /// Grows with every change; the fencing token.
    pub epoch: u64,
    /// How regions replicate.
    pub mode: Mode,
    /// Who takes writes (active-passive only).
    pub primary: Option<String>,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// The followers whose acknowledgement `sync` needs.
    pub in_sync: Vec<String>,
    /// Every region.
    pub members: BTreeMap<String, MemberView>,
    /// The change under way, if any.
    pub transition: Option<TransitionView>,
    /// What brought this regime about.
    pub change: ChangeKind,
    /// Why, in one line.
    pub reason: String,
    /// The epoch that each region has adopted; absent if it does not answer.
    #[serde(default)]
    pub adopted: BTreeMap<String, u64>,
}

impl RegimeView {
    /// The view of a regime; numbers that the topology does not know stay numbers.
    pub fn new(regime: &Regime, topology: &Topology) -> Self {
        let name =
            |region: RegionId| topology.region_name(region).map_or_else(|| region.to_string(), ToString::to_string);
        Self {
            epoch: regime.epoch.0,
            mode: regime.mode,
            primary: regime.primary.map(name),
            durability: regime.durability,
            in_sync: regime.in_sync.iter().copied().map(name).collect(),
            members: regime
                .members
                .iter()
                .map(|(region, member)| {
                    (name(*region), MemberView { incarnation: member.incarnation.0, state: member.state })
                })
                .collect(),
            transition: regime.transition.as_ref().map(|transition| TransitionView {
                id: transition.id.to_string(),
                coordinator: name(transition.coordinator),
                mode: transition.target.mode,
                primary: transition.target.primary.map(name),
                durability: transition.target.durability,
                stage: transition.stage,
            }),
            change: regime.change.kind,
            reason: regime.change.reason.clone(),
            adopted: BTreeMap::new(),
        }
    }
}

/// Ask for another regime: a planned transition. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegimeChange {
    /// The mode afterwards.
    pub mode: Option<Mode>,
    /// The durability afterwards (active-passive only).
    pub durability: Option<Durability>,
    /// The primary afterwards, by name (active-passive only).
    pub primary: Option<String>,
    /// Go on where the change would be refused.
    pub force: bool,
}

/// Move the primary: by force (unplanned failover) or in order (planned switchover, failback).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverCommand {
    /// The new primary, by name; the best candidate if absent (needed when `planned`).
    pub to: Option<String>,
    /// Accept the loss of acknowledged writes (unplanned only).
    pub allow_data_loss: bool,
    /// A planned switchover: nothing is lost, no request fails.
    pub planned: bool,
}

/// A change, as the region that drove it tells it, with the times that follow from its milestones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The region's own record.
    #[serde(flatten)]
    pub status: ChangeStatus,
    /// First to last milestone, milliseconds; the servers' own word, not what clients saw.
    pub took_ms: Option<f64>,
    /// When each milestone was reached, milliseconds after the first.
    pub steps_ms: BTreeMap<String, f64>,
    /// Recovery time and point that clients saw, where a drill measured this change.
    #[serde(default)]
    pub measured: Option<MeasuredChange>,
    /// The address of its trace in Jaeger, if there is one.
    #[serde(default)]
    pub trace_url: Option<String>,
}

impl ChangeView {
    /// The view of a record.
    pub fn new(status: ChangeStatus) -> Self {
        let first = status.milestones.iter().map(|milestone| milestone.boot_ns).min();
        let after = |boot_ns: u64| first.map_or(0.0, |first| boot_ns.saturating_sub(first) as f64 / 1e6);
        let steps_ms: BTreeMap<String, f64> = status
            .milestones
            .iter()
            .rev()
            .map(|milestone| (milestone.name.clone(), after(milestone.boot_ns)))
            .collect();
        let took_ms = steps_ms.values().copied().reduce(f64::max);
        Self { status, took_ms, steps_ms, measured: None, trace_url: None }
    }
}

/// What clients saw of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredChange {
    /// The drill that measured it.
    pub drill: String,
    /// Recovery of writes at the worst edge, milliseconds; absent if they did not recover.
    pub rto_write_ms: Option<f64>,
    /// Acknowledged writes lost.
    pub rpo_writes: u64,
    /// The same in seconds.
    pub rpo_seconds: f64,
}

/// A region as control sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegionView {
    /// Its name.
    pub name: String,
    /// Whether its process runs.
    pub running: bool,
    /// What it says about itself; absent if it does not answer.
    pub status: Option<RegionStatus>,
    /// Why there is no status.
    pub trouble: Option<String>,
}

/// What one region put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DivergentView {
    /// The region.
    pub region: String,
    /// The operations, at most the limit that was asked for.
    pub operations: Vec<QuarantineView>,
}

/// Conflicts of every region that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictPage {
    /// Conflicts by region; the same conflict is kept by every region that saw it.
    pub regions: BTreeMap<String, Vec<ConflictView>>,
    /// Regions that did not answer, with the reason.
    pub unreachable: BTreeMap<String, String>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A fault was injected.
    Fault,
    /// A fault was healed.
    Heal,
    /// The regime changed.
    Regime,
    /// A region changed its role.
    Role,
    /// A region stopped or began to answer.
    Region,
    /// A drill moved on.
    Drill,
    /// Traffic started or stopped.
    Traffic,
}

impl EventKind {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Heal => "heal",
            Self::Regime => "regime",
            Self::Role => "role",
            Self::Region => "region",
            Self::Drill => "drill",
            Self::Traffic => "traffic",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number; grows by one.
    pub seq: u64,
    /// When, nanoseconds since boot of the host of control.
    pub boot_ns: u64,
    /// What kind.
    pub kind: EventKind,
    /// Where, if it has a place.
    pub location: Option<String>,
    /// One line for people.
    pub text: String,
}
