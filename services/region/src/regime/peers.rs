//! Calls to the other regions' internal endpoints, each under a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Method, header};
use longhaul_core::ids::RegionId;
use longhaul_http::client::CallError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::Region;

/// The way to the other regions.
#[derive(Clone)]
pub(super) struct Peers {
    region: Arc<Region>,
}

impl Peers {
    pub(super) fn new(region: Arc<Region>) -> Self {
        Self { region }
    }

    /// The deadline of a regime message.
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_millis(self.region.config.timings.vote_deadline_ms)
    }

    /// Every other region.
    pub(super) fn others(&self) -> Vec<RegionId> {
        self.region.config.others().collect()
    }

    fn address(&self, peer: RegionId) -> &str {
        self.region.directory.address(peer).unwrap_or_default()
    }

    /// Passes on what a peer answered, and its address if that did not serve.
    fn heard<T>(&self, peer: RegionId, address: &str, answer: Result<T, CallError>) -> Result<T, CallError> {
        answer.inspect_err(|error| self.region.directory.failed(peer, address, error))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let token = self.region.config.token.as_deref().map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        if let Some(Ok(value)) = token {
            headers.insert(header::AUTHORIZATION, value);
        }
        headers
    }

    /// `GET` of JSON from a peer.
    pub(super) async fn get<A: DeserializeOwned>(&self, peer: RegionId, path: &str) -> Result<A, CallError> {
        let (client, address) = (&self.region.client, self.address(peer));
        let answer = client.json::<(), A>(Method::GET, address, path, self.headers(), None, self.deadline()).await;
        self.heard(peer, address, answer)
    }

    /// Sends JSON to a peer, with a deadline of the caller's.
    pub(super) async fn send<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        peer: RegionId,
        path: &str,
        body: &B,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let address = self.address(peer);
        let answer = self.region.client.json(method, address, path, self.headers(), Some(body), deadline).await;
        self.heard(peer, address, answer)
    }

    /// `POST` of JSON to a peer within the usual deadline.
    pub(super) async fn post<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        peer: RegionId,
        path: &str,
        body: &B,
    ) -> Result<A, CallError> {
        self.send(Method::POST, peer, path, body, self.deadline()).await
    }

    /// `POST` of JSON that is answered with bytes.
    pub(super) async fn post_for_bytes<B: Serialize>(
        &self,
        peer: RegionId,
        path: &str,
        body: &B,
    ) -> Result<Bytes, CallError> {
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        self.exchange(peer, path, "application/json", body, self.deadline()).await
    }

    /// `POST` of bytes to a peer, with a deadline of the caller's; what it answers does not matter, if it is a success.
    pub(super) async fn post_bytes(
        &self,
        peer: RegionId,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<(), CallError> {
        self.exchange(peer, path, "application/octet-stream", body, deadline).await.map(drop)
    }

    async fn exchange(
        &self,
        peer: RegionId,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let address = self.address(peer);
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        *request.uri_mut() = path.parse().unwrap_or_default();
        let answer = self.region.client.send(address, request, deadline).await;
        let answer = answer.and_then(|answer| longhaul_http::client::success(address, answer));
        Ok(self.heard(peer, address, answer)?.into_body())
    }

    /// `GET` of JSON from every other region at once.
    pub(super) async fn ask_all<A: DeserializeOwned>(&self, path: &str) -> Vec<(RegionId, Result<A, CallError>)> {
        let calls = self.others().into_iter().map(|peer| async move { (peer, self.get(peer, path).await) });
        join_all(calls).await
    }

    /// `POST` of the same JSON to every other region at once.
    pub(super) async fn tell_all<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Vec<(RegionId, Result<A, CallError>)> {
        let calls = self.others().into_iter().map(|peer| async move { (peer, self.post(peer, path, body).await) });
        join_all(calls).await
    }
}
