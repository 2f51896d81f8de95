//! One direction of one connection: bytes are taken as they come, stamped, and given out when they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use longhaul_core::limits;
use longhaul_http::net::BoxIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::cause::Cause;
use super::link::{DirectedLink, Ticket};
use super::timer::Timer;

/// Most bytes taken at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Space below which a new buffer is taken.
const CHUNK_BYTES_MIN: usize = 4 * 1024;

/// What both directions of a connection know.
pub(super) struct Shared {
    /// Notified when a direction dies.
    pub(super) died: Notify,
    cause: AtomicU8,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { died: Notify::new(), cause: AtomicU8::new(Cause::Users as u8) }
    }

    /// Each request on a connection says what it is for; a replication stream stays one.
    fn note_request(&self, chunk: &[u8]) {
        if self.cause() != Cause::Replication
            && let Some(cause) = Cause::of_request(chunk)
        {
            self.cause.store(cause as u8, Ordering::Relaxed);
        }
    }

    fn cause(&self) -> Cause {
        Cause::from_index(self.cause.load(Ordering::Relaxed))
    }
}

/// One direction of one connection.
pub(super) struct Lane<'a> {
    pub(super) link: &'a DirectedLink,
    pub(super) back: &'a DirectedLink,
    pub(super) timer: &'a Timer,
    pub(super) shared: &'a Shared,
    /// Whether this direction begins at the dialer.
    pub(super) from_dialer: bool,
    /// Nothing is sent before this moment: the handshake.
    pub(super) open_ns: u64,
    dead: AtomicBool,
}

/// Why a connection ends early: the peer is to see a reset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reset;

enum Cargo {
    Data(Bytes, OwnedSemaphorePermit),
    End,
    Reset,
}

struct Parcel {
    ticket: Ticket,
    cargo: Cargo,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        link: &'a DirectedLink,
        back: &'a DirectedLink,
        timer: &'a Timer,
        shared: &'a Shared,
        from_dialer: bool,
        open_ns: u64,
    ) -> Self {
        Self { link, back, timer, shared, from_dialer, open_ns, dead: AtomicBool::new(false) }
    }

    /// Whether it lost bytes for good.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    fn die(&self) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            self.shared.died.notify_one();
        }
    }

    /// Carries bytes until the sender ends them (`Ok`, the end delivered) or the connection breaks (`Err`). A lane that
    /// died carries nothing and never completes: its connection is reset once the link is up again.
    pub(super) async fn carry(&self, from: &mut ReadHalf<BoxIo>, to: &mut WriteHalf<BoxIo>) -> Result<(), Reset> {
        let (parcels, arrivals) = mpsc::channel(limits::RELAY_IN_FLIGHT_CHUNKS);
        let take = async {
            self.take(from, parcels).await;
            std::future::pending().await
        };
        tokio::select! {
            biased;
            delivered = self.deliver(to, arrivals) => delivered,
            never = take => never,
        }
    }

    async fn take(&self, from: &mut ReadHalf<BoxIo>, parcels: mpsc::Sender<Parcel>) {
        let in_flight = Arc::new(Semaphore::new(limits::RELAY_IN_FLIGHT_BYTES));
        let earlier_ns = AtomicU64::new(0);
        let send = |bytes: usize| {
            let arrival_ns = self.timer.now_ns().max(self.open_ns);
            let ticket = self.link.send(arrival_ns, bytes, earlier_ns.load(Ordering::Relaxed), self.back);
            match ticket {
                Some(ticket) => earlier_ns.store(ticket.at_ns, Ordering::Relaxed),
                None => self.die(),
            }
            ticket
        };
        let mut buffer = BytesMut::new();
        loop {
            self.wait_for_queue().await;
            let largest = self.link.chunk_bytes(CHUNK_BYTES);
            // Small messages share a buffer.
            if buffer.capacity() < CHUNK_BYTES_MIN {
                buffer.reserve(CHUNK_BYTES);
            }
            let cargo = match from.read_buf(&mut (&mut buffer).limit(largest)).await {
                Ok(0) => Cargo::End,
                Err(_) => Cargo::Reset,
                Ok(count) => {
                    let chunk = buffer.split_to(count).freeze();
                    if self.is_dead() {
                        continue;
                    }
                    if self.from_dialer {
                        self.shared.note_request(&chunk);
                    }
                    let count = u32::try_from(count).expect("a chunk is at most 64 KiB");
                    let Ok(permit) = in_flight.clone().acquire_many_owned(count).await else { return };
                    Cargo::Data(chunk, permit)
                }
            };
            let (bytes, last) = match &cargo {
                Cargo::Data(chunk, _) => (chunk.len(), false),
                Cargo::End | Cargo::Reset => (0, true),
            };
            if let Some(ticket) = send(bytes)
                && !self.is_dead()
            {
                // Nobody receives once the lane is dead; the sender does not notice and is listened to until it ends.
                let _ = parcels.send(Parcel { ticket, cargo }).await;
            }
            if last {
                return;
            }
        }
    }

    async fn wait_for_queue(&self) {
        loop {
            let now_ns = self.timer.now_ns();
            let wait_ns = self.link.queue_wait_ns(now_ns);
            if wait_ns == 0 {
                return;
            }
            self.timer.sleep_until(now_ns + wait_ns).await;
        }
    }

    async fn deliver(&self, to: &mut WriteHalf<BoxIo>, mut arrivals: mpsc::Receiver<Parcel>) -> Result<(), Reset> {
        while let Some(Parcel { ticket, cargo }) = arrivals.recv().await {
            self.timer.sleep_until(ticket.at_ns).await;
            if !self.link.arrives(ticket) {
                self.die();
            }
            if self.is_dead() {
                // Frees what else is in flight, too.
                drop(arrivals);
                break;
            }
            match cargo {
                Cargo::Data(chunk, permit) => {
                    if to.write_all(&chunk).await.is_err() {
                        return self.refuse().await;
                    }
                    self.link.delivered(self.shared.cause(), chunk.len());
                    drop(permit);
                }
                Cargo::End => {
                    return if to.shutdown().await.is_ok() { Ok(()) } else { self.refuse().await };
                }
                Cargo::Reset => return Err(Reset),
            }
        }
        std::future::pending().await
    }

    /// The receiver is gone: the sender learns it one delay later.
    async fn refuse(&self) -> Result<(), Reset> {
        self.timer.sleep_until(self.timer.now_ns() + self.back.delay_ns()).await;
        Err(Reset)
    }
}
