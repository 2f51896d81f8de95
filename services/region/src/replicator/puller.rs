//! The dialling end of a stream: asks one peer for operations, hands them to the writer, acknowledges what is durable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use longhaul_core::ids::{RegionId, Timeline};
use longhaul_core::limits::CREDIT_BYTES;
use longhaul_core::mutants::{Rule, is_broken};
use longhaul_core::replication::durable_vector;
use longhaul_core::replication::frame::{Ack, Batch, Frame, Heartbeat, Hello, RefusedCode, Want};
use longhaul_core::vector::VersionVector;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::conversation::{Conversation, data_flows};
use super::io::{FrameReader, FrameWriter, split};
use super::{OUTBOX_MAX, PROTOCOL, REPLICATE_PATH, StreamEnd, dead_after, snapshot};
use crate::spans::Arrived;
use crate::state::Region;

/// Pause before the first new dial; it doubles up to [`BACKOFF_MAX_MS`].
const BACKOFF_MIN_MS: u64 = 50;
/// Longest pause between dials.
const BACKOFF_MAX_MS: u64 = 1000;
/// Longest pause between dials of a region that has several addresses.
const BACKOFF_CHOICE_MAX_MS: u64 = 100;

/// Keeps a stream to `peer` open until shutdown.
pub(super) async fn run(region: Arc<Region>, peer: RegionId) {
    let mut backoff_ms = BACKOFF_MIN_MS;
    loop {
        let opened_ns = region.clock.boot_ns();
        let ended = tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            ended = stream(&region, peer) => ended,
        };
        tracing::debug!(peer = region.config.name_of(peer), reason = %ended, "the stream from a peer ended");
        region.peers.with_relay(region.id(), |relay| relay.disconnected(peer));
        let stopped = match &ended {
            StreamEnd::Stopped(reason) => Some(reason.clone()),
            _ => None,
        };
        region.peers.update(peer, |state| {
            state.connected = false;
            state.stopped.clone_from(&stopped);
        });
        // A stream that lived for a while starts the backoff anew.
        let lived = Duration::from_nanos(region.clock.boot_ns().saturating_sub(opened_ns));
        if lived > dead_after(&region) * 2 {
            backoff_ms = BACKOFF_MIN_MS;
        }
        let pause_ms = if stopped.is_some() { BACKOFF_MAX_MS } else { backoff_ms };
        let pause = Duration::from_millis(pause_ms / 2 + region.random_below(pause_ms / 2 + 1));
        // The instance that answers next may be any of a region's: all of them are asked before it counts as silent.
        let most_ms = if region.directory.has_choice(peer) { BACKOFF_CHOICE_MAX_MS } else { BACKOFF_MAX_MS };
        backoff_ms = (backoff_ms * 2).min(most_ms);
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What both loops of a stream share.
struct Shared {
    conversation: Conversation,
    generation: u32,
    /// Credit given back, bytes.
    consumed: AtomicU64,
    /// There is something to acknowledge.
    ack: Notify,
}

async fn stream(region: &Arc<Region>, peer: RegionId) -> StreamEnd {
    let address = region.directory.address(peer).unwrap_or_default();
    let ended = match open(region, peer, address).await {
        Ok((shared, reader, writer)) => {
            let (outbox, frames) = mpsc::channel(OUTBOX_MAX);
            let ended = tokio::select! {
                biased;
                ended = receive(&shared, reader, outbox) => ended,
                ended = send(&shared, writer, frames) => ended,
            };
            ended.err().unwrap_or(StreamEnd::Closed)
        }
        Err(end) => end,
    };
    if !matches!(ended, StreamEnd::Stopped(_)) {
        region.directory.pass_on(peer, address);
    }
    ended
}

async fn open(
    region: &Arc<Region>,
    peer: RegionId,
    address: &str,
) -> Result<(Shared, FrameReader, FrameWriter), StreamEnd> {
    let mut headers = HeaderMap::new();
    authorize(region, &mut headers);
    // Opening a connection and the upgrade are two exchanges.
    let deadline = region.config.timings.connect() * 2;
    let io = region.client.upgrade(address, REPLICATE_PATH, PROTOCOL, headers, deadline).await?;
    let (reader, mut writer) = split(io, dead_after(region));
    let regime = region.regime();
    let hello = Hello {
        region: region.id(),
        incarnation: region.own_timeline().incarnation,
        epoch: regime.epoch,
        dataset_generation: regime.dataset_generation,
        have: durable_vector(&region.positions()),
        want: vec![peer],
        credit_bytes: CREDIT_BYTES as u64,
    };
    writer.send(&Frame::Hello(hello), &region.counters.replication_bytes_sent).await?;
    region.counters.streams_opened.add(1);
    region.peers.update(peer, |state| {
        state.connected = true;
        state.stopped = None;
    });
    let shared = Shared {
        conversation: Conversation::new(Arc::clone(region), peer),
        generation: regime.dataset_generation,
        consumed: AtomicU64::new(0),
        ack: Notify::new(),
    };
    Ok((shared, reader, writer))
}

/// Adds the internal token, if the testbed has one.
pub(crate) fn authorize(region: &Region, headers: &mut HeaderMap) {
    let token = region.config.token.as_ref().and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, token);
    }
}

