//! `/v1/events`: a stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::Stream;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::Event;
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::ApiState;
use crate::body::Ask;

/// Where to begin.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct From {
    /// Begin with what came after this number; from now on if absent.
    after: Option<u64>,
}

struct Follower {
    past: VecDeque<Event>,
    stream: broadcast::Receiver<Event>,
    serving: CancellationToken,
}

/// Faults, regime and role changes, drills: as they happen. Each event's `id` is its number, `event` its kind, `data`
/// the event as JSON. A follower that is too slow misses some; the numbers show it.
#[utoipa::path(get, path = "/v1/events", tag = "testbed", params(From),
    responses((status = 200, description = "Server-sent events", body = Event, content_type = "text/event-stream"),
              (status = 400, body = Problem)))]
pub(crate) async fn follow_events(
    State(state): State<ApiState>,
    Ask(from): Ask<From>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let after = from.after.unwrap_or_else(|| state.control.events.last());
    let (past, stream) = state.control.events.follow(after);
    let follower = Follower { past: past.into(), stream, serving: state.serving };
    Sse::new(futures::stream::unfold(follower, next)).keep_alive(KeepAlive::default())
}

async fn next(mut follower: Follower) -> Option<(Result<sse::Event, Infallible>, Follower)> {
    let event = match follower.past.pop_front() {
        Some(event) => event,
        None => loop {
            let received = tokio::select! {
                biased;
                () = follower.serving.cancelled() => return None,
                received = follower.stream.recv() => received,
            };
            match received {
                Ok(event) => break event,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        },
    };
    let data = serde_json::to_string(&event).unwrap_or_default();
    let sent = sse::Event::default().id(event.seq.to_string()).event(event.kind.as_str()).data(data);
    Some((Ok(sent), follower))
}
