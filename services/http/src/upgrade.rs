//! The server's side of an HTTP/1.1 upgrade to a raw byte stream.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::net::BoxIo;

/// A connection that becomes a byte stream once the answer has been sent.
pub struct Pending(OnUpgrade);

impl Pending {
    /// Waits for the switch; the error says why there was none.
    pub async fn stream(self) -> Result<BoxIo, hyper::Error> {
        Ok(Box::new(TokioIo::new(self.0.await?)))
    }
}

/// The `101` answer and the pending stream; `None` if the request does not ask for `protocol`.
pub fn accept(request: &mut Request, protocol: &'static str) -> Option<(Response, Pending)> {
    let asks = request.headers().get(header::UPGRADE).is_some_and(|value| value == protocol);
    if !asks {
        return None;
    }
    let pending = Pending(hyper::upgrade::on(request));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    Some((answer, pending))
}
