//! The network seam over turmoil: hosts by name, chunks that arrive when their link says so.
//!
//! Two differences to turmoil's own links. A chunk is held back by its **receiver** until it is due, so that a delay
//! does not depend on the tick; and a cut is a black hole as in the other worlds: what is in flight is lost, what is
//! sent is swallowed, and nobody is told before the link is up again.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use longhaul_http::net::{Accept, BoxIo, Listener, Net, NetFuture};
use longhaul_netem::relay::Cause;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use turmoil::net::{TcpListener, TcpStream};

use crate::links::{Arrival, HostIndex, Links, Sent};

/// The port of every host's only service.
pub(crate) const PORT: u16 = 7000;

/// Most bytes of one chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// What precedes each chunk: when it was sent and when it is due, nanoseconds since the start.
const STAMP_BYTES: usize = 16;
/// In place of a stamp: what this connection sends is lost from here on.
const LOST: u64 = u64::MAX;
/// How long a dialer waits before it tries again through a cut (as TCP repeats its first segment).
const DIAL_AGAIN: Duration = Duration::from_secs(1);

/// The address of a host's service.
pub(crate) fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

/// The network as one host sees it.
pub(crate) struct SimNet {
    me: HostIndex,
    links: Arc<Links>,
}

impl SimNet {
    /// The network of this host.
    pub(crate) fn new(me: HostIndex, links: Arc<Links>) -> Self {
        Self { me, links }
    }

    async fn dial(&self, target: &str) -> io::Result<BoxIo> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("{target} is no host of the simulation"));
        let (host, port) = target.rsplit_once(':').ok_or_else(unknown)?;
        let port: u16 = port.parse().map_err(|_| unknown())?;
        let peer = self.links.host(host).ok_or_else(unknown)?;
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("{target} refused the connection"));
        loop {
            let Some(handshake_ns) = self.links.handshake_ns(self.me, peer) else {
                sleep(DIAL_AGAIN).await;
                continue;
            };
            let connected = Instant::now() + Duration::from_nanos(handshake_ns);
            if !self.links.is_up(peer) {
                sleep_until(connected).await;
                return Err(refused());
            }
            let dialled = TcpStream::connect((host, port)).await;
            sleep_until(connected).await;
            let stream = dialled.map_err(|_| refused())?;
            if self.links.handshake_ns(self.me, peer).is_none() {
                // Cut meanwhile: the answer never came.
                drop(stream);
                sleep(DIAL_AGAIN).await;
                continue;
            }
            return Ok(Box::new(LinkIo::new(stream, self.me, peer, true, self.links.clone())) as BoxIo);
        }
    }
}

impl Net for SimNet {
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo> {
        Box::pin(self.dial(address))
    }

    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(async move {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, address.to_owned()))?;
            let listener = TcpListener::bind(("0.0.0.0", port)).await?;
            Ok(Listener::new(SimAccept { listener, me: self.me, links: self.links.clone() }))
        })
    }
}

struct SimAccept {
    listener: TcpListener,
    me: HostIndex,
    links: Arc<Links>,
}

