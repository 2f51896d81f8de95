//! The links between hosts: what each declares, what it is now, and what happens to a chunk of bytes on it.
//!
//! turmoil carries the bytes; when they may be read is decided here. A chunk is stamped by its sender with the moment
//! at which it is due, and the receiver holds it until then. So delays are directed, exact to a millisecond whatever
//! the tick is (as long as the delay is not shorter than a tick), and they may jitter, lose, and be limited in rate,
//! which turmoil's own links cannot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use longhaul_core::link::{JitterDistribution, LinkPatch, LinkProfile, LinkState};
use longhaul_core::topology::Topology;
use longhaul_http::wire::links::{LinkBytesView, LinkView};
use longhaul_netem::relay::Cause;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::clock::SimTime;
use crate::seed;

const MS: u64 = 1_000_000;
/// Bytes of a packet, for the share of chunks that a loss hits.
const PACKET_BYTES: usize = 1448;
/// The shortest wait before a lost packet is sent again (Linux's minimum retransmission timeout).
const RETRANSMIT_NS: u64 = 200 * MS;

/// A host of the simulation, by its place in the list.
pub(crate) type HostIndex = usize;

/// What becomes of a chunk that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way and due at this moment.
    Due(u64),
    /// A cut swallowed it, and with it all that this connection sends in this direction from then on.
    Lost,
}

/// What becomes of a chunk whose moment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It can be read.
    Here,
    /// The link was cut while it was in flight.
    Lost,
    /// The link holds everything back for now.
    Held,
}

struct Link {
    /// Whether it is a link of the topology (or the way out of band).
    declared: Option<LinkProfile>,
    current: LinkProfile,
    /// Half the period of a flap, and when it began.
    flap: Option<(u64, u64)>,
    cut_since_ns: Option<u64>,
    restored_ns: u64,
    held: bool,
    busy_until_ns: u64,
    /// The last deviation of the delay, standard deviations.
    deviation: f64,
    /// Delays are whole milliseconds: this direction rounds halves up, the other one down.
    rounds_up: bool,
    rng: SmallRng,
    bytes: BTreeMap<&'static str, u64>,
}

impl Link {
    fn is_cut(&self, now_ns: u64) -> bool {
        match self.flap {
            Some((half_ns, since_ns)) => (now_ns.saturating_sub(since_ns) / half_ns) % 2 == 1,
            None => self.current.state == LinkState::Cut,
        }
    }

    /// Whether it was cut at any moment between these two, the second being now.
    fn was_cut(&self, sent_ns: u64, now_ns: u64) -> bool {
        let flapped = self.flap.is_some_and(|(half_ns, since_ns)| {
            let phase = |at_ns: u64| at_ns.saturating_sub(since_ns) / half_ns;
            phase(now_ns) > phase(sent_ns) || phase(now_ns) % 2 == 1
        });
        flapped || self.cut_since_ns.is_some() || self.restored_ns > sent_ns
    }

