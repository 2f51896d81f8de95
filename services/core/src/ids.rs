//! Identities: regions, timelines, dots, epochs, operations and records.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::limits;

/// A malformed identifier, with the text that was refused and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {reason}")]
pub struct IdError {
    /// What was parsed, e.g. `record id`.
    pub what: &'static str,
    /// The refused text.
    pub text: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// A region as a small stable number: its 1-based position in the topology. Names are labels for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegionId(pub u16);

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The n-th life of a region's log. A new one is handed out by the regime on disk loss, eviction, a quarantined tail,
/// and each time a region becomes primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The incarnation that follows.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One log: a region in one incarnation. Sequence numbers are dense and versions strictly rise along it.
///
/// In text (JSON) it is `"region.incarnation"`, for example `"2.1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline {
    /// The region that writes this log.
    pub region: RegionId,
    /// Which life of that region.
    pub incarnation: Incarnation,
}

impl Timeline {
    /// A timeline from plain numbers.
    pub const fn new(region: u16, incarnation: u32) -> Self {
        Self { region: RegionId(region), incarnation: Incarnation(incarnation) }
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.region.0, self.incarnation.0)
    }
}

impl FromStr for Timeline {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError { what: "timeline", text: text.to_owned(), reason: "it must be REGION.INCARNATION" };
        let (region, incarnation) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self::new(region.parse().map_err(|_| bad())?, incarnation.parse().map_err(|_| bad())?))
    }
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { (self.region.0, self.incarnation.0).serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Timeline {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            let (region, incarnation) = <(u16, u32)>::deserialize(d)?;
            Ok(Self::new(region, incarnation))
        }
    }
}

/// The identity of one operation: its place in a log. `seq` starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The log.
    pub timeline: Timeline,
    /// The position in the log, dense from 1.
    pub seq: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.timeline, self.seq)
    }
}

/// The number of a regime. It only grows and is the fencing token of everything that regions tell each other.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that follows.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identity of a user's operation, chosen by the client and stable over its retries (`Idempotency-Key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OpId(pub Uuid);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OpId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text).map(Self).map_err(|_| IdError {
            what: "idempotency key",
            text: text.to_owned(),
            reason: "it must be a UUID",
        })
    }
}

/// A record's identity inside its home: 1 to 128 characters out of `A-Z a-z 0-9 . _ ~ -`, so it needs no escaping in
/// a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(String);

impl RecordId {
    /// Parses an id.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        if text.is_empty() || text.len() > limits::RECORD_ID_BYTES_MAX {
            return Err(IdError { what: "record id", text, reason: "it must have 1 to 128 characters" });
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-')) {
            return Err(IdError { what: "record id", text, reason: "only A-Z a-z 0-9 . _ ~ - are allowed" });
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RecordId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a record. The home is the region whose jurisdiction owns it and is part of the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// The region whose jurisdiction owns the record.
    pub home: RegionId,
    /// The identity inside the home.
    pub id: RecordId,
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.home, self.id)
    }
}

/// The name of a location (region or edge): 1 to 40 characters out of `a-z 0-9 -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
pub struct LocationName(String);

impl LocationName {
    /// Parses a name.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let fits = !text.is_empty() && text.len() <= 40;
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            Ok(Self(text))
        } else {
            Err(IdError { what: "location name", text, reason: "it must have 1 to 40 characters out of a-z 0-9 -" })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LocationName {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<LocationName> for String {
    fn from(name: LocationName) -> Self {
        name.0
    }
}

impl FromStr for LocationName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl fmt::Display for LocationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
