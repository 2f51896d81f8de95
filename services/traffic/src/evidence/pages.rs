//! Reading one region's evidence page by page, each page under a deadline and with a few retries.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_http::client::{CallError, HttpClient, success};
use longhaul_http::wire::records::record_path;
use longhaul_http::wire::status::{
    CONFLICTS_PATH, ConflictView, DIGEST_PATH, DigestView, OPERATIONS_PATH, QUARANTINE_PATH, QuarantineView,
    RememberedOperation, SWEEP_PATH, SweepRequest, SweepResult, VISIBILITY_PATH, VisibilityPage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Conflict, Final, PutAside, Remembered};
use crate::canary::RunKey;
use crate::users::parse_dot;
use crate::value::{Observed, inspect};

/// Deadline of one page.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of one sweep: it reads everything that the region keeps.
const SWEEP_DEADLINE: Duration = Duration::from_secs(60);
/// Deadline of one digest.
const DIGEST_DEADLINE: Duration = Duration::from_secs(2);
/// Attempts at one page.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; it doubles.
const BACKOFF: Duration = Duration::from_millis(150);
/// Operations in one page.
const PAGE: usize = 2_000;

/// One region, out of band.
#[derive(Clone)]
pub(super) struct Witness {
    pub(super) client: HttpClient,
    pub(super) address: String,
    pub(super) token: Option<String>,
}