    fn delay_ns(&mut self, bytes: usize, now_ns: u64) -> u64 {
        let profile = &self.current;
        let mut delay_ms = profile.delay_ms;
        if profile.jitter_ms > 0.0 {
            let fresh = match profile.jitter_distribution {
                // The sum of twelve uniform draws has variance 1 (Irwin-Hall).
                JitterDistribution::Normal => (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0,
                other @ JitterDistribution::Pareto => other.draw(|| self.rng.random()),
            };
            let kept = profile.jitter_correlation;
            self.deviation = kept * self.deviation + (1.0 - kept * kept).sqrt() * fresh;
            delay_ms = (delay_ms + profile.jitter_ms * self.deviation).max(0.0);
        }
        let mut ns = round_ms(delay_ms, self.rounds_up);
        if profile.loss > 0.0 {
            let packets = bytes.div_ceil(PACKET_BYTES).max(1) as i32;
            let hit = 1.0 - (1.0 - profile.loss).powi(packets);
            let mut wait_ns = RETRANSMIT_NS.max(3 * ns);
            // Each retransmission may be lost, too; the wait doubles up to about a minute.
            for _ in 0..9 {
                if self.rng.random::<f64>() >= hit {
                    break;
                }
                ns += wait_ns;
                wait_ns *= 2;
            }
        }
        if let Some(rate) = profile.rate_kbit {
            let begin_ns = self.busy_until_ns.max(now_ns);
            self.busy_until_ns = begin_ns + (bytes as u64 * 8 * MS) / rate.max(1);
            ns += self.busy_until_ns - now_ns;
        }
        ns
    }
}

/// Whole milliseconds as nanoseconds: the nearest, halves up or down.
fn round_ms(ms: f64, up: bool) -> u64 {
    let whole = if up { (ms + 0.5).floor() } else { (ms - 0.5).ceil() };
    whole.max(0.0) as u64 * MS
}

struct Connection {
    from: HostIndex,
    to: HostIndex,
    /// What it sent was lost: it carries nothing more in that direction.
    dead_out: bool,
    /// What was sent to it was lost.
    dead_in: bool,
    reset: bool,
    /// How long its end takes to get here, if the process at the other end is gone.
    end_ns: Option<u64>,
    waker: Option<Waker>,
}

impl Connection {
    /// Whether it lost bytes on this directed link.
    fn lost_on(&self, from: HostIndex, to: HostIndex) -> bool {
        (self.dead_out && (self.from, self.to) == (from, to)) || (self.dead_in && (self.from, self.to) == (to, from))
    }
}

/// Why a link cannot be changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PatchError {
    /// There is no such link.
    #[error("there is no link from {0} to {1}; name two locations of the topology")]
    Unknown(String, String),
    /// A figure is out of bounds.
    #[error(transparent)]
    Bounds(#[from] longhaul_core::link::LinkError),
}

/// Every directed link, and every open connection.
pub(crate) struct Links {
    time: SimTime,
    names: Vec<String>,
    state: Mutex<State>,
}

struct State {
    links: Vec<Link>,
    up: Vec<bool>,
    dying: Vec<bool>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
}

impl Links {
    /// The links of a topology between `names` (its locations, then hosts that stand outside of it).
    pub(crate) fn new(time: SimTime, topology: &Topology, names: Vec<String>, seed: u64) -> Arc<Self> {
        let count = names.len();
        let mut links = Vec::with_capacity(count * count);
        let declared: BTreeMap<(&str, &str), &LinkProfile> =
            topology.links.iter().map(|((from, to), link)| ((from.as_str(), to.as_str()), &link.profile)).collect();
        for (from, from_name) in names.iter().enumerate() {
            for (to, to_name) in names.iter().enumerate() {
                let declared = declared.get(&(from_name.as_str(), to_name.as_str())).copied().cloned();
                links.push(Link {
                    current: declared.clone().unwrap_or_else(|| LinkProfile::delay(0.0)),
                    declared,
                    flap: None,
                    cut_since_ns: None,
                    restored_ns: 0,
                    held: false,
                    busy_until_ns: 0,
                    deviation: 0.0,
                    rounds_up: from < to,
                    rng: seed::stream(seed, (from * count + to) as u64),
                    bytes: BTreeMap::new(),
                });
            }
        }
        let state = State {
            links,
            up: vec![false; count],
            dying: vec![false; count],
            connections: BTreeMap::new(),
            next_connection: 0,
        };
        Arc::new(Self { time, names, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, from: HostIndex, to: HostIndex) -> usize {
        from * self.names.len() + to
    }

    /// Virtual time, nanoseconds since the start.
    pub(crate) fn now_ns(&self) -> u64 {
        self.time.now_ns()
    }

    /// The place of a host.
    pub(crate) fn host(&self, name: &str) -> Option<HostIndex> {
        self.names.iter().position(|known| known == name)
    }

    /// A host's name.
    pub(crate) fn name(&self, host: HostIndex) -> &str {
        self.names.get(host).map_or("unknown", String::as_str)
    }

    /// Every host, in order.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// A host's process dies in this moment, in the middle of a tick, or is gone: what it does until the end of the tick is
    /// never sent.
    pub(crate) fn set_dying(&self, host: HostIndex, dying: bool) {
        self.lock().dying[host] = dying;
    }

    /// Whether a host's process is about to be gone.
    pub(crate) fn is_dying(&self, host: HostIndex) -> bool {
        self.lock().dying[host]
    }

    /// A host's process runs from now on, or does not.
    ///
    /// A process that is gone drops its connections in an order that depends on what else this program has run before (tokio
    /// shuts tasks down by their numbers, which count through all runtimes). So it is decided here, from the oldest
    /// connection to the newest, how long their ends take, and no two of the same pair of hosts come at the same moment.
    pub(crate) fn set_up(&self, host: HostIndex, up: bool) {
        let now_ns = self.now_ns();
        let state = &mut *self.lock();
        state.up[host] = up;
        if up {
            return;
        }
        let mut last_ns: Vec<Option<u64>> = vec![None; self.names.len()];
        for connection in state.connections.values_mut().filter(|connection| connection.to == host) {
            let way_ns = state.links[self.place(host, connection.from)].delay_ns(64, now_ns);
            let end_ns = last_ns[connection.from].map_or(way_ns, |last_ns| way_ns.max(last_ns + MS));
            last_ns[connection.from] = Some(end_ns);
            connection.end_ns = Some(end_ns);
        }
    }

    /// Whether a host's process runs.
    pub(crate) fn is_up(&self, host: HostIndex) -> bool {
        self.lock().up[host]
    }

    /// How long a handshake between two hosts takes, nanoseconds; `None` if it cannot succeed now.
    pub(crate) fn handshake_ns(&self, from: HostIndex, to: HostIndex) -> Option<u64> {
        let now_ns = self.now_ns();
        let (there, back) = (self.place(from, to), self.place(to, from));
        let state = &mut *self.lock();
        let passes = |link: &Link| !link.held && !link.is_cut(now_ns);
        if !passes(&state.links[there]) || !passes(&state.links[back]) {
            return None;
        }
        Some(state.links[there].delay_ns(64, now_ns) + state.links[back].delay_ns(64, now_ns))
    }

    /// A connection that sends from one host to another; answers its number.
    pub(crate) fn opened(&self, from: HostIndex, to: HostIndex) -> u64 {
        let mut state = self.lock();
        let id = state.next_connection;
        state.next_connection += 1;
        let connection =
            Connection { from, to, dead_out: false, dead_in: false, reset: false, end_ns: None, waker: None };
        state.connections.insert(id, connection);
        id
    }

    /// How long the end of this connection takes to get here from the other one.
    pub(crate) fn end_ns(&self, connection: u64) -> u64 {
        let now_ns = self.now_ns();
        let state = &mut *self.lock();
        let Some(&Connection { from, to, end_ns, .. }) = state.connections.get(&connection) else { return 0 };
        end_ns.unwrap_or_else(|| state.links[self.place(to, from)].delay_ns(64, now_ns))
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, connection: u64) {
        self.lock().connections.remove(&connection);
    }

    /// Sends a chunk.
    pub(crate) fn send(&self, connection: u64, from: HostIndex, to: HostIndex, bytes: usize) -> Sent {
        let now_ns = self.now_ns();
        let place = self.place(from, to);
        let state = &mut *self.lock();
        let link = &mut state.links[place];
        if link.is_cut(now_ns) {
            if let Some(connection) = state.connections.get_mut(&connection) {
                connection.dead_out = true;
            }
            return Sent::Lost;
        }
        Sent::Due(now_ns + link.delay_ns(bytes, now_ns))
    }

    /// The peer of a connection says that what it sent was lost.
    pub(crate) fn lost(&self, connection: u64) {
        if let Some(connection) = self.lock().connections.get_mut(&connection) {
            connection.dead_in = true;
        }
    }

    /// A chunk's moment has come. One that is lost or held is waited for with `waker`.
    pub(crate) fn arrive(
        &self,
        connection: u64,
        (from, to): (HostIndex, HostIndex),
        sent_ns: u64,
        (cause, bytes): (Cause, usize),
        waker: &Waker,
    ) -> Arrival {
        let now_ns = self.now_ns();
        let place = self.place(from, to);
        let state = &mut *self.lock();
        let link = &mut state.links[place];
        if link.was_cut(sent_ns, now_ns) {
            if let Some(connection) = state.connections.get_mut(&connection) {
                connection.dead_in = true;
            }
            return Arrival::Lost;
        }
        if link.held {
            if let Some(connection) = state.connections.get_mut(&connection) {
                connection.waker = Some(waker.clone());
            }
            return Arrival::Held;
        }
        if link.declared.is_some() {
            *link.bytes.entry(cause.as_str()).or_default() += bytes as u64;
        }
        Arrival::Here
    }

    /// Whether a reset hit the connection; otherwise `waker` is woken when one does.
    pub(crate) fn is_reset(&self, connection: u64, waker: &Waker) -> bool {
        match self.lock().connections.get_mut(&connection) {
            Some(connection) if !connection.reset => {
                if connection.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    connection.waker = Some(waker.clone());
                }
                false
            }
            _ => true,
        }
    }

    fn reset(state: &mut State, hit: impl Fn(&Connection) -> bool) {
        for connection in state.connections.values_mut().filter(|connection| hit(connection)) {
            connection.reset = true;
            if let Some(waker) = connection.waker.take() {
                waker.wake();
            }
        }
    }

    fn wake(state: &mut State, hit: impl Fn(&Connection) -> bool) {
        for connection in state.connections.values_mut().filter(|connection| hit(connection)) {
            if let Some(waker) = connection.waker.take() {
                waker.wake();
            }
        }
    }

    /// Holds a directed link back, or lets go: what is in flight waits and is not lost.
    pub(crate) fn hold(&self, from: HostIndex, to: HostIndex, held: bool) {
        let place = self.place(from, to);
        let state = &mut *self.lock();
        state.links[place].held = held;
        Self::wake(state, |connection| (connection.from, connection.to) == (to, from));
    }

    /// Holds everything from and to a host back, out of band too, or lets go.
    pub(crate) fn freeze(&self, host: HostIndex, frozen: bool) {
        for other in (0..self.names.len()).filter(|other| *other != host) {
            self.hold(host, other, frozen);
            self.hold(other, host, frozen);
        }
    }

    /// Changes a directed link.
    pub(crate) fn patch(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, PatchError> {
        patch.validate_for_streams()?;
        let unknown = || PatchError::Unknown(from.to_owned(), to.to_owned());
        let (a, b) = (self.host(from).ok_or_else(unknown)?, self.host(to).ok_or_else(unknown)?);
        let (place, now_ns) = (self.place(a, b), self.now_ns());
        let state = &mut *self.lock();
        let link = &mut state.links[place];
        if link.declared.is_none() {
            return Err(unknown());
        }
        let restored = Self::apply(link, patch, now_ns);
        if restored {
            Self::reset(state, |connection| connection.lost_on(a, b));
        }
        if patch.reset {
            let pairs = [(a, b), (b, a)];
            Self::reset(state, |connection| pairs.contains(&(connection.from, connection.to)));
        }
        self.view(state, a, b).ok_or_else(unknown)
    }

    /// Changes a link; answers whether that ended a cut.
    fn apply(link: &mut Link, patch: &LinkPatch, now_ns: u64) -> bool {
        let was_cut = link.is_cut(now_ns);
        link.current = link.current.patched(patch);
        if let Some(flap_ms) = patch.flap_ms {
            link.flap = (flap_ms > 0).then_some((flap_ms * MS, now_ns));
        } else if patch.state.is_some() {
            link.flap = None;
        }
        let is_cut = link.is_cut(now_ns);
        link.cut_since_ns =
            (link.current.state == LinkState::Cut && link.flap.is_none()).then(|| link.cut_since_ns.unwrap_or(now_ns));
        if was_cut && !is_cut {
            link.restored_ns = now_ns;
        }
        if patch.rate_kbit.is_some() {
            link.busy_until_ns = now_ns;
        }
        was_cut && !is_cut
    }

    /// Every link as declared again, and nothing held.
    pub(crate) fn restore_all(&self) {
        let now_ns = self.now_ns();
        let state = &mut *self.lock();
        for link in &mut state.links {
            let Some(declared) = link.declared.clone() else {
                link.held = false;
                continue;
            };
            Self::apply(link, &declared.as_patch(), now_ns);
            link.held = false;
        }
        // No link is cut any more: whoever lost bytes is told now.
        Self::reset(state, |connection| connection.dead_in || connection.dead_out);
        Self::wake(state, |_| true);
    }

    fn view(&self, state: &State, from: HostIndex, to: HostIndex) -> Option<LinkView> {
        let link = &state.links[self.place(from, to)];
        let declared = link.declared.clone()?;
        let mut current = link.current.clone();
        current.state = if link.is_cut(self.now_ns()) { LinkState::Cut } else { LinkState::Up };
        let open = || state.connections.values().filter(|connection| (connection.from, connection.to) == (from, to));
        Some(LinkView {
            from: self.name(from).to_owned(),
            to: self.name(to).to_owned(),
            declared,
            current,
            flap_ms: link.flap.map(|(half_ns, _)| half_ns / MS),
            connections: open().count() as u32,
            dead_connections: open().filter(|connection| connection.dead_out).count() as u32,
        })
    }

    /// One directed link as it is now.
    pub(crate) fn link(&self, from: &str, to: &str) -> Option<LinkView> {
        let (from, to) = (self.host(from)?, self.host(to)?);
        self.view(&self.lock(), from, to)
    }

    /// Every directed link of the topology as it is now.
    pub(crate) fn views(&self) -> Vec<LinkView> {
        let state = self.lock();
        let pairs = (0..self.names.len()).flat_map(|from| (0..self.names.len()).map(move |to| (from, to)));
        pairs.filter_map(|(from, to)| self.view(&state, from, to)).collect()
    }

    /// What crossed each link of the topology, by cause.
    pub(crate) fn bytes(&self) -> Vec<LinkBytesView> {
        let state = self.lock();
        let pairs = (0..self.names.len()).flat_map(|from| (0..self.names.len()).map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| state.links[self.place(*from, *to)].declared.is_some())
            .map(|(from, to)| LinkBytesView {
                from: self.name(from).to_owned(),
                to: self.name(to).to_owned(),
                bytes: state.links[self.place(from, to)]
                    .bytes
                    .iter()
                    .map(|(cause, bytes)| ((*cause).to_owned(), *bytes))
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> (SimTime, Arc<Links>) {
        let time = SimTime::default();
        let topology = Topology::shipped("three-continents").unwrap().unwrap();
        let names = topology.locations.iter().map(|location| location.name.to_string()).collect();
        (time.clone(), Links::new(time, &topology, names, 1))
    }

    #[test]
    fn both_ways_of_a_round_trip_add_up_to_what_is_declared() {
        assert_eq!(round_ms(5.5, true) + round_ms(5.5, false), 11 * MS);
        assert_eq!((round_ms(5.4, true), round_ms(5.6, false)), (5 * MS, 6 * MS));
        assert_eq!(round_ms(0.0, false), 0);
    }

    #[test]
    fn what_is_in_flight_when_a_link_is_cut_is_lost_and_what_is_held_is_not() {
        let (time, links) = links();
        let (sender, connection) = (links.opened(0, 1), links.opened(1, 0));
        let Sent::Due(due_ns) = links.send(sender, 0, 1, 10) else { panic!("the link is up") };
        let waker = Waker::noop();
        let arrive = |sent_ns| links.arrive(connection, (0, 1), sent_ns, (Cause::Users, 10), waker);
        links.hold(0, 1, true);
        time.advance_to(due_ns);
        assert_eq!(arrive(0), Arrival::Held);
        links.hold(0, 1, false);
        assert_eq!(arrive(0), Arrival::Here);
        let (a, b) = (links.name(0).to_owned(), links.name(1).to_owned());
        links.patch(&a, &b, &LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() }).unwrap();
        assert_eq!(links.send(sender, 0, 1, 10), Sent::Lost);
        assert_eq!(arrive(due_ns), Arrival::Lost);
        time.advance_to(due_ns + 5);
        links.restore_all();
        assert_eq!(arrive(due_ns), Arrival::Lost, "it was sent before the cut ended");
        time.advance_to(due_ns + 6);
        assert_eq!(arrive(due_ns + 5), Arrival::Here);
    }

    #[test]
    fn ends_of_a_dead_process_take_as_long_whatever_is_dropped_first() {
        let ends = |first_dropped: usize| {
            let (_, links) = links();
            let (a, b) = (links.name(0).to_owned(), links.name(1).to_owned());
            let jitter = LinkPatch { jitter_ms: Some(20.0), ..LinkPatch::default() };
            links.patch(&b, &a, &jitter).unwrap();
            links.set_up(1, true);
            let mut connections = [0, 0, 2, 0].map(|from| links.opened(from, 1)).to_vec();
            links.set_up(1, false);
            links.set_up(1, true);
            connections.rotate_left(first_dropped);
            let mut ends: Vec<_> =
                connections.into_iter().map(|connection| (connection, links.end_ns(connection))).collect();
            ends.sort_unstable();
            ends
        };
        let usual = ends(0);
        assert!((1..4).all(|first_dropped| ends(first_dropped) == usual), "{usual:?}");
        assert!(usual[0].1 + MS <= usual[1].1 && usual[1].1 + MS <= usual[3].1, "one after the other: {usual:?}");
    }

    #[test]
    fn a_flap_cuts_every_other_half_period() {
        let (time, links) = links();
        let (a, b) = (links.name(0).to_owned(), links.name(1).to_owned());
        links.patch(&a, &b, &LinkPatch { flap_ms: Some(1000), ..LinkPatch::default() }).unwrap();
        let is_cut = |at_ms: u64| {
            time.advance_to(at_ms * MS);
            links.link(&a, &b).unwrap().current.state == LinkState::Cut
        };
        assert_eq!([500, 1500, 2500, 3500].map(is_cut), [false, true, false, true]);
        links.restore_all();
        assert!(!is_cut(5500));
    }
}
