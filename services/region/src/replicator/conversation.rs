//! What both ends of a stream do alike: heartbeats, echoes, and teaching the regime.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::gate::may_replicate;
use longhaul_core::ids::{Epoch, RegionId};
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::replication::frame::{Echo, Frame, Heartbeat, passes_reports_on};

use super::{StreamEnd, own_log};
use crate::state::Region;
use crate::state::peers::clock_sample;

/// Heartbeats whose echo is awaited.
const ECHOES_MAX: usize = 64;

/// One end of a stream.
pub(super) struct Conversation {
    pub(super) region: Arc<Region>,
    pub(super) peer: RegionId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    number: u64,
    /// Number and boot time of the heartbeats sent last.
    sent: VecDeque<(u64, u64)>,
    /// Number and boot time of the heartbeat received last.
    heard: Option<(u64, u64)>,
    /// The newest regime that was sent.
    taught: Epoch,
}

impl Conversation {
    pub(super) fn new(region: Arc<Region>, peer: RegionId) -> Self {
        Self { region, peer, state: Mutex::new(State::default()) }
    }

    /// The next heartbeat.
    pub(super) fn heartbeat(&self) -> Frame {
        let region = &self.region;
        let (regime, boot_ns) = (region.regime(), region.clock.boot_ns());
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        state.sent.push_back((number, boot_ns));
        if state.sent.len() > ECHOES_MAX {
            state.sent.pop_front();
        }
        let passes_on = passes_reports_on(region.config.regions.len(), region.id(), number);
        Frame::Heartbeat(Heartbeat {
            number,
            epoch: regime.epoch,
            region: region.id(),
            incarnation: region.own_timeline().incarnation,
            dataset_generation: regime.dataset_generation,
            positions: region.positions().as_ref().clone(),
            reports: if passes_on { region.peers.member_reports() } else { BTreeMap::new() },
            promised: region.promised(),
            suspicion: region.suspicion(),
            clock_ns: region.clock.wall_ns(),
            echo: state.heard.map(|(number, at)| Echo { number, held_ns: boot_ns.saturating_sub(at) }),
        })
    }

    /// Takes the peer's heartbeat; returns a regime to teach it, if it is behind.
    pub(super) async fn hear(&self, heartbeat: &Heartbeat) -> Result<Option<Frame>, StreamEnd> {
        let region = &self.region;
        if heartbeat.region != self.peer {
            return Err(StreamEnd::OutOfPlace);
        }
        let (boot_ns, wall_ns) = (region.clock.boot_ns(), region.clock.wall_ns());
        let sample = {
            let mut state = self.lock();
            state.heard = Some((heartbeat.number, boot_ns));
            heartbeat.echo.and_then(|echo| {
                let sent = state.sent.iter().find(|(number, _)| *number == echo.number).map(|(_, at)| *at)?;
                Some(clock_sample(echo, sent, boot_ns, heartbeat.clock_ns, wall_ns))
            })
        };
        let theirs = heartbeat.positions.iter().filter(|(timeline, _)| timeline.region == self.peer);
        let behind = theirs.clone().any(|(timeline, position)| region.position(*timeline).seq < position.seq);
        region.peers.heard(heartbeat, boot_ns);
        region.peers.update(self.peer, |state| {
            if let Some((round_trip_ns, offset_ns)) = sample {
                state.round_trip_ns = Some(round_trip_ns);
                state.clock_offset_ns = Some(offset_ns);
            }
            state.behind_since_ns = if behind { state.behind_since_ns.or(Some(boot_ns)) } else { None };
        });
        own_log::check(region, heartbeat).await?;
        Ok(self.teach(heartbeat.epoch))
    }

    /// The adopted regime as a frame, once, if a peer at `epoch` does not know it.
    pub(super) fn teach(&self, epoch: Epoch) -> Option<Frame> {
        let regime = self.region.regime();
        let mut state = self.lock();
        if epoch >= regime.epoch || state.taught >= regime.epoch {
            return None;
        }
        state.taught = regime.epoch;
        Some(Frame::Regime(Box::new(regime.as_ref().clone())))
    }

    /// Adopts a regime that the peer has adopted, and which is therefore chosen.
    pub(super) async fn learn(&self, regime: Regime) -> Result<(), StreamEnd> {
        if regime.epoch > self.region.regime().epoch {
            self.region.writer.adopt(regime).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether records may travel between regions under this regime.
pub(crate) fn data_flows(regime: &Regime) -> bool {
    may_replicate(regime)
}

/// Whether homes exchange their sets on the way out of isolation. They still do while they drain towards one primary,
/// which has to get their barriers.
pub(super) fn is_merging(regime: &Regime) -> bool {
    regime.mode == Mode::RegionalIsolation && may_replicate(regime)
}
