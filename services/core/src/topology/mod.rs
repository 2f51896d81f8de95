//! Topologies: locations and the links between them.
//!
//! A topology file is TOML: a `name`, a table of measured round trips to cite (`[rtt]`), the regions (`[[region]]`), the edges
//! (`[[edge]]`) and what the table does not have (`[[link]]`). `regions/three-continents.toml` is an example.

mod parse;
mod shipped;

use std::collections::BTreeMap;

use crate::ids::{LocationName, RegionId};
use crate::link::LinkProfile;

pub use parse::{RESERVED_NAMES, TopologyError};
pub use shipped::{SHIPPED, shipped};

/// What a location is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LocationKind {
    /// A data centre: API and store.
    Region,
    /// Where users enter: gateway and users.
    Edge,
}

/// One location.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// Its name.
    pub name: LocationName,
    /// What it is.
    pub kind: LocationKind,
    /// Its number, for regions: 1-based in the order of the file.
    pub region: Option<RegionId>,
    /// The home of this edge's users: the region whose jurisdiction they live in (edges only).
    pub home: Option<RegionId>,
}

/// A directed link with where its figure comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The profile.
    pub profile: LinkProfile,
    /// Where the figure comes from: the table and its date, or the words of who stated it.
    pub source: String,
}

/// A validated topology: every ordered pair of distinct locations has a link.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// Every location, regions first, in the order of the file.
    pub locations: Vec<Location>,
    /// Every directed link.
    pub links: BTreeMap<(LocationName, LocationName), Link>,
    /// A hash over names and numbers of the regions: a data folder belongs to one topology.
    pub fingerprint: String,
}

impl Topology {
    /// The regions in order.
    pub fn regions(&self) -> impl Iterator<Item = (RegionId, &LocationName)> + '_ {
        self.locations.iter().filter_map(|location| location.region.map(|region| (region, &location.name)))
    }

    /// The edges in order.
    pub fn edges(&self) -> impl Iterator<Item = &Location> + '_ {
        self.locations.iter().filter(|location| location.kind == LocationKind::Edge)
    }

    /// A location by name.
    pub fn location(&self, name: &str) -> Option<&Location> {
        self.locations.iter().find(|location| location.name.as_str() == name)
    }

    /// The number of a region by name.
    pub fn region_id(&self, name: &str) -> Option<RegionId> {
        self.regions().find(|(_, other)| other.as_str() == name).map(|(region, _)| region)
    }

    /// The name of a region by number.
    pub fn region_name(&self, region: RegionId) -> Option<&LocationName> {
        self.regions().find(|(other, _)| *other == region).map(|(_, name)| name)
    }

    /// A directed link.
    pub fn link(&self, from: &LocationName, to: &LocationName) -> Option<&Link> {
        self.links.get(&(from.clone(), to.clone()))
    }

    /// Declared round trip between two locations, milliseconds: both one-way delays.
    pub fn round_trip_ms(&self, a: &LocationName, b: &LocationName) -> Option<f64> {
        if a == b {
            return Some(0.0);
        }
        Some(self.link(a, b)?.profile.delay_ms + self.link(b, a)?.profile.delay_ms)
    }
}
