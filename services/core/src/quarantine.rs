//! What becomes of operations that a region accepted and history has cut off.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do with quarantined operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Write again what nobody has overwritten since, as new operations; the rest stays undecided.
    Merge,
    /// Give them up.
    Discard,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Merge => "merge",
            Self::Discard => "discard",
        })
    }
}
