//! The answering end of a stream: ships operations within the puller's credit, as soon as they are durable here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::Timeline;
use longhaul_core::limits::CREDIT_BYTES;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::replication::frame::{Ack, Frame, Hello, Refused, RefusedCode, Want};
use longhaul_http::net::BoxIo;
use longhaul_http::problem::Problem;
use longhaul_http::upgrade;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::conversation::{Conversation, data_flows};
use super::io::{FrameReader, FrameWriter, split};
use super::source::Source;
use super::{OUTBOX_MAX, PROTOCOL, StreamEnd, dead_after};
use crate::state::Region;
use crate::state::counters::Counter;

/// Pause after a refusal that waiting may heal.
const PAUSE_NS: u64 = 250_000_000;
/// Pause after a refusal that only a new regime, or a person, can heal.
const STOP_NS: u64 = 5_000_000_000;

/// Turns a request into a stream.
pub(super) async fn accept(State(region): State<Arc<Region>>, mut request: Request) -> Response {
    let Some((answer, pending)) = upgrade::accept(&mut request, PROTOCOL) else {
        let detail = format!("this endpoint speaks {PROTOCOL} only; ask with `Upgrade: {PROTOCOL}`");
        return Problem::new(ErrorCode::BadRequest, detail).into_response();
    };
    let task = Arc::clone(&region);
    region.tracker.spawn(async move {
        let opened = tokio::select! {
            biased;
            () = task.shutdown.cancelled() => return,
            opened = tokio::time::timeout(dead_after(&task), pending.stream()) => opened,
        };
        if let Ok(Ok(io)) = opened {
            let ended = tokio::select! {
                biased;
                () = task.shutdown.cancelled() => return,
                ended = serve(&task, io) => ended,
            };
            tracing::debug!(reason = %ended, "a stream to a peer ended");
        }
    });
    answer
}

/// What both loops of a stream share.
struct Shared {
    conversation: Conversation,
    hello: Hello,
    /// Bytes of credit given back since the stream opened.
    consumed: AtomicU64,
    /// Credit came back.
    credit: Notify,
}

/// What the receiving loop tells the sending one.
enum Control {
    Send(Frame),
    Want(Want),
    Rewind { timeline: Timeline, have: u64, not_before_ns: u64 },
}

async fn serve(region: &Arc<Region>, io: BoxIo) -> StreamEnd {
    let (mut reader, writer) = split(io, dead_after(region));
    let hello = match reader.next(&region.counters.replication_bytes_received).await {
        Ok(Frame::Hello(hello)) if region.config.peers.contains_key(&hello.region) => hello,
        Ok(_) => return StreamEnd::OutOfPlace,
        Err(end) => return end,
    };
    region.counters.streams_opened.add(1);
    let shared = Shared {
        conversation: Conversation::new(Arc::clone(region), hello.region),
        consumed: AtomicU64::new(0),
        credit: Notify::new(),
        hello,
    };
    let (controls, inbox) = mpsc::channel(OUTBOX_MAX);
    let ended = tokio::select! {
        biased;
        ended = receive(&shared, reader, controls) => ended,
        ended = send(&shared, writer, inbox) => ended,
    };
    ended.err().unwrap_or(StreamEnd::Closed)
}

async fn receive(shared: &Shared, mut reader: FrameReader, controls: mpsc::Sender<Control>) -> Result<(), StreamEnd> {
    let region = &shared.conversation.region;
    loop {
        let frame = reader.next(&region.counters.replication_bytes_received).await?;
        let mut told = Vec::new();
        match frame {
            Frame::Heartbeat(heartbeat) => told.extend(shared.conversation.hear(&heartbeat).await?.map(Control::Send)),
            Frame::Ack(ack) => on_ack(shared, ack).await?,
            Frame::Want(want) => told.push(Control::Want(want)),
            Frame::Refused(refused) => on_refused(shared, &refused, &mut told),
            Frame::Regime(regime) => shared.conversation.learn(*regime).await?,
            Frame::Hello(_) | Frame::Batch(_) | Frame::SnapshotRequired(_) => return Err(StreamEnd::OutOfPlace),
        }
        for control in told {
            if controls.send(control).await.is_err() {
                return Err(StreamEnd::Closed);
            }
        }
    }
}

