//! One directed link: what happens to a chunk of bytes that is sent over it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use longhaul_core::ids::LocationName;
use longhaul_core::limits;
use longhaul_core::link::{LinkPatch, LinkProfile, LinkState};
use longhaul_http::watch;
use longhaul_http::wire::links::{LinkBytesView, LinkView};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::cause::{Cause, Counters};

/// Payload of a full packet: an Ethernet frame of 1500 bytes without the IPv4 and TCP headers and TCP timestamps. A chunk
/// counts as that many packets when it is decided whether one of them is lost.
const SEGMENT_BYTES: usize = 1448;
/// Smallest retransmission timeout, nanoseconds (Linux `TCP_RTO_MIN`; RFC 6298 recommends one second).
const RTO_NS_MIN: u64 = 200_000_000;
/// Retransmission timeout of the first packet of a connection, nanoseconds (RFC 6298, section 2.1).
pub(super) const RTO_NS_INITIAL: u64 = 1_000_000_000;
/// Lost retransmissions after which a sender gives up; the timeout doubles each time (RFC 6298, section 5.5).
const RETRANSMISSIONS_MAX: u32 = 8;

/// A directed link.
pub(super) struct DirectedLink {
    pub(super) from: LocationName,
    pub(super) to: LocationName,
    declared: LinkProfile,
    live: Mutex<Live>,
    /// Copies of the live figures, for readers of the other direction.
    delay_ns: AtomicU64,
    jitter_ns: AtomicU64,
    cuts: AtomicU64,
    events: watch::Sender<LinkEvents>,
    delivered: Counters,
    connections: AtomicU32,
    dead_connections: AtomicU32,
}

struct Live {
    profile: LinkProfile,
    flap: Option<Flap>,
    /// When the link has sent everything that it took so far (rate limit).
    free_at_ns: u64,
    /// The last deviation of the delay, standard deviations.
    deviation: f64,
    rng: SmallRng,
}

struct Flap {
    half_period_ms: u64,
    stop: CancellationToken,
}

/// What connections wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LinkEvents {
    /// Whether it is cut now.
    pub(super) cut: bool,
    /// How often its connections were told to reset.
    pub(super) resets: u64,
}

/// When a chunk arrives, unless the link is cut in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Arrival on the boot clock, nanoseconds.
    pub(super) at_ns: u64,
    /// The number of cuts when it was sent: one more at arrival, and it is lost.
    cuts: u64,
}

/// What a patch asks of the driver beyond new figures.
#[derive(Debug)]
pub(super) enum FlapChange {
    /// Nothing.
    Keep,
    /// Go up and down from now on, until the token is cancelled.
    Start(u64, CancellationToken),
}

fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

