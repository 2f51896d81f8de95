//! The values that users write: JSON that names the operation, proves that it is of this run, and fills the size.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::canary::RunKey;

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Value {
    /// The operation that wrote it.
    pub op: Uuid,
    /// Its number in the run.
    pub n: u32,
    /// See [`RunKey::canary`].
    pub canary: String,
    /// Of a list: the numbers of the appends in it, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<u32>>,
    /// Fills the value up to its size.
    #[serde(default)]
    pub pad: String,
}

impl Value {
    /// The value of an operation, `bytes` long if that is enough for what it has to say.
    pub(crate) fn new(run: &RunKey, op: Uuid, n: u32, home: &str, list: Option<Vec<u32>>, bytes: u32) -> Self {
        let mut value = Self { op, n, canary: run.canary(op, home), list, pad: String::new() };
        let written = value.to_json().len();
        value.pad = "x".repeat((bytes as usize).saturating_sub(written));
        value
    }

    /// The JSON text.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a value of texts and numbers is JSON")
    }
}

/// What a read showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Nothing: it was no read, or it had no answer.
    Nothing,
    /// That there is no such record.
    Absent,
    /// A value that carries this operation and its canary for this home.
    Value(Uuid),
    /// A value that no operation of the run can have written for this home.
    Foreign,
}

/// Reads a stored value and says whose it is.
pub(crate) fn inspect(run: &RunKey, home: &str, json: &[u8]) -> (Observed, Option<Vec<u32>>) {
    match serde_json::from_slice::<Value>(json) {
        Ok(value) if value.canary == run.canary(value.op, home) => (Observed::Value(value.op), value.list),
        _ => (Observed::Foreign, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_size_and_shows_its_operation_only_for_its_home_and_run() {
        let run = RunKey::new("run");
        let op = run.op_id(7);
        let json = Value::new(&run, op, 7, "eu", Some(vec![1, 7]), 256).to_json();
        assert_eq!(json.len(), 256);
        assert_eq!(inspect(&run, "eu", &json), (Observed::Value(op), Some(vec![1, 7])));
        assert_eq!(inspect(&run, "us", &json), (Observed::Foreign, None));
        assert_eq!(inspect(&RunKey::new("other"), "eu", &json), (Observed::Foreign, None));
        assert_eq!(inspect(&run, "eu", b"{\"n\":1}"), (Observed::Foreign, None));
    }
}
