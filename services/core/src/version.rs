//! Versions: the total order over all writes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{IdError, RegionId};

/// Bytes of a version on the wire and in a store.
pub const VERSION_BYTES: usize = 18;

/// A hybrid logical clock stamp and the region that drew it. Versions are unique and totally ordered; the order of
/// the fields is the order of the versions, and [`Version::to_bytes`] keeps it (bytewise comparison).
///
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014; the region breaks ties, without which replicas diverge.
/// In text it is 36 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Physical part, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Logical part.
    pub count: u32,
    /// The region that drew it.
    pub region: RegionId,
}

impl Version {
    /// The smallest version.
    pub const ZERO: Self = Self { time_ns: 0, count: 0, region: RegionId(0) };

    /// Big-endian bytes: clock epoch (always 0), time, count, region. Bytewise order is version order.
    pub fn to_bytes(self) -> [u8; VERSION_BYTES] {
        let mut bytes = [0; VERSION_BYTES];
        bytes[4..12].copy_from_slice(&self.time_ns.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..].copy_from_slice(&self.region.0.to_be_bytes());
        bytes
    }

    /// Reads what [`Version::to_bytes`] wrote. `None` if the length is wrong or the clock epoch is not 0.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != VERSION_BYTES || bytes[..4] != [0; 4] {
            return None;
        }
        Some(Self {
            time_ns: u64::from_be_bytes(bytes[4..12].try_into().ok()?),
            count: u32::from_be_bytes(bytes[12..16].try_into().ok()?),
            region: RegionId(u16::from_be_bytes(bytes[16..].try_into().ok()?)),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.to_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Version {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError { what: "version", text: text.to_owned(), reason: "it must be 36 hexadecimal digits" };
        if text.len() != 2 * VERSION_BYTES || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; VERSION_BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Self::from_bytes(&bytes).ok_or_else(bad)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { (self.time_ns, self.count, self.region.0).serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            let (time_ns, count, region) = <(u64, u32, u16)>::deserialize(d)?;
            Ok(Self { time_ns, count, region: RegionId(region) })
        }
    }
}