async fn receive(shared: &Shared, mut reader: FrameReader, outbox: mpsc::Sender<Frame>) -> Result<(), StreamEnd> {
    let region = &shared.conversation.region;
    let peer = shared.conversation.peer;
    let mut wanted = BTreeSet::from([peer]);
    // Timelines of which a batch was refused: what was in flight behind it is dropped until the sender has gone back.
    let mut rewinding = BTreeSet::new();
    if data_flows(&region.regime()) && region.unmerged_homes().contains(&peer) {
        // What was purged for isolation is in no log that begins after it, however complete it looks.
        snapshot::fetch(region, peer).await?;
        let origins = wanted.iter().copied().collect();
        put(&outbox, Frame::Want(Want { origins, have: durable_vector(&region.positions()) })).await?;
    }
    loop {
        let frame = reader.next(&region.counters.replication_bytes_received).await?;
        let answer = match frame {
            Frame::Batch(mut batch) => {
                join_arrived(region, &mut reader, &mut batch)?;
                on_batch(shared, batch, &mut rewinding).await?
            }
            Frame::Heartbeat(heartbeat) => {
                let teach = shared.conversation.hear(&heartbeat).await?;
                if let Some(want) = replan(region, peer, &heartbeat, &mut wanted) {
                    put(&outbox, want).await?;
                }
                teach
            }
            Frame::SnapshotRequired(_) => {
                snapshot::fetch(region, peer).await?;
                let origins = wanted.iter().copied().collect();
                Some(Frame::Want(Want { origins, have: durable_vector(&region.positions()) }))
            }
            Frame::Regime(regime) => {
                shared.conversation.learn(*regime).await?;
                None
            }
            Frame::Refused(refused) => return Err(StreamEnd::Stopped(refused.detail)),
            Frame::Hello(_) | Frame::Ack(_) | Frame::Want(_) => return Err(StreamEnd::OutOfPlace),
        };
        if region.regime().dataset_generation != shared.generation {
            return Err(StreamEnd::Generation);
        }
        if let Some(frame) = answer {
            put(&outbox, frame).await?;
        }
    }
}

async fn put(outbox: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), StreamEnd> {
    outbox.send(frame).await.map_err(|_| StreamEnd::Closed)
}

/// Follows the relay plan: whose operations to want from this peer now.
fn replan(region: &Region, peer: RegionId, heartbeat: &Heartbeat, wanted: &mut BTreeSet<RegionId>) -> Option<Frame> {
    if !data_flows(&region.regime()) {
        return None;
    }
    let now_ns = region.clock.boot_ns();
    let have = durable_vector(&region.positions());
    let plan = region.peers.with_relay(region.id(), |relay| {
        relay.heads(peer, &durable_vector(&heartbeat.positions), &have, now_ns);
        relay.plan(&have, now_ns).remove(&peer)
    })?;
    if plan == *wanted {
        return None;
    }
    tracing::info!(
        peer = region.config.name_of(peer),
        origins = plan.len(),
        "another set of origins is pulled from a peer"
    );
    *wanted = plan;
    Some(Frame::Want(Want { origins: wanted.iter().copied().collect(), have }))
}

