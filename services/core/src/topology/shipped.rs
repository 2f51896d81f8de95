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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CREDIT_BYTES;

    /// What one replication stream shall carry over the longest link, bits a second.
    const RATE: f64 = 95e6;

    #[test]
    fn the_replication_window_covers_the_longest_shipped_link() {
        let mut longest_ms = 0.0_f64;
        for (name, _) in SHIPPED {
            let topology = Topology::shipped(name).unwrap().unwrap();
            for (_, a) in topology.regions() {
                for (_, b) in topology.regions() {
                    longest_ms = longest_ms.max(topology.round_trip_ms(a, b).unwrap());
                }
            }
        }
        assert!(longest_ms > 300.0, "{longest_ms} ms");
        assert!(CREDIT_BYTES as f64 * 8.0 >= RATE * longest_ms / 1e3, "too little for {longest_ms} ms");
    }
}