impl Witness {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token
            && let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}"))
        {
            headers.insert(header::AUTHORIZATION, value);
        }
        headers
    }

    async fn ask<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut attempt = 1;
        loop {
            match self.client.json(method.clone(), &self.address, path, self.headers(), body, deadline).await {
                Err(_) if attempt < ATTEMPTS => {
                    tokio::time::sleep(BACKOFF * (1 << (attempt - 1))).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallError> {
        self.ask::<(), A>(path, None, PAGE_DEADLINE).await
    }

    /// What it holds in a few numbers; no retries, as the next poll comes soon.
    pub(super) async fn digest(&self) -> Result<DigestView, CallError> {
        let (client, headers) = (&self.client, self.headers());
        client.json::<(), _>(Method::GET, &self.address, DIGEST_PATH, headers, None, DIGEST_DEADLINE).await
    }

    /// Every remembered operation out of `ours`.
    pub(super) async fn operations(&self, ours: &BTreeSet<Uuid>) -> Result<Vec<Remembered>, CallError> {
        let mut found = Vec::new();
        let mut after = Uuid::nil();
        loop {
            let page: Vec<RememberedOperation> =
                self.get(&format!("{OPERATIONS_PATH}?after={after}&limit={PAGE}")).await?;
            let last = page.iter().filter_map(|operation| Uuid::parse_str(&operation.op_id).ok()).max();
            for operation in &page {
                let (Ok(op_id), Some(dot)) = (Uuid::parse_str(&operation.op_id), parse_dot(&operation.dot)) else {
                    return Err(self.unreadable(format!("operation {} at {}", operation.op_id, operation.dot)));
                };
                if ours.contains(&op_id) {
                    found.push(Remembered { op_id, dot, version: operation.version.parse().ok() });
                }
            }
            match last {
                Some(last) if last > after => after = last,
                _ => return Ok(found),
            }
        }
    }

    /// Every conflict that an operation out of `ours` lost.
    pub(super) async fn conflicts(&self, ours: &BTreeSet<Uuid>) -> Result<Vec<Conflict>, CallError> {
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            let page: Vec<ConflictView> = self.get(&format!("{CONFLICTS_PATH}?offset={offset}&limit={PAGE}")).await?;
            if page.is_empty() {
                return Ok(found);
            }
            offset += page.len();
            for row in page {
                if let Some(loser) = Uuid::parse_str(&row.loser_op_id).ok().filter(|loser| ours.contains(loser)) {
                    let winner = Uuid::parse_str(&row.winner_op_id).ok();
                    found.push(Conflict { loser, winner, concurrent: row.kind == "concurrent" });
                }
            }
        }
    }

    /// Every operation out of `ours` that it put aside.
    pub(super) async fn quarantine(&self, ours: &BTreeSet<Uuid>) -> Result<Vec<PutAside>, CallError> {
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            let page: Vec<QuarantineView> =
                self.get(&format!("{QUARANTINE_PATH}?offset={offset}&limit={PAGE}")).await?;
            if page.is_empty() {
                return Ok(found);
            }
            offset += page.len();
            for row in page {
                let Some(op_id) = Uuid::parse_str(&row.op_id).ok().filter(|op_id| ours.contains(op_id)) else {
                    continue;
                };
                let Some(dot) = parse_dot(&row.dot) else {
                    return Err(self.unreadable(format!("quarantined operation at {}", row.dot)));
                };
                found.push(PutAside { op_id, dot, merged: row.state == "merged" });
            }
        }
    }

    /// When sampled operations out of `ours` became visible.
    pub(super) async fn visibility(&self, ours: &BTreeSet<Uuid>) -> Result<Vec<(Uuid, u64)>, CallError> {
        let mut found = Vec::new();
        let mut after = 0;
        loop {
            let (samples, next) = self.visibility_page(after).await?;
            if samples.is_empty() || next <= after {
                return Ok(found);
            }
            found.extend(samples.into_iter().filter(|(op_id, _)| ours.contains(op_id)));
            after = next;
        }
    }

    /// One page of moments after a place, and the place to go on from.
    pub(super) async fn visibility_page(&self, after: u64) -> Result<(Vec<(Uuid, u64)>, u64), CallError> {
        let page: VisibilityPage = self.get(&format!("{VISIBILITY_PATH}?after={after}")).await?;
        let samples = page.visible.iter().filter_map(|(id, boot_ns)| Some((Uuid::parse_str(id).ok()?, *boot_ns)));
        Ok((samples.collect(), page.next))
    }

    /// A record, as any client may read it.
    pub(super) async fn record(&self, run: &RunKey, home: &str, id: &str) -> Result<Final, CallError> {
        let path = record_path(home, id);
        let mut attempt = 1;
        loop {
            let error = match self.record_once(run, home, &path).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(BACKOFF * (1 << (attempt - 1))).await;
            attempt += 1;
        }
    }

    async fn record_once(&self, run: &RunKey, home: &str, path: &str) -> Result<Final, CallError> {
        let mut request = Request::new(Bytes::new());
        *request.headers_mut() = self.headers();
        *request.uri_mut() = path.parse().map_err(|error| self.unreadable(format!("path {path}: {error}")))?;
        let answer = self.client.send(&self.address, request, PAGE_DEADLINE).await?;
        match success(&self.address, answer) {
            Ok(answer) => {
                let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
                let Some(version) = tag.and_then(|tag| tag.trim_matches('"').parse().ok()) else {
                    return Err(self.unreadable("a record without a version".to_owned()));
                };
                let (observed, list) = inspect(run, home, answer.body());
                Ok(Final::Present { version, observed, list })
            }
            Err(CallError::Problem { problem, .. }) if problem.code == ErrorCode::NotFound => Ok(Final::Absent),
            Err(CallError::Problem { problem, .. }) if problem.code == ErrorCode::WrongHome => Ok(Final::Refused),
            Err(error) => Err(error),
        }
    }

    /// Looks for texts in everything that it keeps: `(index of the needle, place)`.
    pub(super) async fn sweep(&self, needles: Vec<String>) -> Result<Vec<(usize, String)>, CallError> {
        let request = SweepRequest { needles };
        let result: SweepResult = self.ask(SWEEP_PATH, Some(&request), SWEEP_DEADLINE).await?;
        Ok(result.found)
    }

    fn unreadable(&self, reason: String) -> CallError {
        CallError::Unreadable { address: self.address.clone(), status: 200, reason }
    }
}

/// Whether a region's answer shows a record at all.
pub(super) fn shows(found: &Final) -> bool {
    matches!(found, Final::Present { observed, .. } if *observed != Observed::Nothing)
}