impl DirectedLink {
    pub(super) fn new(from: LocationName, to: LocationName, declared: LinkProfile, seed: u64) -> Self {
        let cut = declared.state == LinkState::Cut;
        Self {
            delay_ns: AtomicU64::new(nanoseconds(declared.delay_ms)),
            jitter_ns: AtomicU64::new(nanoseconds(declared.jitter_ms)),
            cuts: AtomicU64::new(0),
            events: watch::Sender::new(LinkEvents { cut, resets: 0 }),
            delivered: Counters::default(),
            connections: AtomicU32::new(0),
            dead_connections: AtomicU32::new(0),
            live: Mutex::new(Live {
                profile: declared.clone(),
                flap: None,
                free_at_ns: 0,
                deviation: 0.0,
                rng: SmallRng::seed_from_u64(seed),
            }),
            from,
            to,
            declared,
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present one-way delay, nanoseconds.
    pub(super) fn delay_ns(&self) -> u64 {
        self.delay_ns.load(Ordering::Relaxed)
    }

    pub(super) fn events(&self) -> watch::Receiver<LinkEvents> {
        self.events.subscribe()
    }

    /// Sends `bytes` bytes that arrived at the link at `arrival_ns`. `earlier_ns` is when the connection's bytes before
    /// them get there: order is kept. `back` is the other direction: a loss costs a retransmission timeout, which depends on
    /// the round trip. `None`: lost for good.
    pub(super) fn send(&self, arrival_ns: u64, bytes: usize, earlier_ns: u64, back: &Self) -> Option<Ticket> {
        let mut live = self.live();
        if live.profile.state == LinkState::Cut {
            return None;
        }
        let sent_ns = match live.profile.rate_kbit {
            None => arrival_ns,
            Some(rate_kbit) => {
                let transmission_ns = bytes as u64 * 8 * 1_000_000 / rate_kbit.max(1);
                live.free_at_ns = live.free_at_ns.max(arrival_ns) + transmission_ns;
                live.free_at_ns
            }
        };
        let mut delay_ns = nanoseconds(live.profile.delay_ms) as f64;
        if live.profile.jitter_ms > 0.0 {
            delay_ns = (delay_ns + live.next_deviation() * live.profile.jitter_ms * 1e6).max(0.0);
        }
        let stall_ns = if live.profile.loss > 0.0 { stall_ns(&mut live, bytes, self.timeout_ns(back))? } else { 0 };
        let at_ns = (sent_ns + delay_ns as u64 + stall_ns).max(earlier_ns);
        Some(Ticket { at_ns, cuts: self.cuts.load(Ordering::Acquire) })
    }

    /// Retransmission timeout over this link and back, nanoseconds: the round trip and four times its deviation, at least
    /// 200 ms (RFC 6298, section 2, with Linux's minimum).
    fn timeout_ns(&self, back: &Self) -> u64 {
        let round_trip = self.delay_ns() + back.delay_ns();
        let deviation = self.jitter_ns.load(Ordering::Relaxed) + back.jitter_ns.load(Ordering::Relaxed);
        (round_trip + 4 * deviation).max(RTO_NS_MIN)
    }

    /// Whether the first packet of a connection is lost.
    pub(super) fn loses_one(&self) -> bool {
        let mut live = self.live();
        let loss = live.profile.loss;
        loss > 0.0 && live.rng.random::<f64>() < loss
    }

    /// Whether what was sent under this ticket really arrives: no cut came in between.
    pub(super) fn arrives(&self, ticket: Ticket) -> bool {
        self.cuts.load(Ordering::Acquire) == ticket.cuts
    }

    /// How long a sender has to wait until the queue of a rate-limited link takes more, nanoseconds.
    pub(super) fn queue_wait_ns(&self, now_ns: u64) -> u64 {
        let live = self.live();
        if live.profile.rate_kbit.is_none() {
            return 0;
        }
        live.free_at_ns.saturating_sub(now_ns).saturating_sub(limits::LINK_QUEUE.as_nanos() as u64)
    }

    /// Most bytes to take at once: five milliseconds of a rate-limited link, so that connections share it fairly.
    pub(super) fn chunk_bytes(&self, largest: usize) -> usize {
        self.live().profile.rate_kbit.map_or(largest, |rate_kbit| {
            usize::try_from(rate_kbit * 5 / 8).unwrap_or(largest).clamp(SEGMENT_BYTES, largest)
        })
    }

    /// Applies a live change. Bytes in flight keep their arrival; a cut loses them.
    pub(super) fn patch(&self, patch: &LinkPatch) -> FlapChange {
        let mut live = self.live();
        let mut change = FlapChange::Keep;
        if (patch.flap_ms.is_some() || patch.state.is_some())
            && let Some(flap) = live.flap.take()
        {
            flap.stop.cancel();
            live.profile.state = LinkState::Up;
        }
        let profile = live.profile.patched(patch);
        if profile.rate_kbit != live.profile.rate_kbit {
            live.free_at_ns = 0;
        }
        live.profile = profile;
        if let Some(half_period_ms) = patch.flap_ms.filter(|half_period_ms| *half_period_ms > 0) {
            let stop = CancellationToken::new();
            live.flap = Some(Flap { half_period_ms, stop: stop.clone() });
            change = FlapChange::Start(half_period_ms, stop);
        }
        self.publish(&live, patch.reset);
        change
    }

    /// Puts it back to what is declared.
    pub(super) fn heal(&self) {
        let mut live = self.live();
        if let Some(flap) = live.flap.take() {
            flap.stop.cancel();
        }
        live.profile = self.declared.clone();
        live.free_at_ns = 0;
        self.publish(&live, false);
    }

    /// One turn of a flap; `false` if the flap was ended meanwhile.
    pub(super) fn flap_to(&self, state: LinkState, stop: &CancellationToken) -> bool {
        let mut live = self.live();
        if stop.is_cancelled() {
            return false;
        }
        live.profile.state = state;
        self.publish(&live, false);
        true
    }

    fn publish(&self, live: &Live, reset: bool) {
        self.delay_ns.store(nanoseconds(live.profile.delay_ms), Ordering::Relaxed);
        self.jitter_ns.store(nanoseconds(live.profile.jitter_ms), Ordering::Relaxed);
        let cut = live.profile.state == LinkState::Cut;
        self.events.send_if_modified(|events| {
            if cut && !events.cut {
                self.cuts.fetch_add(1, Ordering::AcqRel);
            }
            let before = *events;
            events.cut = cut;
            events.resets += u64::from(reset);
            before != *events
        });
    }

    pub(super) fn delivered(&self, cause: Cause, bytes: usize) {
        self.delivered.add(cause, bytes);
    }

    /// Counts an open connection until the guard is dropped.
    pub(super) fn open_connection(&self) -> Gauge<'_> {
        Gauge::up(&self.connections)
    }

    /// Counts a dead connection until the guard is dropped.
    pub(super) fn dead_connection(&self) -> Gauge<'_> {
        Gauge::up(&self.dead_connections)
    }

