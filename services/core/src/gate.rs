//! Gates: may this region take this request under this regime, and may it still acknowledge it?

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::ids::RegionId;
use crate::mutants::{Rule, is_broken};
use crate::regime::{Mode, Regime, Stage};

/// How fresh a read has to be.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Whatever the region has.
    #[default]
    Eventual,
    /// At least what the session token names.
    Session,
    /// What the primary has (active-passive). Elsewhere no region has more to say than the one that is asked.
    Primary,
}

impl Consistency {
    /// The name in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::Primary => "primary",
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Consistency {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Eventual, Self::Session, Self::Primary]
            .into_iter()
            .find(|consistency| consistency.as_str() == text)
            .ok_or_else(|| format!("consistency {text:?} is not one of eventual, session, primary"))
    }
}

/// Why a region does not take a request. Nothing was accepted: all of these are definite failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum GateRefusal {
    /// The home is no region of this topology.
    #[error("home {home} is no region of this topology")]
    UnknownHome {
        /// The named home.
        home: RegionId,
    },
    /// Only the record's home may touch it now.
    #[error("only the record's home, region {home}, may serve it now; ask there")]
    WrongHome {
        /// Who may.
        home: RegionId,
    },
    /// Another region is the primary.
    #[error("this region is not the primary; ask region {primary}")]
    NotPrimary {
        /// Who is.
        primary: RegionId,
    },
    /// A planned transition holds writes for a moment.
    #[error("writes are held while a planned transition moves them; try again shortly")]
    Switching {
        /// Who will take them, if that is known.
        next: Option<RegionId>,
    },
    /// The primary has no lease.
    #[error("the primary has no lease; try again, or fail over")]
    NoLease,
    /// The region starts, rejoins or was left out.
    #[error("the region is starting or rejoining; ask another one")]
    NotReady,
}

impl GateRefusal {
    /// The code on the wire.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::UnknownHome { .. } => ErrorCode::UnknownHome,
            Self::WrongHome { .. } => ErrorCode::WrongHome,
            Self::NotPrimary { .. } => ErrorCode::NotPrimary,
            Self::Switching { .. } => ErrorCode::Switching,
            Self::NoLease => ErrorCode::NoLease,
            Self::NotReady => ErrorCode::NotReady,
        }
    }

    /// The region to ask instead (home, or primary now or soon).
    pub const fn hint(self) -> Option<RegionId> {
        match self {
            Self::WrongHome { home } => Some(home),
            Self::NotPrimary { primary } => Some(primary),
            Self::Switching { next } => next,
            Self::UnknownHome { .. } | Self::NoLease | Self::NotReady => None,
        }
    }
}

/// Whether region `me` may accept a write of a record with this home. `ready`: it has started, knows that its epoch is
/// current and has applied every sealed timeline to its cut.
pub fn write_gate(
    regime: &Regime,
    me: RegionId,
    home: RegionId,
    lease_valid: bool,
    ready: bool,
) -> Result<(), GateRefusal> {
    if !regime.members.contains_key(&home) {
        return Err(GateRefusal::UnknownHome { home });
    }
    if regime.frozen_homes.contains(&home) && home != me {
        return Err(GateRefusal::WrongHome { home });
    }
    let stage = regime.transition.as_ref().map(|transition| transition.stage);
    let next = regime.transition.as_ref().and_then(|transition| transition.target.primary);
    match regime.mode {
        Mode::ActivePassive => {
            let primary = regime.primary.ok_or(GateRefusal::NotReady)?;
            if primary != me {
                return Err(GateRefusal::NotPrimary { primary });
            }
            match stage {
                Some(Stage::Draining) => return Err(GateRefusal::Switching { next }),
                Some(Stage::HomeOnly) if home != me => {
                    return Err(GateRefusal::Switching { next: Some(home) });
                }
                _ => {}
            }
            standing(regime, me, ready)?;
            match stage {
                _ if lease_valid => Ok(()),
                // The lease is given back with the proposal that ends this stage; its answer is a vote away.
                Some(Stage::HomeOnly) => Err(GateRefusal::Switching { next: Some(home) }),
                _ => Err(GateRefusal::NoLease),
            }
        }
        Mode::ActiveActive => {
            match (stage, next) {
                (Some(Stage::HomeOnly), _) if home != me => {
                    return Err(GateRefusal::WrongHome { home });
                }
                (Some(Stage::Draining), Some(primary)) if primary != me => {
                    return Err(GateRefusal::NotPrimary { primary });
                }
                _ => {}
            }
            standing(regime, me, ready)
        }
        Mode::RegionalIsolation => {
            if home != me {
                return Err(GateRefusal::WrongHome { home });
            }
            if stage == Some(Stage::Draining) && next != Some(me) {
                return Err(GateRefusal::Switching { next });
            }
            standing(regime, me, ready)
        }
    }
}

