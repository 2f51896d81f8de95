//! Reading the records API's requests: key, headers, body. Each error says what is wrong and what to send.

use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::Consistency;
use longhaul_core::ids::{OpId, RecordId, RecordKey};
use longhaul_core::limits::VALUE_BYTES_MAX;
use longhaul_core::token::SessionToken;
use longhaul_core::version::Version;
use longhaul_http::wire::records::{CONSISTENCY, IDEMPOTENCY_KEY, SESSION};
use serde_json::value::RawValue;

use crate::state::Region;
use crate::writer::Condition;

/// What is wrong with a request.
pub(crate) type Bad = (ErrorCode, String);

fn bad(detail: impl Into<String>) -> Bad {
    (ErrorCode::BadRequest, detail.into())
}

/// The record that a path names: its home by name, and its id.
pub(super) fn key(region: &Region, home: &str, id: String) -> Result<RecordKey, Bad> {
    let known = || {
        let names: Vec<&str> = region.config.regions.values().map(longhaul_core::ids::LocationName::as_str).collect();
        names.join(", ")
    };
    let home = region.config.region_named(home).ok_or_else(|| {
        (ErrorCode::UnknownHome, format!("home {home:?} is no region of this topology; the regions are {}", known()))
    })?;
    let id = RecordId::new(id).map_err(|error| bad(error.to_string()))?;
    Ok(RecordKey { home, id })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Bad> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(bad(format!("header {name} came more than once; send it once")));
    }
    let readable = |_| bad(format!("header {name} is not printable text"));
    first.map(|value| value.to_str().map_err(readable)).transpose()
}

/// The client's operation id; drawn here if it sent none.
pub(super) fn op_id(region: &Region, headers: &HeaderMap) -> Result<OpId, Bad> {
    match text(headers, IDEMPOTENCY_KEY)? {
        Some(value) => value.parse().map_err(|error: longhaul_core::ids::IdError| bad(error.to_string())),
        None => Ok(OpId(region.random_uuid())),
    }
}

/// The session token, if the client sent one.
pub(super) fn token(region: &Region, headers: &HeaderMap) -> Result<Option<SessionToken>, Bad> {
    let decode = |value| SessionToken::decode(value, &region.token_key);
    let token = text(headers, SESSION)?.filter(|value| !value.is_empty()).map(decode).transpose();
    token.map_err(|error| (ErrorCode::BadToken, error.to_string()))
}

/// How fresh the read has to be.
pub(super) fn consistency(headers: &HeaderMap) -> Result<Consistency, Bad> {
    text(headers, CONSISTENCY)?.map_or(Ok(Consistency::default()), |value| value.parse().map_err(bad))
}

/// The condition of a write.
pub(super) fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Bad> {
    let matches = text(headers, header::IF_MATCH.as_str())?;
    let none_matches = text(headers, header::IF_NONE_MATCH.as_str())?;
    match (matches, none_matches) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(Condition::Exists)),
        (Some(tag), None) => etag(tag).map(|version| Some(Condition::Version(version))),
        (None, Some("*")) => Ok(Some(Condition::Absent)),
        (None, Some(_)) => Err(bad("If-None-Match of a write must be *: it demands that there is no record")),
        (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match contradict each other; send one of them")),
    }
}

/// An entity tag: a version in quotes.
pub(super) fn etag(tag: &str) -> Result<Version, Bad> {
    let version = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
    version.ok_or_else(|| {
        bad(format!("{tag:?} is no entity tag of a record; send the ETag of an answer, quotes included"))
    })
}

/// The value: JSON text as it came, without the white space around it.
pub(super) fn value(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Bad> {
    let too_large = || (ErrorCode::TooLarge, format!("a value may have {VALUE_BYTES_MAX} bytes of JSON text"));
    let body = body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE { too_large() } else { bad("the body broke off") }
    })?;
    if body.len() > VALUE_BYTES_MAX {
        return Err(too_large());
    }
    let json = serde_json::from_slice::<&RawValue>(&body).map_err(|error| {
        (ErrorCode::BadJson, format!("the value is not JSON (line {}, column {})", error.line(), error.column()))
    })?;
    // A copy: a slice would keep the connection's whole read buffer alive for as long as the value is cached.
    Ok(Bytes::copy_from_slice(json.get().as_bytes()))
}
