//! The network seam: dial and listen.

#![expect(clippy::disallowed_types, reason = "this is the seam over tokio's sockets")]

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future of the seam.
pub type NetFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A byte stream in both directions.
pub trait IoStream: AsyncRead + AsyncWrite + Send + Unpin + Any {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + Any> IoStream for T {}

/// An erased byte stream.
pub type BoxIo = Box<dyn IoStream>;

/// Closes a stream so that the peer sees a reset (TCP `RST`) instead of an end, and what is still unsent is dropped.
/// A stream that is no TCP socket is just dropped.
pub fn reset(io: BoxIo) {
    let io: Box<dyn Any> = io;
    if let Ok(stream) = io.downcast::<tokio::net::TcpStream>()
        && let Err(error) = stream.set_zero_linger()
    {
        tracing::debug!(%error, "a connection is closed instead of reset");
    }
}

/// Something that accepts connections.
pub trait Accept: Send + 'static {
    /// The next connection and who opened it.
    fn accept(&mut self) -> NetFuture<'_, (BoxIo, SocketAddr)>;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network: real sockets in a process, turmoil's in simulation.
pub trait Net: Send + Sync + 'static {
    /// Opens a connection to `host:port`. No deadline of its own: callers set one.
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo>;
    /// Listens on `host:port`; port 0 takes any free one.
    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener>;
}

/// A shared network.
pub type SharedNet = Arc<dyn Net>;

/// A listening socket of any network; axum serves on it.
pub struct Listener(Box<dyn Accept>);

impl Listener {
    /// Wraps what accepts.
    pub fn new(accept: impl Accept) -> Self {
        Self(Box::new(accept))
    }

    /// The next connection; the error is the operating system's.
    pub async fn accept_io(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        self.0.accept().await
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl axum::serve::Listener for Listener {
    type Io = BoxIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // Out of descriptors or a peer that gave up: neither is a reason to stop listening.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Real TCP sockets, without Nagle's algorithm.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioNet;

struct TokioAccept(tokio::net::TcpListener);

impl Accept for TokioAccept {
    fn accept(&mut self) -> NetFuture<'_, (BoxIo, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Its connections are without Nagle's algorithm.
impl From<tokio::net::TcpListener> for Listener {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self::new(TokioAccept(listener))
    }
}

impl Net for TokioNet {
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
                let remedy = if error.kind() == io::ErrorKind::AddrInUse {
                    "another program uses it: stop that program or choose another port"
                } else {
                    "check the address"
                };
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {remedy}"))
            })?;
            Ok(Listener::from(listener))
        })
    }
}
