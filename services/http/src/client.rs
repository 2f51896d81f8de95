//! The HTTP client of every service: pooled connections over the network seam, a deadline on each request, and an
//! error that says whether the request may have arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use longhaul_core::error_code::{Effect, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::{BoxIo, SharedNet};
use crate::problem::Problem;

/// Largest answer that a client takes, bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request that got no answer, or an answer that is an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No connection: nothing was sent.
    #[error("{address} is unreachable: {reason}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection broke after the request may have been sent.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// No answer within the deadline; the request may have arrived.
    #[error("{address} did not answer within {} ms", deadline.as_millis())]
    Deadline {
        /// Whom.
        address: String,
        /// The deadline that passed.
        deadline: Duration,
    },
    /// An answer with a problem document.
    #[error("{address} answered {}: {}", .problem.code.as_str(), .problem.detail)]
    Problem {
        /// Who.
        address: String,
        /// The document.
        problem: Box<Problem>,
    },
    /// An answer that is not what was asked for.
    #[error("{address} answered {status} with a body that cannot be read: {reason}")]
    Unreadable {
        /// Who.
        address: String,
        /// The status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
}

impl CallError {
    /// Whether the request may have taken effect.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Unreachable { .. } => Effect::None,
            Self::Broken { .. } | Self::Deadline { .. } | Self::Unreadable { .. } => Effect::Unknown,
            Self::Problem { problem, .. } => problem.code.effect(),
        }
    }

    /// The code to answer with if this ends a request that was forwarded.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { .. } => ErrorCode::NoRegion,
            Self::Broken { .. } | Self::Unreadable { .. } => ErrorCode::UpstreamBroken,
            Self::Deadline { .. } => ErrorCode::UpstreamTimeout,
            Self::Problem { problem, .. } => problem.code,
        }
    }
}

/// The client. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<Connector, Full<Bytes>>,
}

impl HttpClient {
    /// A client that dials through `net` and keeps idle connections for 60 s.
    pub fn new(net: SharedNet) -> Self {
        let inner = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(256)
            // A retry is the caller's decision, by the error's effect.
            .retry_canceled_requests(false)
            .build(Connector { net });
        Self { inner }
    }

    /// Sends a request to `host:port` and reads the whole answer, whatever its status.
    pub async fn send(
        &self,
        address: &str,
        mut request: Request<Bytes>,
        deadline: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{address}{path}").parse().map_err(|error| CallError::Unreachable {
            address: address.to_owned(),
            reason: format!("not an address: {error}"),
        })?;
        *request.uri_mut() = uri;
        let mut request = request.map(Full::new);
        let connection = capture_connection(&mut request);
        let call = async {
            let answer = self.inner.request(request).await.map_err(|error| {
                let reason = root_cause(&error);
                if error.is_connect() || never_sent(&error) {
                    CallError::Unreachable { address: address.to_owned(), reason }
                } else {
                    CallError::Broken { address: address.to_owned(), reason }
                }
            })?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| CallError::Broken { address: address.to_owned(), reason: error.to_string() })?
                .to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        match tokio::time::timeout(deadline, call).await {
            Ok(result) => result,
            // No connection was chosen for the request, so not a byte of it has left.
            Err(_) if connection.connection_metadata().is_none() => Err(CallError::Unreachable {
                address: address.to_owned(),
                reason: format!("no connection within {} ms", deadline.as_millis()),
            }),
            Err(_) => Err(CallError::Deadline { address: address.to_owned(), deadline }),
        }
    }

    /// Sends JSON (or nothing) and reads JSON; an answer that is no success becomes [`CallError::Problem`].
    pub async fn json<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        address: &str,
        path: &str,
        headers: HeaderMap,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let unreadable = |reason: String| CallError::Unreadable { address: address.to_owned(), status: 0, reason };
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body).map_err(|error| unreadable(error.to_string()))?),
            None => Bytes::new(),
        };
        let mut request = Request::new(bytes);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| unreadable(format!("path {path}: {error}")))?;
        *request.headers_mut() = headers;
        if body.is_some() {
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        }
        let answer = self.send(address, request, deadline).await?;
        let answer = success(address, answer)?;
        // A success without a body reads as `null`, which `()` and `Option` accept.
        let text: &[u8] = if answer.body().is_empty() { b"null" } else { answer.body() };
        serde_json::from_slice(text).map_err(|error| CallError::Unreadable {
            address: address.to_owned(),
            status: answer.status().as_u16(),
            reason: error.to_string(),
        })
    }

    /// `GET` of JSON.
    pub async fn get<A: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.json::<(), A>(Method::GET, address, path, HeaderMap::new(), None, deadline).await
    }

    /// `POST` of JSON.
    pub async fn post<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        body: &B,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.json(Method::POST, address, path, HeaderMap::new(), Some(body), deadline).await
    }

    /// Asks to turn a connection into a raw byte stream (HTTP/1.1 `Upgrade`); `deadline` covers the handshake.
    pub async fn upgrade(
        &self,
        address: &str,
        path: &str,
        protocol: &'static str,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Result<BoxIo, CallError> {
        let broken = |reason: String| CallError::Broken { address: address.to_owned(), reason };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = format!("http://{address}{path}").parse().map_err(|error| broken(format!("{error}")))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(http::header::UPGRADE, http::HeaderValue::from_static(protocol));
        let call = async {
            let answer = self.inner.request(request).await.map_err(|error| {
                let reason = root_cause(&error);
                if error.is_connect() {
                    CallError::Unreachable { address: address.to_owned(), reason }
                } else {
                    broken(reason)
                }
            })?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(error.to_string()))?;
                return Ok(Box::new(TokioIo::new(upgraded)) as BoxIo);
            }
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| broken(error.to_string()))?
                .to_bytes();
            let answer = success(address, Response::from_parts(parts, body))?;
            Err(CallError::Unreadable {
                address: address.to_owned(),
                status: answer.status().as_u16(),
                reason: format!("it does not speak {protocol}"),
            })
        };
        match tokio::time::timeout(deadline, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Deadline { address: address.to_owned(), deadline }),
        }
    }
}

/// Passes a success on; turns anything else into an error.
pub fn success(address: &str, answer: Response<Bytes>) -> Result<Response<Bytes>, CallError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    match serde_json::from_slice::<Problem>(answer.body()) {
        Ok(problem) => Err(CallError::Problem { address: address.to_owned(), problem: Box::new(problem) }),
        Err(error) => Err(CallError::Unreadable {
            address: address.to_owned(),
            status: answer.status().as_u16(),
            reason: error.to_string(),
        }),
    }
}

/// Whether hyper gave the request back unsent: the kept connection had closed before it took the request.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause of an error, as text: what people need to know of a chain of wrappers.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[derive(Clone)]
struct Connector {
    net: SharedNet,
}

impl tower::Service<Uri> for Connector {
    type Response = ClientIo;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ClientIo>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let net = self.net.clone();
        Box::pin(async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            let connect = tokio::time::timeout(longhaul_core::limits::CONNECT_DEADLINE, net.connect(&address));
            match connect.await {
                Ok(io) => Ok(ClientIo(TokioIo::new(io?))),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within the deadline")),
            }
        })
    }
}

struct ClientIo(TokioIo<BoxIo>);

impl Connection for ClientIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
