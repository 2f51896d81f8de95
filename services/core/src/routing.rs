//! Routing: which regions may serve a request, and in which order to ask them.
//!
//! Two rules hold whatever the network does, and are tested as properties: a write of `active-passive` goes to the
//! primary and nowhere else, and under `regional-isolation` nothing leaves a record's home or enters it from another
//! jurisdiction's edge.

use std::collections::BTreeMap;

use crate::error_code::ErrorCode;
pub use crate::gate::Consistency;
use crate::gate::leaves_for_isolation;
use crate::ids::RegionId;
use crate::regime::{MemberState, Mode, Regime, Stage};

/// What a request wants to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Read it.
    Read(Consistency),
    /// Set or delete it.
    Write,
}

impl Access {
    /// Whether it changes the record.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write)
    }
}

/// What an edge knows about a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Whether it answers.
    pub healthy: bool,
    /// Round trip as measured (before the first measurement: as declared), microseconds.
    pub latency_us: u64,
}

/// Why no region may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// `unknown_home`, `wrong_home`, `home_unavailable` or `no_region`.
    pub code: ErrorCode,
    /// The one region that would have to serve, if the rules name one.
    pub region: Option<RegionId>,
}

/// Who may accept writes of a record at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// This region and no other.
    One(RegionId),
    /// Any active member.
    Any,
    /// Nobody: `active-passive` without a primary.
    Nobody,
}

/// Whether records must stay in their homes: in `regional-isolation`, and on the way out of it until the flip.
pub fn is_isolated(regime: &Regime) -> bool {
    regime.mode == Mode::RegionalIsolation
}

/// Who may accept writes of records of `home`. It names the region whose [`crate::gate::write_gate`] lets the write
/// through, or that will be the one to say how long it is held.
pub fn writer(regime: &Regime, home: RegionId) -> Writer {
    match regime.mode {
        Mode::ActivePassive => regime.primary.map_or(Writer::Nobody, Writer::One),
        Mode::RegionalIsolation => Writer::One(home),
        Mode::ActiveActive => match regime.transition.as_ref() {
            Some(transition) if transition.stage == Stage::HomeOnly => Writer::One(home),
            // The others have closed their gates; the primary-to-be writes throughout.
            Some(transition) if transition.stage == Stage::Draining => {
                transition.target.primary.map_or(Writer::Any, Writer::One)
            }
            _ => Writer::Any,
        },
    }
}

/// The regions that may serve, best first; never empty.
///
/// `edge_home` is the jurisdiction of the edge's users, `home` that of the record, `regions` what the edge knows about
/// each region. Regions that are unhealthy, unknown to the edge or not active members are never named.
pub fn candidates(
    regime: &Regime,
    edge_home: RegionId,
    access: Access,
    home: RegionId,
    regions: &BTreeMap<RegionId, Reach>,
) -> Result<Vec<RegionId>, Refusal> {
    if !regime.members.contains_key(&home) {
        return Err(Refusal { code: ErrorCode::UnknownHome, region: None });
    }
    let serves = |region: RegionId| {
        let active = regime.members.get(&region).is_some_and(|member| member.state == MemberState::Active);
        active && regions.get(&region).is_some_and(|reach| reach.healthy)
    };
    let home_alone = || {
        let unavailable = Refusal { code: ErrorCode::HomeUnavailable, region: Some(home) };
        if serves(home) { Ok(vec![home]) } else { Err(unavailable) }
    };
    if is_isolated(regime) {
        if home != edge_home {
            return Err(Refusal { code: ErrorCode::WrongHome, region: Some(home) });
        }
        return home_alone();
    }
    let writer = writer(regime, home);
    let to_writer = match access {
        Access::Write | Access::Read(Consistency::Primary) => true,
        Access::Read(Consistency::Eventual | Consistency::Session) => false,
    };
    match (to_writer, writer) {
        (true, Writer::One(region)) if serves(region) => return Ok(vec![region]),
        (true, Writer::One(region)) => return Err(Refusal { code: ErrorCode::NoRegion, region: Some(region) }),
        (true, Writer::Nobody) => return Err(Refusal { code: ErrorCode::NoRegion, region: None }),
        // The borders close for reads before the mode changes; see `read_gate`.
        (false, _) if leaves_for_isolation(regime) => return home_alone(),
        (true, Writer::Any) | (false, _) => {}
    }
    let mut nearest: Vec<_> = regions.iter().filter(|(region, _)| serves(**region)).collect();
    nearest.sort_by_key(|(region, reach)| (reach.latency_us, **region));
    let mut order: Vec<_> = nearest.into_iter().map(|(region, _)| *region).collect();
    // A session that the nearest region has not caught up with is served by the writer, which has.
    if let (Access::Read(Consistency::Session), Writer::One(region)) = (access, writer)
        && let Some(position) = order.iter().position(|other| *other == region)
        && position > 1
    {
        order[1..=position].rotate_right(1);
    }
    if order.is_empty() { Err(Refusal { code: ErrorCode::NoRegion, region: None }) } else { Ok(order) }
}

#[cfg(test)]
mod tests;
