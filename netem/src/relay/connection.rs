//! One connection over a pair of links, from its handshake to its end.

use std::sync::Arc;

use longhaul_core::limits;
use longhaul_http::net::{self, BoxIo, SharedNet};
use longhaul_http::watch::Receiver;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::lane::{Lane, Reset, Shared};
use super::link::{DirectedLink, LinkEvents, RTO_NS_INITIAL};
use super::timer::Timer;

/// The way of a connection: there, back, and to whom.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) out: Arc<DirectedLink>,
    pub(super) back: Arc<DirectedLink>,
    pub(super) target: Arc<str>,
    pub(super) net: SharedNet,
    pub(super) timer: Arc<Timer>,
}

/// How the handshake went.
enum Handshake {
    /// Open: bytes of the dialer count from this moment on.
    Open(BoxIo, u64),
    /// A packet of it was lost in a cut: nobody will ever answer.
    Lost,
    /// Nobody listens at the target.
    Refused,
}

impl Route {
    /// Carries an accepted connection until it ends, is reset, or `shutdown`.
    pub(super) async fn carry(self, dialer: BoxIo, shutdown: CancellationToken) {
        let _open = (self.out.open_connection(), self.back.open_connection());
        let mut events = (self.out.events(), self.back.events());
        let resets_before = (events.0.borrow_and_update().resets, events.1.borrow_and_update().resets);
        let handshake = tokio::select! {
            biased;
            () = shutdown.cancelled() => return net::reset(dialer),
            handshake = self.handshake() => handshake,
        };
        let shared = Shared::new();
        match handshake {
            Handshake::Refused => net::reset(dialer),
            Handshake::Lost => self.black_hole(dialer, shutdown).await,
            Handshake::Open(target, open_ns) => {
                let (mut dialer_read, mut dialer_write) = tokio::io::split(dialer);
                let (mut target_read, mut target_write) = tokio::io::split(target);
                let there = Lane::new(&self.out, &self.back, &self.timer, &shared, true, open_ns);
                let back = Lane::new(&self.back, &self.out, &self.timer, &shared, false, 0);
                let result = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => Err(Reset),
                    () = self.until_reset(&there, &back, &shared, resets_before, &mut events) => Err(Reset),
                    result = async {
                        tokio::try_join!(
                            there.carry(&mut dialer_read, &mut target_write),
                            back.carry(&mut target_read, &mut dialer_write),
                        )
                    } => result.map(|_| ()),
                };
                if result == Err(Reset) {
                    net::reset(dialer_read.unsplit(dialer_write));
                    net::reset(target_read.unsplit(target_write));
                }
            }
        }
    }

    /// Connects as TCP would: the target hears of it one delay later, and the dialer may send one round trip later.
    async fn handshake(&self) -> Handshake {
        let start_ns = self.timer.now_ns();
        let mut sent_ns = start_ns;
        while self.out.loses_one() || self.back.loses_one() {
            sent_ns += RTO_NS_INITIAL;
            if sent_ns - start_ns > limits::CONNECT_DEADLINE.as_nanos() as u64 {
                break;
            }
        }
        let Some(request) = self.out.send(sent_ns, 0, 0, &self.back) else { return Handshake::Lost };
        self.timer.sleep_until(request.at_ns).await;
        if !self.out.arrives(request) {
            return Handshake::Lost;
        }
        let connected = match tokio::time::timeout(limits::CONNECT_DEADLINE, self.net.connect(&self.target)).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let Some(answer) = self.back.send(self.timer.now_ns(), 0, 0, &self.out) else { return Handshake::Lost };
        match connected {
            Ok(target) => Handshake::Open(target, answer.at_ns),
            Err(error) => {
                tracing::debug!(from = %self.out.from, to = %self.out.to, target = %self.target, %error, "no connection");
                self.timer.sleep_until(answer.at_ns).await;
                if self.back.arrives(answer) { Handshake::Refused } else { Handshake::Lost }
            }
        }
    }

    /// A dialer that nobody answers: until it gives up, or until both links are up again.
    async fn black_hole(&self, dialer: BoxIo, shutdown: CancellationToken) {
        let (mut read, write) = tokio::io::split(dialer);
        let _dead = self.out.dead_connection();
        let mut events = (self.out.events(), self.back.events());
        let healed = async {
            while events.0.borrow_and_update().cut || events.1.borrow_and_update().cut {
                let changed = tokio::select! {
                    biased;
                    changed = events.0.changed() => changed,
                    changed = events.1.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        };
        let gave_up = async {
            let mut ignored = [0; 4096];
            while read.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = healed => {}
            () = gave_up => {}
        }
        net::reset(read.unsplit(write));
    }

    /// Completes when the connection is to be reset: somebody asked for it, or a direction died and its link carries again.
    async fn until_reset(
        &self,
        there: &Lane<'_>,
        back: &Lane<'_>,
        shared: &Shared,
        resets_before: (u64, u64),
        events: &mut (Receiver<LinkEvents>, Receiver<LinkEvents>),
    ) {
        let mut gauges = (None, None);
        loop {
            let (out_now, back_now) = (*events.0.borrow_and_update(), *events.1.borrow_and_update());
            if (out_now.resets, back_now.resets) != resets_before {
                return;
            }
            if (there.is_dead() && !out_now.cut) || (back.is_dead() && !back_now.cut) {
                return;
            }
            if there.is_dead() && gauges.0.is_none() {
                gauges.0 = Some(self.out.dead_connection());
            }
            if back.is_dead() && gauges.1.is_none() {
                gauges.1 = Some(self.back.dead_connection());
            }
            let changed = tokio::select! {
                biased;
                changed = events.0.changed() => changed,
                changed = events.1.changed() => changed,
                () = shared.died.notified() => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }
}
