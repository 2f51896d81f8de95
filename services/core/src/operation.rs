//! Operations: the entries of a region's log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Dot, Epoch, OpId, RecordId, RecordKey, RegionId};
use crate::vector::VersionVector;
use crate::version::Version;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Sets a record.
    Put,
    /// Deletes a record (leaves a tombstone).
    Delete,
    /// Does nothing; moves the stability frontier on an idle timeline and gives a sample of the lag.
    Noop,
    /// Does nothing; marks a place that others must reach before a transition goes on.
    Barrier,
    /// Sets a record again from a quarantined operation, under a new dot and version.
    Merge,
}

impl OperationKind {
    /// Whether it changes a record.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::Merge)
    }

    /// The number kept in stores.
    pub const fn code(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Delete => 1,
            Self::Noop => 2,
            Self::Barrier => 3,
            Self::Merge => 4,
        }
    }

    /// Reads what [`OperationKind::code`] wrote.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Put,
            1 => Self::Delete,
            2 => Self::Noop,
            3 => Self::Barrier,
            4 => Self::Merge,
            _ => return None,
        })
    }
}

/// A rolling hash over a timeline: `H(previous chain || canonical operation)`. Equal dots with different chains are
/// two histories under one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Chain(pub [u8; 16]);

/// W3C trace context: trace id, parent span id, flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// One accepted write (or marker) in the log of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its place in its timeline.
    pub dot: Dot,
    /// The regime under which it was accepted.
    pub epoch: Epoch,
    /// What it does.
    pub kind: OperationKind,
    /// Home of the record; of a marker, the region that wrote it.
    pub home: RegionId,
    /// The record; `None` for markers.
    pub id: Option<RecordId>,
    /// The value, JSON text; only for `Put` and `Merge`.
    pub value: Option<Bytes>,
    /// Its version; strictly rises along the timeline.
    pub version: Version,
    /// What its region had applied when it accepted this. `a` happened before `b` exactly if `b.context` covers
    /// `a.dot`; two overwrites of which neither did are concurrent.
    pub context: VersionVector,
    /// The operation id that the client chose.
    pub op_id: OpId,
    /// Wall-clock time of acceptance at the origin, nanoseconds since the Unix epoch; for lag, never for order.
    pub accepted_ns: u64,
    /// The trace of the request that wrote it.
    pub trace: Option<TraceContext>,
    /// The quarantined operation that this one brings back (`Merge` only).
    pub merged_from: Option<Dot>,
    /// Rolling hash up to and including this operation.
    pub chain: Chain,
}

impl Operation {
    /// The record that it writes; `None` for markers.
    pub fn key(&self) -> Option<RecordKey> {
        self.id.as_ref().map(|id| RecordKey { home: self.home, id: id.clone() })
    }

    /// Approximate size on the wire, for batching and credit.
    pub fn wire_bytes(&self) -> usize {
        128 + self.id.as_ref().map_or(0, |id| id.as_str().len()) + self.value.as_ref().map_or(0, Bytes::len)
    }
}
