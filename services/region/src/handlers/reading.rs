//! Reading a record: what every instance of a region does alike, whether it holds the store or not.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::Consistency;
use longhaul_core::ids::{Epoch, RecordKey};
use longhaul_core::operation::TraceContext;
use longhaul_core::record::Record;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::token::SessionToken;
use longhaul_core::vector::VersionVector;
use longhaul_http::problem::Problem;
use longhaul_http::wire::records::{EPOCH, REGION, SESSION};

use super::problems::problem;
use super::request::{self, Bad};
use crate::state::Region;

/// What a read asks for.
pub(crate) struct Asked {
    /// The record.
    pub(crate) key: RecordKey,
    /// How fresh.
    pub(crate) consistency: Consistency,
    /// The session, if there is one.
    pub(crate) token: Option<SessionToken>,
}

/// Reads the request.
pub(crate) fn parse(region: &Region, home: &str, id: &str, headers: &HeaderMap) -> Result<Asked, Bad> {
    let key = request::key(region, home, id.to_owned())?;
    Ok(Asked { key, consistency: request::consistency(headers)?, token: request::token(region, headers)? })
}

/// Whether a read has to show what its session has seen. Where no region is the primary, asking for its newest value is
/// still asking for a session's.
pub(crate) fn is_of_session(consistency: Consistency, regime: &Regime) -> bool {
    match consistency {
        Consistency::Eventual => false,
        Consistency::Session => true,
        Consistency::Primary => regime.mode != Mode::ActivePassive,
    }
}

/// What must be visible here before the session may be answered. The regime must be no older than the newest one that
/// the session has met ([`SessionToken::epoch`]): what is needed under that one cannot be told under an older one.
pub(crate) fn needed(region: &Region, regime: &Regime, token: &SessionToken) -> Result<VersionVector, Bad> {
    if let Some((timeline, cut)) = token.truncated_by(&regime.cuts) {
        let detail = format!(
            "the session has seen operations of timeline {timeline} beyond {cut}, which a failover removed; start a new \
             session without a token"
        );
        return Err((ErrorCode::HistoryTruncated, detail));
    }
    // In isolation nothing of other regions is here or will come, and no record of this home needs it.
    Ok(if regime.mode == Mode::RegionalIsolation {
        token.seen.iter().filter(|(timeline, _)| timeline.region == region.id()).collect()
    } else {
        token.seen.clone()
    })
}

/// The region did not catch up with the session in time.
pub(crate) fn behind(region: &Region, waited: Duration, trace: Option<TraceContext>) -> Problem {
    let detail = format!(
        "this region did not catch up with the session within {} ms; try again, or ask the region that answered last",
        waited.as_millis()
    );
    problem(region, ErrorCode::NotCaughtUp, detail, trace)
}

/// The answer to a read.
pub(crate) fn shown(
    region: &Region,
    regime: &Regime,
    record: Option<Record>,
    token: Option<SessionToken>,
    request: &HeaderMap,
    trace: Option<TraceContext>,
) -> Response {
    let mut token = clipped(token, &regime.cuts);
    token.epoch = token.epoch.max(regime.epoch);
    if let Some(record) = &record {
        token.observe(regime.epoch, record.dot, record.version);
    }
    let tag = record.as_ref().filter(|record| !record.is_tombstone()).map(|record| format!("\"{}\"", record.version));
    let mut response = match record.and_then(|record| record.value) {
        Some(_)
            if tag.is_some()
                && request.get(header::IF_NONE_MATCH).map(HeaderValue::as_bytes)
                    == tag.as_deref().map(str::as_bytes) =>
        {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(value) => ([(header::CONTENT_TYPE, "application/json")], value).into_response(),
        None => problem(region, ErrorCode::NotFound, "there is no such record", trace).into_response(),
    };
    let headers = response.headers_mut();
    if let Some(tag) = tag {
        put(headers, header::ETAG, &tag);
    }
    served_by(region, headers, regime.epoch);
    put_token(region, headers, &token);
    response
}

/// The client's token without what a failover removed; an empty one if it sent none.
pub(super) fn clipped(token: Option<SessionToken>, cuts: &VersionVector) -> SessionToken {
    let mut token = token.unwrap_or_default();
    for (timeline, cut) in cuts.iter().filter(|(timeline, cut)| token.seen.get(*timeline) > *cut).collect::<Vec<_>>() {
        token.seen.set(timeline, cut);
    }
    token
}

pub(super) fn served_by(region: &Region, headers: &mut HeaderMap, epoch: Epoch) {
    put(headers, HeaderName::from_static(REGION), region.config.name());
    headers.insert(HeaderName::from_static(EPOCH), HeaderValue::from(epoch.0));
}

pub(super) fn put_token(region: &Region, headers: &mut HeaderMap, token: &SessionToken) {
    // A token beyond its limit is left out: the session starts anew.
    if let Ok(text) = token.encode(&region.token_key) {
        put(headers, HeaderName::from_static(SESSION), &text);
    }
}

pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
