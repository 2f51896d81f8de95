//! What a region says about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{MemberState, Mode};
use longhaul_http::wire::status::{Lag, RegionStatus, TimelineStatus};

use super::health::trouble;
use super::problems::problem;
use crate::state::peers::PeerState;
use crate::state::{OwnLog, Region};

/// The region at this moment.
#[utoipa::path(get, path = "/internal/v1/status", tag = "inspection", responses((status = 200, body = RegionStatus)))]
pub(super) async fn status(State(region): State<Arc<Region>>) -> Response {
    match region.store.stats().await {
        Ok(stats) => Json(assemble(&region, stats)).into_response(),
        Err(error) => problem(&region, ErrorCode::StoreFailed, error.to_string(), None).into_response(),
    }
}

fn assemble(region: &Region, stats: crate::store::StoreStats) -> RegionStatus {
    let regime = region.regime();
    let now_ns = region.clock.boot_ns();
    let peers = region.peers.states();
    let name = |peer: &longhaul_core::ids::RegionId| region.config.name_of(*peer).to_owned();
    let positions = region.positions();
    let timeline = |(timeline, position): (&longhaul_core::ids::Timeline, &longhaul_core::replication::Position)| {
        (timeline.to_string(), TimelineStatus { seq: position.seq, visible: position.visible })
    };
    RegionStatus {
        region: region.config.name().to_owned(),
        role: role(region).to_owned(),
        ready: region.is_ready(),
        epoch: regime.epoch.0,
        incarnation: region.own_timeline().incarnation.0,
        lease_remaining_ms: (region.lease_until() as i64 - now_ns as i64) / 1_000_000,
        positions: positions.iter().map(timeline).collect(),
        lag: peers.iter().map(|(peer, state)| (name(peer), lag(region, state, *peer, now_ns))).collect(),
        conflicts: stats.conflicts,
        quarantined: stats.quarantined,
        quarantine_open: stats.quarantine_open,
        records: stats.records,
        tombstones: stats.tombstones,
        operations: stats.operations,
        store_bytes: stats.bytes,
        write_queue: region.writer.queued() as u64,
        clock_skew_ms: region.clock.skew_ms(),
        clock_offset_ms: peers
            .iter()
            .filter_map(|(peer, state)| Some((name(peer), state.clock_offset_ns? as f64 / 1e6)))
            .collect(),
        trouble: trouble(region),
        stopped_links: peers
            .iter()
            .filter_map(|(peer, state)| Some((name(peer), state.stopped.clone()?)))
            .collect::<BTreeMap<_, _>>(),
        divergence_alarms: region.counters.divergence_alarms.get(),
    }
}

pub(crate) fn role(region: &Region) -> &'static str {
    let regime = region.regime();
    let me = region.id();
    let active = regime.members.get(&me).is_some_and(|member| member.state == MemberState::Active);
    if !region.is_ready() {
        return if active { "starting" } else { "joining" };
    }
    if !active {
        return "joining";
    }
    if matches!(region.own_log(), OwnLog::Foreign { .. }) {
        return "degraded";
    }
    match regime.mode {
        Mode::ActivePassive if regime.is_primary(me) => {
            if region.lease_valid() {
                "primary"
            } else {
                "fenced"
            }
        }
        Mode::ActivePassive => "follower",
        Mode::ActiveActive => "active",
        Mode::RegionalIsolation => "home",
    }
}

/// How far this region is behind a peer's own timelines. On a dead stream it grows: what is not known counts as lag.
pub(crate) fn lag(region: &Region, state: &PeerState, peer: longhaul_core::ids::RegionId, now_ns: u64) -> Lag {
    let Some(report) = &state.report else {
        return Lag { operations: 0, ms: now_ns as f64 / 1e6, knowledge_age_ms: now_ns as f64 / 1e6 };
    };
    let theirs = report.positions.iter().filter(|(timeline, _)| timeline.region == peer);
    let operations: u64 =
        theirs.map(|(timeline, position)| position.seq.saturating_sub(region.position(*timeline).seq)).sum();
    let age_ms = now_ns.saturating_sub(report.heard_boot_ns) as f64 / 1e6;
    let behind_ms = match state.behind_since_ns {
        Some(since) if operations > 0 => now_ns.saturating_sub(since) as f64 / 1e6,
        _ => 0.0,
    };
    let silent = age_ms > 3.0 * region.config.timings.heartbeat_ms as f64;
    Lag { operations, ms: if silent { behind_ms.max(age_ms) } else { behind_ms }, knowledge_age_ms: age_ms }
}