    pub(super) fn view(&self) -> LinkView {
        let live = self.live();
        LinkView {
            from: self.from.to_string(),
            to: self.to.to_string(),
            declared: self.declared.clone(),
            current: live.profile.clone(),
            flap_ms: live.flap.as_ref().map(|flap| flap.half_period_ms),
            connections: self.connections.load(Ordering::Relaxed),
            dead_connections: self.dead_connections.load(Ordering::Relaxed),
        }
    }

    pub(super) fn bytes(&self) -> LinkBytesView {
        LinkBytesView { from: self.from.to_string(), to: self.to.to_string(), bytes: self.delivered.by_cause() }
    }
}

/// A count that goes down again when dropped.
pub(super) struct Gauge<'a>(&'a AtomicU32);

impl<'a> Gauge<'a> {
    fn up(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What losses cost a chunk; `None` if even its retransmissions are lost.
fn stall_ns(live: &mut Live, bytes: usize, timeout_ns: u64) -> Option<u64> {
    let loss = live.profile.loss;
    let packets = bytes.div_ceil(SEGMENT_BYTES).max(1);
    let any_lost = 1.0 - (1.0 - loss).powf(packets as f64);
    if live.rng.random::<f64>() >= any_lost {
        return Some(0);
    }
    let mut stall_ns = timeout_ns;
    for retransmission in 1..=RETRANSMISSIONS_MAX {
        if live.rng.random::<f64>() >= loss {
            return Some(stall_ns);
        }
        stall_ns += timeout_ns << retransmission;
    }
    None
}

impl Live {
    /// The deviation of the next chunk's delay, standard deviations: as much like the last one as the profile says
    /// (first-order autoregression, which keeps the deviation as declared).
    fn next_deviation(&mut self) -> f64 {
        let fresh = self.profile.jitter_distribution.draw(|| self.rng.random());
        let kept = self.profile.jitter_correlation;
        self.deviation = kept * self.deviation + (1.0 - kept * kept).sqrt() * fresh;
        self.deviation
    }
}

#[cfg(test)]
mod tests;
