//! Records: the current state, and the rule that merges into it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Dot, Epoch, OpId, RecordKey};
use crate::operation::{Operation, OperationKind};
use crate::vector::VersionVector;
use crate::version::Version;

/// The current state of one key. A tombstone is a record without a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its key.
    pub key: RecordKey,
    /// JSON text; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// The version that won.
    pub version: Version,
    /// The operation that won.
    pub dot: Dot,
    /// The regime under which it was accepted.
    pub epoch: Epoch,
    /// The client's id of the operation that won.
    pub op_id: OpId,
    /// What the winner's region had applied when it accepted it.
    pub context: VersionVector,
}

impl Record {
    /// The record that an operation makes; `None` for markers.
    pub fn from_operation(operation: &Operation) -> Option<Self> {
        Some(Self {
            key: operation.key()?,
            value: if operation.kind == OperationKind::Delete { None } else { operation.value.clone() },
            version: operation.version,
            dot: operation.dot,
            epoch: operation.epoch,
            op_id: operation.op_id,
            context: operation.context.clone(),
        })
    }

    /// Whether this is a tombstone.
    pub const fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}
