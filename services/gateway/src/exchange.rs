//! One user's request on its way through the gateway. The body is passed on as it came; nothing in it is read.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use longhaul_core::ids::RegionId;
use longhaul_core::operation::TraceContext;
use longhaul_core::routing::Access;
use longhaul_http::trace;
use longhaul_http::wire::gateway::DEADLINE_MS;
use longhaul_http::wire::records::IDEMPOTENCY_KEY;
use tokio::time::Instant;
use uuid::Uuid;

/// Headers that belong to one connection (RFC 9110, section 7.6.1) or that each hop writes anew.
const HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// A request.
pub(crate) struct Exchange {
    /// Its method.
    pub(crate) method: Method,
    /// Its path and query, as they came.
    pub(crate) uri: Uri,
    /// Its headers, without those of the user's connection.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
    /// What it wants.
    pub(crate) access: Access,
    /// The home of the record.
    pub(crate) home: RegionId,
    /// When the user must have an answer.
    pub(crate) deadline: Instant,
    /// Its trace.
    pub(crate) trace: TraceContext,
    /// Attempts sent so far.
    pub(crate) sent: AtomicU32,
    /// Something of it was recorded although its trace had not been chosen: the whole way is to be kept.
    pub(crate) kept: AtomicBool,
}

impl Exchange {
    /// Time left.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// Takes off what belongs to the user's connection, and gives a write an operation id if it has none.
    pub(crate) fn prepare(&mut self, draw: impl FnOnce() -> [u8; 16]) {
        strip(&mut self.headers);
        self.headers.remove(DEADLINE_MS);
        if self.access.is_write() && !self.headers.contains_key(IDEMPOTENCY_KEY) {
            let id = uuid::Builder::from_random_bytes(draw()).into_uuid();
            self.headers.insert(IDEMPOTENCY_KEY, uuid_header(id));
        }
    }

    /// The request of one attempt.
    pub(crate) fn attempt(&self, context: TraceContext, limit: Duration) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let mut headers = self.headers.clone();
        trace::inject(&mut headers, context);
        headers.insert(DEADLINE_MS, HeaderValue::from(limit.as_millis() as u64));
        *request.headers_mut() = headers;
        request
    }
}

fn uuid_header(id: Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is visible ASCII")
}

/// Takes off what belongs to one connection.
fn strip(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A region's answer as it goes on to the user.
pub(crate) fn passed_on(mut answer: Response<Bytes>) -> Response<Bytes> {
    strip(answer.headers_mut());
    answer
}

#[cfg(test)]
mod tests {
    use longhaul_http::trace::TraceIds;

    use super::*;

    fn exchange(access: Access) -> Exchange {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close"), ("host", "edge"), ("if-match", "\"1\""), (DEADLINE_MS, "700")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Exchange {
            method: Method::PUT,
            uri: Uri::from_static("/v1/records/eu-west/a"),
            headers,
            body: Bytes::from_static(b"{}"),
            access,
            home: RegionId(1),
            deadline: Instant::now(),
            trace: TraceIds::new(1).root(),
            sent: AtomicU32::new(0),
            kept: AtomicBool::new(false),
        }
    }

    #[test]
    fn every_attempt_of_a_write_carries_one_operation_id() {
        let mut exchange = exchange(Access::Write);
        exchange.prepare(|| [7; 16]);
        let ids = TraceIds::new(2);
        let requests = [(); 2].map(|()| exchange.attempt(ids.child(exchange.trace), Duration::from_millis(300)));
        let keys = requests.each_ref().map(|request| request.headers()[IDEMPOTENCY_KEY].clone());
        assert_eq!(keys[0], keys[1]);
        assert!(keys[0].to_str().unwrap().parse::<longhaul_core::ids::OpId>().is_ok());
        let contexts = requests.each_ref().map(|request| trace::extract(request.headers()).unwrap());
        assert_eq!(contexts[0].trace_id, exchange.trace.trace_id);
        assert_ne!(contexts[0].span_id, contexts[1].span_id, "each attempt has its own span");
    }

    #[test]
    fn the_users_own_id_and_conditions_pass_and_its_connection_does_not() {
        let mut exchange = exchange(Access::Write);
        let id = HeaderValue::from_static("0191d3a0-0000-7000-8000-000000000001");
        exchange.headers.insert(IDEMPOTENCY_KEY, id.clone());
        exchange.prepare(|| unreachable!("the user gave an id"));
        let request = exchange.attempt(exchange.trace, Duration::from_millis(300));
        assert_eq!(request.headers()[IDEMPOTENCY_KEY], id);
        assert_eq!(request.headers()["if-match"], "\"1\"");
        assert_eq!(request.headers()[DEADLINE_MS], "300", "the time left, not what the user said at first");
        assert!(!request.headers().contains_key("connection") && !request.headers().contains_key("host"));
    }

    #[test]
    fn a_read_needs_no_operation_id() {
        let mut exchange = exchange(Access::Read(longhaul_core::routing::Consistency::Eventual));
        exchange.prepare(|| unreachable!("a read has no operation"));
        assert!(!exchange.headers.contains_key(IDEMPOTENCY_KEY));
    }
}
