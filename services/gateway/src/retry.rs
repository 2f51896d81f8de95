//! Retries: what to do after an attempt, how long to wait before the next, and how many the gateway can afford.
//!
//! The rule behind the table: a code that says "nothing was accepted" may be followed by another attempt anywhere; an
//! unknown outcome of a write may be followed only by the same operation on the same line of history, where its id is
//! remembered.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::leaves_for_isolation;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::routing::Access;

use crate::config::Retries;

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Give this answer to the user.
    Answer,
    /// Ask the next candidate at once.
    Elsewhere,
    /// Ask again after a pause.
    Again,
    /// Wait for a newer regime (or a pause), then route anew. It is not counted against the budget: the region asked
    /// for it.
    Hold,
}

/// What to do after an answer with this code. `newer`: the answer came from a newer regime than the one that it was
/// routed by.
pub fn next(access: Access, code: ErrorCode, newer: bool) -> Next {
    match code {
        ErrorCode::Switching | ErrorCode::NoLease | ErrorCode::NotPrimary => Next::Hold,
        // Final under the present rules, but the request was routed by old ones.
        ErrorCode::WrongHome | ErrorCode::HomeUnavailable if newer => Next::Hold,
        ErrorCode::NotCaughtUp
        | ErrorCode::Overloaded
        | ErrorCode::NotReady
        | ErrorCode::ShuttingDown
        | ErrorCode::StoreUnavailable
        | ErrorCode::ClockBehind
        | ErrorCode::NoRegion => Next::Elsewhere,
        ErrorCode::UpstreamTimeout
        | ErrorCode::UpstreamBroken
        | ErrorCode::AckTimeout
        | ErrorCode::FencedAfterAccept
        | ErrorCode::StoreFailed => {
            if access.is_write() {
                Next::Again
            } else {
                Next::Elsewhere
            }
        }
        ErrorCode::Internal if !access.is_write() => Next::Elsewhere,
        ErrorCode::BadRequest
        | ErrorCode::BadJson
        | ErrorCode::BadToken
        | ErrorCode::Unauthorized
        | ErrorCode::NotFound
        | ErrorCode::UnknownHome
        | ErrorCode::UnknownName
        | ErrorCode::Conflict
        | ErrorCode::HistoryTruncated
        | ErrorCode::PreconditionFailed
        | ErrorCode::TooLarge
        | ErrorCode::WrongHome
        | ErrorCode::HomeUnavailable
        | ErrorCode::KeyReused
        | ErrorCode::Internal
        | ErrorCode::StaleEpoch
        | ErrorCode::TransitionRefused => Next::Answer,
    }
}

/// Whether a definite refusal of a later attempt proves that an earlier one of unknown outcome had no effect either:
/// only what is wrong with the request itself does. Anything that depends on the state of a region does not, because
/// the earlier attempt may have been accepted by another one, or may still be on its way.
pub const fn refutes_earlier(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::BadRequest
            | ErrorCode::BadJson
            | ErrorCode::BadToken
            | ErrorCode::Unauthorized
            | ErrorCode::UnknownHome
            | ErrorCode::TooLarge
    )
}

/// An attempt to write whose outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where.
    pub region: RegionId,
    /// The mode that it was routed by.
    pub mode: Mode,
    /// `upstream_timeout`, `upstream_broken`, or what the region said.
    pub code: ErrorCode,
    /// One line for people.
    pub detail: String,
}

impl Unknown {
    /// Whether the same operation may now be sent to `region`.
    ///
    /// The region itself remembers operation ids. So does every later primary of `active-passive`, because they
    /// replicate with the writes; a write that was lost with the old primary's tail simply happens again. Anywhere else
    /// it would be a second write of the same operation, which may bury a newer value.
    pub fn may_follow(&self, region: RegionId, regime: &Regime) -> bool {
        let one_primary = self.mode == Mode::ActivePassive && regime.mode == Mode::ActivePassive;
        let one_line = one_primary && !leaves_for_isolation(regime);
        region == self.region || one_line && regime.primary == Some(region)
    }
}

/// Exponential backoff with full jitter.
///
/// Source: Brooker, "Exponential Backoff And Jitter", 2015.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    ceiling: Duration,
    most: Duration,
}

impl Backoff {
    /// The first pause is at most `first`, every later one at most twice the one before, and at most `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { ceiling: first, most }
    }

    /// The next pause; `random` is a fresh random number.
    pub fn pause(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling.min(self.most);
        self.ceiling = ceiling * 2;
        let nanos = ceiling.as_nanos() as u64;
        // At least a tenth: a pause of nothing is no pause.
        Duration::from_nanos(nanos / 10 + random % (nanos - nanos / 10).max(1))
    }
}

