//! The topologies that ship with the program.

use super::{Topology, TopologyError};
use crate::rtt;

/// Name and text of every shipped topology.
pub const SHIPPED: &[(&str, &str)] = &[
    ("three-continents", include_str!("../../../../regions/three-continents.toml")),
    ("two-regions", include_str!("../../../../regions/two-regions.toml")),
    ("five-azure", include_str!("../../../../regions/five-azure.toml")),
    ("all-azure", include_str!("../../../../regions/all-azure.toml")),
];

/// The text of a shipped topology.
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

impl Topology {
    /// A shipped topology, parsed; `None` if there is no such name.
    pub fn shipped(name: &str) -> Option<Result<Self, TopologyError>> {
        let text = shipped(name)?;
        Some(Self::parse(&format!("regions/{name}.toml"), text, &|table| rtt::builtin(table).map(str::to_owned)))
    }
}