async fn on_ack(shared: &Shared, ack: Ack) -> Result<(), StreamEnd> {
    let region = &shared.conversation.region;
    shared.consumed.fetch_max(ack.consumed_bytes, Ordering::AcqRel);
    shared.credit.notify_one();
    region.shipping.acknowledged(region, shared.hello.region, &ack.durable);
    let regime = region.regime();
    if regime.mode == Mode::ActivePassive && regime.durability != Durability::Local && regime.is_primary(region.id()) {
        region.writer.peer_durable(shared.hello.region, ack.epoch, ack.durable).await?;
    }
    Ok(())
}

fn on_refused(shared: &Shared, refused: &Refused, told: &mut Vec<Control>) {
    let region = &shared.conversation.region;
    let now_ns = region.clock.boot_ns();
    let not_before_ns = match refused.code {
        RefusedCode::Gap => 0,
        RefusedCode::StaleEpoch
        | RefusedCode::UnknownEpoch
        | RefusedCode::PrefixMissing
        | RefusedCode::Clock
        | RefusedCode::Generation
        | RefusedCode::NotMember => now_ns.saturating_add(PAUSE_NS),
        RefusedCode::WrongTimeline
        | RefusedCode::BeyondCut
        | RefusedCode::Divergence
        | RefusedCode::Malformed
        | RefusedCode::Isolation => now_ns.saturating_add(STOP_NS),
    };
    if let Some((timeline, have)) = refused.have {
        told.push(Control::Rewind { timeline, have, not_before_ns });
    }
    if refused.code == RefusedCode::UnknownEpoch {
        told.extend(shared.conversation.teach(refused.epoch).map(Control::Send));
    }
}

async fn send(shared: &Shared, mut writer: FrameWriter, mut inbox: mpsc::Receiver<Control>) -> Result<(), StreamEnd> {
    let region = &shared.conversation.region;
    let sent = &region.counters.replication_bytes_sent;
    let credit = shared.hello.credit_bytes.clamp(1, CREDIT_BYTES as u64);
    let mut source = Source::new(shared.hello.want.iter().copied(), shared.hello.have.clone());
    let mut positions = region.watch_positions();
    let mut regimes = region.watch_regime();
    let mut beat = tokio::time::interval(region.config.timings.heartbeat());
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shipped = 0_u64;
    let mut epoch = regimes.borrow().epoch;
    if let Some(frame) = shared.conversation.teach(shared.hello.epoch) {
        writer.send(&frame, sent).await?;
    }
    loop {
        // Control first, so that nothing is sent that the puller has just refused; heartbeats go between batches.
        while let Ok(control) = inbox.try_recv() {
            obey(&mut source, &mut writer, control, sent).await?;
        }
        if beat.tick().now_or_never().is_some() {
            writer.send(&shared.conversation.heartbeat(), sent).await?;
        }
        positions.borrow_and_update();
        let regime = Arc::clone(&regimes.borrow_and_update());
        if regime.epoch != epoch {
            // Found here and not by waiting for it: under load the loop may never wait.
            epoch = regime.epoch;
            source.resume();
            if let Some(frame) = shared.conversation.teach(shared.hello.epoch) {
                writer.send(&frame, sent).await?;
            }
        }
        let in_flight = shipped.saturating_sub(shared.consumed.load(Ordering::Acquire));
        let flows = data_flows(&regime) && shared.hello.dataset_generation == regime.dataset_generation;
        let open = flows && in_flight < credit;
        if open && let Some((frame, cost)) = source.next(region, &regime).await? {
            writer.send(&frame, sent).await?;
            shipped += cost;
            continue;
        }
        let now_ns = region.clock.boot_ns();
        let pause = source.next_pause_end(now_ns).map(|at| Duration::from_nanos(at - now_ns));
        tokio::select! {
            biased;
            control = inbox.recv() => match control {
                Some(control) => obey(&mut source, &mut writer, control, sent).await?,
                None => return Err(StreamEnd::Closed),
            },
            _ = beat.tick() => writer.send(&shared.conversation.heartbeat(), sent).await?,
            changed = regimes.changed() => {
                if changed.is_err() {
                    return Err(StreamEnd::Closed);
                }
            }
            _ = positions.changed(), if open => {}
            () = shared.credit.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

async fn obey(
    source: &mut Source,
    writer: &mut FrameWriter,
    control: Control,
    sent: &Counter,
) -> Result<(), StreamEnd> {
    match control {
        Control::Send(frame) => writer.send(&frame, sent).await?,
        Control::Want(want) => source.want(want.origins, want.have),
        Control::Rewind { timeline, have, not_before_ns } => source.rewind(timeline, have, not_before_ns),
    }
    Ok(())
}