/// The retry budget: a token bucket that requests fill and retries empty, so that an outage is not made worse by
/// everybody asking twice.
#[derive(Debug)]
pub struct Budget {
    rates: Retries,
    tokens: Mutex<f64>,
}

impl Budget {
    /// A full budget.
    pub const fn new(rates: Retries) -> Self {
        Self { rates, tokens: Mutex::new(rates.burst) }
    }

    /// A request arrived.
    pub fn deposit(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + self.rates.per_request).min(self.rates.burst);
    }

    /// Asks for a retry.
    pub fn withdraw(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let affordable = *tokens >= 1.0;
        if affordable {
            *tokens -= 1.0;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::error_code::Effect;
    use longhaul_core::regime::Durability;
    use longhaul_core::routing::Consistency;

    use super::*;

    const READ: Access = Access::Read(Consistency::Eventual);

    #[test]
    fn a_write_of_unknown_outcome_is_never_sent_elsewhere_by_its_code_alone() {
        for code in ErrorCode::ALL.iter().filter(|code| code.effect() == Effect::Unknown) {
            assert!(matches!(next(Access::Write, *code, false), Next::Again | Next::Answer), "{code:?}");
        }
    }

    #[test]
    fn only_what_the_code_calls_retryable_is_retried_after_a_definite_refusal() {
        for code in ErrorCode::ALL.iter().filter(|code| code.effect() == Effect::None) {
            for access in [Access::Write, READ] {
                let retried = next(access, *code, false) != Next::Answer;
                let expected = code.is_retryable() && *code != ErrorCode::HomeUnavailable;
                assert_eq!(retried, expected, "{code:?}");
            }
        }
    }

    #[test]
    fn a_border_met_by_an_old_view_is_looked_at_again() {
        assert_eq!(next(READ, ErrorCode::WrongHome, true), Next::Hold);
        assert_eq!(next(READ, ErrorCode::WrongHome, false), Next::Answer);
    }

    #[test]
    fn what_refutes_an_earlier_attempt_never_depends_on_a_regions_state() {
        for code in ErrorCode::ALL.iter().filter(|code| refutes_earlier(**code)) {
            assert!(code.effect() == Effect::None && !code.is_retryable(), "{code:?}");
        }
        for code in [ErrorCode::PreconditionFailed, ErrorCode::NotFound, ErrorCode::Switching, ErrorCode::WrongHome] {
            assert!(!refutes_earlier(code), "{code:?}");
        }
    }

    #[test]
    fn an_unknown_write_follows_the_primary_line_and_no_other() {
        let regime = |mode, primary: Option<u16>| {
            Regime::genesis((1..=3).map(RegionId), mode, primary.map(RegionId), Durability::Local)
        };
        let unknown =
            |mode| Unknown { region: RegionId(1), mode, code: ErrorCode::UpstreamBroken, detail: String::new() };
        let (ap, aa) = (Mode::ActivePassive, Mode::ActiveActive);
        let rows = [
            (ap, regime(ap, Some(1)), 1, true),
            (ap, regime(ap, Some(2)), 2, true),
            (ap, regime(ap, Some(2)), 3, false),
            (aa, regime(aa, None), 1, true),
            (aa, regime(aa, None), 2, false),
            (ap, regime(aa, None), 2, false),
            (aa, regime(ap, Some(2)), 2, false),
        ];
        for (before, now, region, allowed) in rows {
            let mode = now.mode;
            assert_eq!(unknown(before).may_follow(RegionId(region), &now), allowed, "{before} then {mode}, {region}");
        }
    }

    #[test]
    fn pauses_grow_up_to_the_limit_and_are_never_nothing() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
        let longest: Vec<_> = (0..5).map(|_| backoff.pause(17_999_999).as_millis()).collect();
        assert_eq!(longest, [19, 21, 25, 27, 27]);
        let mut ceilings = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
        for ms in [20, 40, 80, 100, 100] {
            let pause = ceilings.pause(u64::MAX);
            assert!(pause >= Duration::from_millis(ms) / 10 && pause <= Duration::from_millis(ms), "{pause:?}");
        }
    }

    #[test]
    fn the_budget_is_paid_by_requests() {
        let budget = Budget::new(Retries { burst: 1.0, per_request: 0.2 });
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        for _ in 0..6 {
            budget.deposit();
        }
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }
}