impl Accept for SimAccept {
    fn accept(&mut self) -> NetFuture<'_, (BoxIo, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            let name = turmoil::reverse_lookup(peer.ip());
            let from = name.and_then(|name| self.links.host(&name));
            let from = from.ok_or_else(|| io::Error::other(format!("{peer} is no host of the simulation")))?;
            let io = LinkIo::new(stream, self.me, from, false, self.links.clone());
            Ok((Box::new(io) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Chunk {
    sent_ns: u64,
    due_ns: u64,
    bytes: Bytes,
    /// Whether its arrival was decided (a reader may take it in parts).
    here: bool,
}

/// One end of a connection over a link.
struct LinkIo {
    stream: TcpStream,
    me: HostIndex,
    peer: HostIndex,
    links: Arc<Links>,
    id: u64,
    /// Whether this end opened the connection: only then do its chunks begin with request lines.
    dialer: bool,
    cause: Cause,
    last_due_ns: u64,
    prepared: Option<Bytes>,
    lost_out: bool,
    inbox: VecDeque<Chunk>,
    /// The end of the stream and when it is due.
    end: Option<(u64, bool)>,
    lost_in: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl LinkIo {
    fn new(stream: TcpStream, me: HostIndex, peer: HostIndex, dialer: bool, links: Arc<Links>) -> Self {
        let id = links.opened(me, peer);
        Self {
            stream,
            me,
            peer,
            links,
            id,
            dialer,
            cause: Cause::Users,
            last_due_ns: 0,
            prepared: None,
            lost_out: false,
            inbox: VecDeque::new(),
            end: None,
            lost_in: false,
            timer: None,
        }
    }

    /// Takes whatever turmoil has delivered.
    fn drain(&mut self, context: &mut Context<'_>) {
        if self.end.is_some() {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                // turmoil gives at most one segment at a time, and a segment is what was written at once.
                let mut buffer = ReadBuf::new(scratch);
                let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, &mut buffer) else { return };
                let segment = buffer.filled();
                if read.is_err() || segment.len() < STAMP_BYTES {
                    let due_ns = self.links.now_ns() + self.links.end_ns(self.id);
                    self.end = Some((due_ns.max(self.inbox.back().map_or(0, |chunk| chunk.due_ns)), read.is_err()));
                    return;
                }
                let (mut stamp, bytes) = segment.split_at(STAMP_BYTES);
                let (sent_ns, due_ns) = (stamp.get_u64(), stamp.get_u64());
                self.inbox.push_back(Chunk { sent_ns, due_ns, bytes: Bytes::copy_from_slice(bytes), here: false });
            }
        });
    }

    /// Waits on the virtual clock until a moment.
    fn poll_until(&mut self, due_ns: u64, context: &mut Context<'_>) -> Poll<()> {
        let now_ns = self.links.now_ns();
        if due_ns <= now_ns {
            return Poll::Ready(());
        }
        let due = Instant::now() + Duration::from_nanos(due_ns - now_ns);
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.deadline() != due {
                    timer.as_mut().reset(due);
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(due))),
        };
        timer.as_mut().poll(context)
    }

    fn poll_chunk(&mut self, buffer: &mut ReadBuf<'_>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((sent_ns, due_ns, here, bytes)) =
            self.inbox.front().map(|chunk| (chunk.sent_ns, chunk.due_ns, chunk.here, chunk.bytes.len()))
        else {
            return self.poll_end(context);
        };
        if sent_ns == LOST {
            self.lost_in = true;
            self.links.lost(self.id);
            return Poll::Pending;
        }
        if !here {
            if self.poll_until(due_ns, context).is_pending() {
                return Poll::Pending;
            }
            if !self.dialer
                && let Some(cause) = self.inbox.front().and_then(|chunk| Cause::of_request(&chunk.bytes))
            {
                self.cause = cause;
            }
            let way = (self.peer, self.me);
            match self.links.arrive(self.id, way, sent_ns, (self.cause, bytes), context.waker()) {
                Arrival::Held => return Poll::Pending,
                Arrival::Lost => {
                    self.lost_in = true;
                    return Poll::Pending;
                }
                Arrival::Here => {}
            }
        }
        let Some(chunk) = self.inbox.front_mut() else { return Poll::Pending };
        chunk.here = true;
        let taken = chunk.bytes.len().min(buffer.remaining());
        buffer.put_slice(&chunk.bytes.split_to(taken));
        if chunk.bytes.is_empty() {
            self.inbox.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((due_ns, reset)) = self.end else { return Poll::Pending };
        if self.poll_until(due_ns, context).is_pending() {
            return Poll::Pending;
        }
        // The last words of a process behind a cut do not arrive.
        let way = (self.peer, self.me);
        match self.links.arrive(self.id, way, due_ns, (self.cause, 0), context.waker()) {
            Arrival::Held => Poll::Pending,
            Arrival::Lost => {
                self.lost_in = true;
                Poll::Pending
            }
            Arrival::Here if reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Arrival::Here => Poll::Ready(Ok(())),
        }
    }

    /// Puts a stamped chunk onto turmoil's stream.
    fn poll_prepared(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut segment) = self.prepared.take() {
            match Pin::new(&mut self.stream).poll_write(context, &segment) {
                Poll::Ready(Ok(written)) if written < segment.len() => {
                    segment.advance(written);
                    self.prepared = Some(segment);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.prepared = Some(segment);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> =
        std::cell::RefCell::new(vec![0; STAMP_BYTES + CHUNK_BYTES]);
}

impl AsyncRead for LinkIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.links.is_reset(this.id, context.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        this.drain(context);
        if this.lost_in {
            return Poll::Pending;
        }
        this.poll_chunk(buffer, context)
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.links.is_reset(this.id, context.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if this.lost_out || this.links.is_dying(this.me) {
            return Poll::Ready(Ok(bytes.len()));
        }
        match this.poll_prepared(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let taken = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let now_ns = this.links.now_ns();
        let (sent_ns, due_ns) = match this.links.send(this.id, this.me, this.peer, taken.len()) {
            Sent::Due(due_ns) => (now_ns, due_ns.max(this.last_due_ns)),
            Sent::Lost => {
                this.lost_out = true;
                (LOST, LOST)
            }
        };
        let mut segment = BytesMut::with_capacity(STAMP_BYTES + taken.len());
        segment.extend_from_slice(&sent_ns.to_be_bytes());
        segment.extend_from_slice(&due_ns.to_be_bytes());
        if sent_ns != LOST {
            this.last_due_ns = due_ns;
            segment.extend_from_slice(taken);
        }
        this.prepared = Some(segment.freeze());
        match this.poll_prepared(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Taken, even if turmoil's window is full for the moment: the next write or flush goes on with it.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_prepared(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_prepared(context).is_pending() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => Poll::Pending,
            // The peer may have gone first.
            Poll::Ready(_) => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for LinkIo {
    fn drop(&mut self) {
        self.links.closed(self.id);
    }
}