/// Joins what arrived while the last commit was under way, so that a commit that takes longer than the origin's takes
/// more with it instead of falling behind (group commit, at the follower).
fn join_arrived(region: &Region, reader: &mut FrameReader, batch: &mut Batch) -> Result<(), StreamEnd> {
    while let Some(frame) = reader.arrived(&region.counters.replication_bytes_received)? {
        let other = match frame {
            Frame::Batch(next) => match batch.join(next) {
                Ok(()) => continue,
                Err(next) => Frame::Batch(next),
            },
            other => other,
        };
        reader.give_back(other);
        break;
    }
    Ok(())
}

async fn on_batch(
    shared: &Shared,
    batch: Batch,
    rewinding: &mut BTreeSet<Timeline>,
) -> Result<Option<Frame>, StreamEnd> {
    let region = &shared.conversation.region;
    let peer = shared.conversation.peer;
    let (timeline, cost) = (batch.timeline, batch.credit_bytes());
    let next = batch.operations.first().map_or(u64::MAX, |first| first.dot.seq);
    let held = region.position(timeline).seq;
    let stale = rewinding.contains(&timeline) && next > held + 1;
    let answer = if stale {
        None
    } else {
        let refused_before = rewinding.remove(&timeline);
        let arrived = Arrived::note(region, timeline, &batch.operations);
        let result = region.writer.apply(batch).await?;
        match result {
            Ok(()) => {
                if let Some(arrived) = arrived {
                    arrived.applied(region, peer);
                }
                let now_ns = region.clock.boot_ns();
                if region.position(timeline).seq > held {
                    region.peers.with_relay(region.id(), |relay| relay.progress(peer, timeline, now_ns));
                }
                if refused_before {
                    region.peers.update(peer, |state| state.stopped = None);
                }
                None
            }
            Err(refused) => {
                tracing::info!(
                    peer = region.config.name_of(peer),
                    code = ?refused.code,
                    reason = refused.detail,
                    "a batch was refused"
                );
                alarm(region, peer, refused.code, &refused.detail);
                rewinding.insert(timeline);
                Some(Frame::Refused(refused))
            }
        }
    };
    if !is_broken(Rule::Credit) {
        shared.consumed.fetch_add(cost, Ordering::AcqRel);
    }
    shared.ack.notify_one();
    Ok(answer)
}

/// Notes a link that cannot go on, and raises the alarm if two histories were found under one number.
fn alarm(region: &Region, peer: RegionId, code: RefusedCode, detail: &str) {
    match code {
        RefusedCode::Divergence => {
            region.counters.divergence_alarms.add(1);
            tracing::error!(peer = region.config.name_of(peer), "two histories under one sequence number");
        }
        RefusedCode::Malformed | RefusedCode::BeyondCut | RefusedCode::WrongTimeline | RefusedCode::Clock => {}
        _ => return,
    }
    region.peers.update(peer, |state| state.stopped = Some(detail.to_owned()));
}

async fn send(shared: &Shared, mut writer: FrameWriter, mut frames: mpsc::Receiver<Frame>) -> Result<(), StreamEnd> {
    let region = &shared.conversation.region;
    let sent = &region.counters.replication_bytes_sent;
    let mut regimes = region.watch_regime();
    let mut beat = tokio::time::interval(region.config.timings.heartbeat());
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = beat.tick() => writer.send(&shared.conversation.heartbeat(), sent).await?,
            frame = frames.recv() => match frame {
                Some(frame) => writer.send(&frame, sent).await?,
                None => return Err(StreamEnd::Closed),
            },
            () = shared.ack.notified() => writer.send(&acknowledgement(shared), sent).await?,
            changed = regimes.changed() => {
                if changed.is_err() {
                    return Err(StreamEnd::Closed);
                }
                // Acknowledgements count in their own epoch only, so what is durable is told again under the new one.
                writer.send(&acknowledgement(shared), sent).await?;
            }
        }
    }
}

/// What is durable here. A region that has promised a later epoch than it has adopted acknowledges nothing.
fn acknowledgement(shared: &Shared) -> Frame {
    let region = &shared.conversation.region;
    let epoch = region.regime().epoch;
    let positions = region.positions();
    let fenced = region.promised() > epoch;
    let durable = if fenced { VersionVector::default() } else { durable_vector(&positions) };
    let heads = positions.iter().map(|(timeline, position)| (*timeline, position.version)).collect();
    Frame::Ack(Ack { epoch, durable, heads, consumed_bytes: shared.consumed.load(Ordering::Acquire) })
}
