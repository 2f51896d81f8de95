//! Places at which a test can have the process die, as if it had been killed there: SIGKILL, nothing is flushed, nobody
//! is told.
//!
//! They exist only with the feature `failpoints`, which no other crate of the program turns on. Without it [`reach`] is
//! empty, and the endpoint that arms a place does not exist. With it, nothing happens until a test arms a place of one
//! process, over `PUT /internal/v1/fail-point`; a process that starts again is unarmed.

use serde::Deserialize;

/// A place in the write path, in a batch's way, in a vote, in a failover or in a planned switchover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailPoint {
    /// Writes of users are staged; nothing of them is durable.
    BeforeCommit,
    /// In the middle of a transaction of the database: operations are logged, records and positions are not written. At
    /// a follower this is the middle of applying a batch.
    InsideCommit,
    /// Writes of users are durable; nobody has been told, and no follower has them.
    BeforeAnswer,
    /// Users have been told.
    AfterAnswer,
    /// A batch of a peer is durable; the peer has not been told.
    BeforeBatchAnswer,
    /// This voter has decided to promise a fence; nothing of it is durable.
    BeforePromise,
    /// The promise is durable; whoever asked has not been told.
    BeforePromiseAnswer,
    /// A failover of this region has fenced a majority.
    Fenced,
    /// It has chosen the primary and the cut; no voter has been asked to accept them.
    Chosen,
    /// The new regime is chosen; nobody has been told.
    Flipped,
    /// A regime is durable with its cuts; this region does not act on it yet.
    Adopted,
    /// A switchover of this region is announced; writes go on.
    SwitchAnnounced,
    /// It has drained its writes.
    SwitchDrained,
    /// The target has caught up.
    SwitchCaughtUp,
    /// The target is primary.
    SwitchFlipped,
}

#[cfg(not(feature = "failpoints"))]
mod switch {
    /// Nothing, without the feature `failpoints`.
    #[inline]
    pub(crate) const fn reach(_point: super::FailPoint) {}
}

#[cfg(feature = "failpoints")]
mod switch {
    use std::sync::{Mutex, PoisonError};

    use axum::Json;
    use http::StatusCode;
    use rustix::process::{Signal, getpid, kill_process};
    use serde::Deserialize;

    use super::FailPoint;

    /// The endpoint that arms a place.
    pub(crate) const FAIL_POINT_PATH: &str = "/internal/v1/fail-point";

    /// Where the process is to die.
    #[derive(Debug, Clone, Copy, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Armed {
        /// The place.
        point: FailPoint,
        /// How often it is passed unharmed before.
        #[serde(default)]
        passes: u32,
    }

    static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

    /// Arms a place, instead of any other.
    pub(crate) async fn arm(Json(armed): Json<Armed>) -> StatusCode {
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
        StatusCode::NO_CONTENT
    }

    /// Dies here if this place is armed.
    pub(crate) fn reach(point: FailPoint) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(armed) = armed.as_mut().filter(|armed| armed.point == point) else { return };
        if armed.passes > 0 {
            armed.passes -= 1;
            return;
        }
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal ends every thread; until it does, this one goes no further.
        loop {
            std::thread::park();
        }
    }
}

pub(crate) use switch::reach;
#[cfg(feature = "failpoints")]
pub(crate) use switch::{FAIL_POINT_PATH, arm};
