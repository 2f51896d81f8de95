//! Error codes: the contract between regions, gateways and users about what may be retried.

use serde::{Deserialize, Serialize};

/// What an error means for the operation that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The operation never entered the log: a definite failure.
    None,
    /// The operation may or may not take effect: an unknown outcome.
    Unknown,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $status:literal, $effect:ident, $retry:literal;)*) => {
        /// A stable error code. Its name on the wire never changes once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// The HTTP status that carries it.
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }

            /// Whether the operation may have taken effect.
            pub const fn effect(self) -> Effect { match self { $(Self::$name => Effect::$effect,)* } }

            /// Whether the same request may succeed if sent again (elsewhere or later) **and** sending it again is
            /// safe without an idempotency key.
            pub const fn is_retryable(self) -> bool { match self { $(Self::$name => $retry,)* } }

            /// Reads a code from the wire.
            pub fn parse(text: &str) -> Option<Self> { Self::ALL.iter().copied().find(|code| code.as_str() == text) }
        }
    };
}

codes! {
    /// The request is malformed.
    BadRequest = "bad_request", 400, None, false;
    /// The body is not JSON.
    BadJson = "bad_json", 400, None, false;
    /// The session token is not one of ours.
    BadToken = "bad_token", 400, None, false;
    /// The internal or control token is missing or wrong.
    Unauthorized = "unauthorized", 401, None, false;
    /// No such record.
    NotFound = "not_found", 404, None, false;
    /// The home is no region of this topology.
    UnknownHome = "unknown_home", 404, None, false;
    /// The named region, edge, link, drill or transition does not exist.
    UnknownName = "unknown_name", 404, None, false;
    /// The request contradicts the present state (for example a transition is under way).
    Conflict = "conflict", 409, None, false;
    /// The token names history that a failover removed.
    HistoryTruncated = "history_truncated", 410, None, false;
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed = "precondition_failed", 412, None, false;
    /// The value is larger than the limit.
    TooLarge = "too_large", 413, None, false;
    /// The record may be touched only in its home; the problem names the home.
    WrongHome = "wrong_home", 421, None, false;
    /// This region is not the primary; the problem names the primary.
    NotPrimary = "not_primary", 421, None, true;
    /// The idempotency key was used for another request.
    KeyReused = "key_reused", 422, None, false;
    /// The region has not caught up with the session token.
    NotCaughtUp = "not_caught_up", 425, None, true;
    /// A queue is full; nothing was accepted.
    Overloaded = "overloaded", 429, None, true;
    /// Writes are held while a planned transition moves them.
    Switching = "switching", 503, None, true;
    /// The primary has no lease (fenced); nothing was accepted.
    NoLease = "no_lease", 503, None, true;
    /// The region is starting or rejoining.
    NotReady = "not_ready", 503, None, true;
    /// The region is closing.
    ShuttingDown = "shutting_down", 503, None, true;
    /// The clock is out of bounds; nothing was stamped.
    ClockBehind = "clock_behind", 503, None, true;
    /// No region may serve this now (nothing was sent).
    NoRegion = "no_region", 503, None, true;
    /// The record's home is unreachable, and nobody else may serve it.
    HomeUnavailable = "home_unavailable", 503, None, true;
    /// The region's database cannot be used now; nothing was accepted.
    StoreUnavailable = "store_unavailable", 503, None, true;
    /// The store failed; the region stops.
    StoreFailed = "store_failed", 500, Unknown, false;
    /// The write is in the log, but its durability was not confirmed in time.
    AckTimeout = "ack_timeout", 504, Unknown, false;
    /// The write is in the log of a primary that lost its lease before the acknowledgement.
    FencedAfterAccept = "fenced_after_accept", 504, Unknown, false;
    /// The region did not answer in time; the request may have arrived.
    UpstreamTimeout = "upstream_timeout", 504, Unknown, false;
    /// The connection broke after the request was sent.
    UpstreamBroken = "upstream_broken", 502, Unknown, false;
    /// A defect in longhaul.
    Internal = "internal", 500, Unknown, false;
    /// A message of an older regime.
    StaleEpoch = "stale_epoch", 409, None, false;
    /// A transition was refused; the problem says which region and what is missing.
    TransitionRefused = "transition_refused", 409, None, false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_spelled_as_serde_spells_it() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{}\"", code.as_str()));
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn what_is_retryable_without_a_key_never_had_an_effect() {
        for code in ErrorCode::ALL.iter().filter(|code| code.is_retryable()) {
            assert_eq!(code.effect(), Effect::None, "{code:?}");
        }
    }
}
