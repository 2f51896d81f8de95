//! The event log: what happened, in order, with the host's boot clock, for people who follow along.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use longhaul_core::limits;
use longhaul_http::clock::SharedClock;
use longhaul_http::wire::control::{Event, EventKind};
use tokio::sync::broadcast;

/// The log. It keeps the last [`limits::EVENTS_KEPT_MAX`] events; a follower that falls further behind than
/// [`limits::EVENT_STREAM_MAX`] misses some, and the numbers show which.
pub(crate) struct EventLog {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Event>,
    clock: SharedClock,
}

#[derive(Default)]
struct Kept {
    last: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// An empty log.
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { kept: Mutex::default(), followers: broadcast::Sender::new(limits::EVENT_STREAM_MAX), clock }
    }

    /// Records that something happened now.
    pub(crate) fn record(&self, kind: EventKind, location: Option<&str>, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(kind = kind.as_str(), location, "{text}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        let event =
            Event { seq: kept.last, boot_ns: self.clock.boot_ns(), kind, location: location.map(str::to_owned), text };
        if kept.events.len() == limits::EVENTS_KEPT_MAX {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that followers see them in order. Nobody following is no error.
        let _ = self.followers.send(event);
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// Kept events after number `after`, at most the last `limit`.
    pub(crate) fn since(&self, after: u64, limit: usize) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = kept.events.iter().filter(|event| event.seq > after).count();
        kept.events.iter().skip(kept.events.len() - newer.min(limit)).cloned().collect()
    }

    /// Kept events after number `after`, and the stream of what follows them without a gap.
    pub(crate) fn follow(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let past = kept.events.iter().filter(|event| event.seq > after).cloned().collect();
        (past, self.followers.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_http::clock::SystemClock;
    use std::sync::Arc;

    fn log() -> EventLog {
        EventLog::new(Arc::new(SystemClock::default()))
    }

    #[tokio::test]
    async fn a_follower_gets_what_was_and_what_comes_without_a_gap() {
        let log = log();
        log.record(EventKind::Fault, Some("eu"), "one");
        log.record(EventKind::Heal, Some("eu"), "two");
        let (past, mut stream) = log.follow(1);
        log.record(EventKind::Regime, None, "three");
        assert_eq!(past.iter().map(|event| event.seq).collect::<Vec<_>>(), [2]);
        assert_eq!(stream.recv().await.unwrap().seq, 3);
    }

    #[test]
    fn the_log_is_bounded_and_numbers_tell_what_is_gone() {
        let log = log();
        for n in 0..=limits::EVENTS_KEPT_MAX {
            log.record(EventKind::Drill, None, n.to_string());
        }
        let all = log.since(0, usize::MAX);
        assert_eq!(all.len(), limits::EVENTS_KEPT_MAX);
        assert_eq!((all[0].seq, log.last()), (2, limits::EVENTS_KEPT_MAX as u64 + 1));
        assert_eq!(log.since(0, 3).len(), 3);
        assert_eq!(log.since(0, 3)[2].seq, log.last());
    }
}