/// Whether region `me` may serve a read of a record with this home. A `primary` read in active-passive is answered only
/// if [`still_acknowledges`] holds **after** the value was read.
pub fn read_gate(regime: &Regime, me: RegionId, home: RegionId, consistency: Consistency) -> Result<(), GateRefusal> {
    if !regime.members.contains_key(&home) {
        return Err(GateRefusal::UnknownHome { home });
    }
    match regime.mode {
        _ if regime.frozen_homes.contains(&home) && home != me => {
            return Err(GateRefusal::WrongHome { home });
        }
        Mode::RegionalIsolation if home != me => return Err(GateRefusal::WrongHome { home }),
        // Also while a transition leaves for isolation: the primary answers under its lease, which it gives up for the flip.
        Mode::ActivePassive if consistency == Consistency::Primary => {
            let primary = regime.primary.ok_or(GateRefusal::NotReady)?;
            if primary != me {
                return Err(GateRefusal::NotPrimary { primary });
            }
        }
        // On the way to isolation the borders close for reads before the mode changes: a region that hears late of the
        // flip serves nothing foreign after it.
        _ if leaves_for_isolation(regime) && home != me => return Err(GateRefusal::WrongHome { home }),
        _ => {}
    }
    standing(regime, me, true)
}

/// Whether a transition to isolation has closed the borders already.
pub fn leaves_for_isolation(regime: &Regime) -> bool {
    regime.transition.as_ref().is_some_and(|transition| transition.stage == Stage::HomeOnly)
}

fn standing(regime: &Regime, me: RegionId, ready: bool) -> Result<(), GateRefusal> {
    if ready && regime.is_active(me) { Ok(()) } else { Err(GateRefusal::NotReady) }
}

/// Whether a write that was accepted under one regime may be acknowledged under the present one. To be asked at the
/// acknowledgement, with the lease as it is then: a pause between commit and acknowledgement may outlast the lease.
///
/// The region's timeline must be the same one: a new incarnation says that the old timeline was sealed, so whether the
/// write belongs to history is not known here. In active-passive the region must be the primary now and hold its lease.
pub fn still_acknowledges(at_accept: &Regime, now: &Regime, me: RegionId, lease_valid: bool) -> bool {
    if is_broken(Rule::FenceAtAcknowledgement) {
        return true;
    }
    if now.epoch < at_accept.epoch || at_accept.timeline_of(me) != now.timeline_of(me) {
        return false;
    }
    match now.mode {
        Mode::ActivePassive => now.is_primary(me) && lease_valid,
        Mode::ActiveActive | Mode::RegionalIsolation => now.is_active(me),
    }
}

/// Whether operations may travel between regions: always, except in isolation before homes are merged again.
pub fn may_replicate(regime: &Regime) -> bool {
    let stage = regime.transition.as_ref().map(|transition| transition.stage);
    regime.mode != Mode::RegionalIsolation || matches!(stage, Some(Stage::Merging | Stage::Draining))
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
