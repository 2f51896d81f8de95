//! Where another region is dialled: one address, or one for each of its API instances.

use serde::{Deserialize, Serialize};

/// One or several `host:port`. In JSON a string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Addresses(Vec<String>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Addresses {
    /// Every address, in the order of preference.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Addresses {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl From<Vec<String>> for Addresses {
    fn from(addresses: Vec<String>) -> Self {
        Self(addresses)
    }
}

impl From<OneOrMany> for Addresses {
    fn from(written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(address) => Self(vec![address]),
            OneOrMany::Many(addresses) => Self(addresses),
        }
    }
}

impl From<Addresses> for OneOrMany {
    fn from(Addresses(mut addresses): Addresses) -> Self {
        if addresses.len() == 1 { Self::One(addresses.remove(0)) } else { Self::Many(addresses) }
    }
}
