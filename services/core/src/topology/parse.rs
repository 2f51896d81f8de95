//! From a topology file to a validated [`Topology`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Link, Location, LocationKind, Topology};
use crate::ids::{LocationName, RegionId};
use crate::input_error::{InputError, list};
use crate::limits;
use crate::link::{JitterDistribution, LinkProfile};
use crate::rtt::{self, RttTable};

/// Why a topology file was refused: file, key, problem and remedy in one line.
pub type TopologyError = InputError;

/// Names that no location may have, because drill plans use them for roles.
pub const RESERVED_NAMES: &[&str] = &["primary", "secondary", "control", "link", "traffic", "users"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    name: String,
    rtt: Option<RawRtt>,
    #[serde(default)]
    region: Vec<RawRegion>,
    #[serde(default)]
    edge: Vec<RawEdge>,
    #[serde(default)]
    link: Vec<RawLink>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRtt {
    table: String,
    jitter: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    name: String,
    measured_as: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdge {
    name: String,
    home: String,
    measured_as: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    from: String,
    to: String,
    rtt_ms: Option<f64>,
    delay_ms: Option<f64>,
    #[serde(default)]
    one_way: bool,
    jitter_ms: Option<f64>,
    jitter_distribution: Option<JitterDistribution>,
    jitter_correlation: Option<f64>,
    loss: Option<f64>,
    reorder: Option<f64>,
    rate_kbit: Option<u64>,
    source: String,
}

/// The cited table, read.
struct Cited {
    name: String,
    source: String,
    round_trips: RttTable,
    deviations: Option<RttTable>,
}

/// What `[[link]]` says about one directed pair.
struct Stated<'a> {
    index: usize,
    link: &'a RawLink,
    delay_ms: Option<f64>,
}

struct Reader<'a> {
    file: &'a str,
    tables: &'a dyn Fn(&str) -> Option<String>,
}

impl Topology {
    /// Reads and validates a topology.
    ///
    /// `file_label` names the file in errors. `tables` gives the text of a round-trip table by name (files beside the
    /// topology, or [`rtt::builtin`]); a name that it does not know is looked up among the shipped ones.
    ///
    /// # Errors
    /// One line that names the file, the key, the problem and the remedy.
    pub fn parse(file_label: &str, text: &str, tables: &dyn Fn(&str) -> Option<String>) -> Result<Self, TopologyError> {
        let raw: RawTopology = toml::from_str(text).map_err(|error| InputError::toml(file_label, "", text, &error))?;
        Reader { file: file_label, tables }.read(&raw)
    }
}

impl Reader<'_> {
    fn refuse<T>(
        &self,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<T, TopologyError> {
        Err(InputError::new(self.file, key, problem, remedy))
    }

    fn read(&self, raw: &RawTopology) -> Result<Topology, TopologyError> {
        if raw.name.trim().is_empty() || raw.name.len() > 80 || raw.name.contains(char::is_control) {
            return self.refuse("name", "it must have 1 to 80 printable characters", "give the topology a short name");
        }
        let locations = self.locations(raw)?;
        let cited = raw.rtt.as_ref().map(|rtt| self.cite(rtt)).transpose()?;
        let sites = self.sites(raw, &locations, cited.as_ref())?;
        let stated = self.stated(raw, &locations)?;
        let mut links = BTreeMap::new();
        for from in &locations {
            for to in locations.iter().filter(|to| to.name != from.name) {
                let pair = (from.name.clone(), to.name.clone());
                let link = self.link(&pair, stated.get(&pair), cited.as_ref(), &sites)?;
                links.insert(pair, link);
            }
        }
        Ok(Topology { name: raw.name.clone(), fingerprint: fingerprint(&locations), locations, links })
    }

    fn locations(&self, raw: &RawTopology) -> Result<Vec<Location>, TopologyError> {
        if raw.region.is_empty() {
            return self.refuse("region", "there is no region", "add at least one [[region]] with a name");
        }
        if raw.region.len() > limits::REGIONS_MAX {
            let problem = format!("{} regions are more than {}", raw.region.len(), limits::REGIONS_MAX);
            return self.refuse("region", problem, "leave some out");
        }
        if raw.edge.len() > limits::EDGES_MAX {
            let problem = format!("{} edges are more than {}", raw.edge.len(), limits::EDGES_MAX);
            return self.refuse("edge", problem, "leave some out");
        }
        let mut names = BTreeSet::new();
        let mut locations = Vec::with_capacity(raw.region.len() + raw.edge.len());
        for (index, region) in raw.region.iter().enumerate() {
            let name = self.name(&format!("region[{index}].name"), &region.name, &mut names)?;
            let id = u16::try_from(index + 1).map(RegionId).expect("REGIONS_MAX fits in u16");
            locations.push(Location { name, kind: LocationKind::Region, region: Some(id), home: None });
        }
        for (index, edge) in raw.edge.iter().enumerate() {
            let name = self.name(&format!("edge[{index}].name"), &edge.name, &mut names)?;
            let home =
                locations.iter().find_map(|location| location.region.filter(|_| location.name.as_str() == edge.home));
            let Some(home) = home else {
                let regions = list(raw.region.iter().map(|region| &region.name));
                return self.refuse(
                    format!("edge[{index}].home"),
                    format!("{:?} is no region", edge.home),
                    format!("use one of {regions}"),
                );
            };
            locations.push(Location { name, kind: LocationKind::Edge, region: None, home: Some(home) });
        }
        Ok(locations)
    }

    fn name(&self, key: &str, text: &str, names: &mut BTreeSet<String>) -> Result<LocationName, TopologyError> {
        let name = match LocationName::new(text) {
            Ok(name) => name,
            Err(error) => return self.refuse(key, error.to_string(), "rename the location"),
        };
        if RESERVED_NAMES.contains(&text) {
            let problem = format!("{text:?} has a meaning of its own in drill plans");
            return self.refuse(key, problem, "rename the location");
        }
        if !names.insert(text.to_owned()) {
            let problem = format!("{text:?} names two locations");
            return self.refuse(key, problem, "give every region and edge its own name");
        }
        Ok(name)
    }

    fn table(&self, key: &str, name: &str) -> Result<String, TopologyError> {
        match (self.tables)(name).or_else(|| rtt::builtin(name).map(str::to_owned)) {
            Some(text) => Ok(text),
            None => self.refuse(
                key,
                format!("there is no round-trip table {name:?}"),
                format!(
                    "use one of {} or put {name}.csv into a folder rtt beside this file",
                    list(rtt::BUILT_IN.iter().map(|table| table.name).filter(|name| !name.ends_with("_jitter")))
                ),
            ),
        }
    }

    fn cite(&self, raw: &RawRtt) -> Result<Cited, TopologyError> {
        let text = self.table("rtt.table", &raw.table)?;
        let malformed = |name: &str, error: &rtt::TableError| {
            InputError::new(self.file, "rtt.table", format!("table {name}: {error}"), "correct the table")
        };
        let round_trips = RttTable::parse(&text).map_err(|error| malformed(&raw.table, &error))?;
        let shipped = rtt::describe(&raw.table).filter(|shipped| shipped.text == text);
        let source = match (&raw.source, shipped) {
            (Some(source), _) => self.source("rtt.source", source)?,
            (None, Some(shipped)) => shipped.source.to_owned(),
            (None, None) => {
                let problem = format!("nobody says where the figures of table {:?} come from", raw.table);
                return self.refuse(
                    "rtt.source",
                    problem,
                    "add source = \"who measured what, when, under which licence\"",
                );
            }
        };
        let deviations = match raw.jitter.as_deref() {
            None => None,
            Some("table") => {
                let name = format!("{}_jitter", raw.table);
                let text = self.table("rtt.jitter", &name)?;
                Some(RttTable::parse_jitter(&text).map_err(|error| malformed(&name, &error))?)
            }
            Some(other) => {
                let problem = format!("{other:?} is not a source of jitter");
                return self.refuse("rtt.jitter", problem, "use \"table\", or leave it out for none");
            }
        };
        Ok(Cited { name: raw.table.clone(), source, round_trips, deviations })
    }

    fn source(&self, key: &str, text: &str) -> Result<String, TopologyError> {
        let text = text.trim();
        if text.is_empty() || text.len() > 300 || text.contains(char::is_control) {
            let remedy = "say in one line of at most 300 characters where the figure comes from";
            return self.refuse(key, "it says nothing, or too much", remedy);
        }
        Ok(text.to_owned())
    }

    /// The table's site of each location. A region's own name is its site unless it says otherwise.
    fn sites(
        &self,
        raw: &RawTopology,
        locations: &[Location],
        cited: Option<&Cited>,
    ) -> Result<BTreeMap<LocationName, String>, TopologyError> {
        let regions = raw.region.iter().enumerate().map(|(index, region)| {
            (format!("region[{index}].measured_as"), region.measured_as.as_ref(), Some(&region.name))
        });
        let edges = raw
            .edge
            .iter()
            .enumerate()
            .map(|(index, edge)| (format!("edge[{index}].measured_as"), edge.measured_as.as_ref(), None));
        let mut sites = BTreeMap::new();
        for (location, (key, explicit, implied)) in locations.iter().zip(regions.chain(edges)) {
            match (explicit, implied, cited) {
                (Some(_), _, None) => {
                    return self.refuse(key, "there is no table to look it up in", "add [rtt] with a table");
                }
                (Some(site), _, Some(cited)) if !cited.round_trips.has_site(site) => {
                    let problem = format!("table {:?} has no site {site:?}", cited.name);
                    let known = list(cited.round_trips.sites());
                    return self.refuse(key, problem, format!("use one of {known}"));
                }
                (Some(site), _, Some(_)) => {
                    sites.insert(location.name.clone(), site.clone());
                }
                (None, Some(name), Some(cited)) if cited.round_trips.has_site(name) => {
                    sites.insert(location.name.clone(), name.clone());
                }
                (None, ..) => {}
            }
        }
        Ok(sites)
    }

    /// What `[[link]]` states, by directed pair.
    fn stated<'a>(
        &self,
        raw: &'a RawTopology,
        locations: &[Location],
    ) -> Result<BTreeMap<(LocationName, LocationName), Stated<'a>>, TopologyError> {
        let mut stated = BTreeMap::new();
        for (index, link) in raw.link.iter().enumerate() {
            let key = |field: &str| format!("link[{index}].{field}");
            let end = |field: &str, name: &str| {
                locations.iter().find(|location| location.name.as_str() == name).ok_or_else(|| {
                    let known = list(locations.iter().map(|location| &location.name));
                    InputError::new(
                        self.file,
                        key(field),
                        format!("{name:?} is no region or edge"),
                        format!("use one of {known}"),
                    )
                })
            };
            let (from, to) = (end("from", &link.from)?.name.clone(), end("to", &link.to)?.name.clone());
            if from == to {
                return self.refuse(key("to"), format!("{from} has no link to itself"), "name two locations");
            }
            let delay_ms = match (link.rtt_ms, link.delay_ms) {
                (Some(_), Some(_)) => {
                    let problem = "both a round trip and a one-way delay are stated";
                    return self.refuse(key("rtt_ms"), problem, "state one of rtt_ms and delay_ms");
                }
                (Some(_), None) if link.one_way => {
                    let problem = "a round trip is not one way";
                    return self.refuse(key("rtt_ms"), problem, "state delay_ms, or leave one_way out");
                }
                (Some(rtt), None) if !(0.0..=2.0 * crate::link::DELAY_MS_MAX).contains(&rtt) => {
                    let problem = format!("{rtt} is out of bounds");
                    return self.refuse(key("rtt_ms"), problem, "use 0 to 120000 milliseconds");
                }
                (Some(rtt), None) => Some(rtt / 2.0),
                (None, delay) => delay,
            };
            self.source(&key("source"), &link.source)?;
            let reverse = (!link.one_way).then(|| (to.clone(), from.clone()));
            for pair in std::iter::once((from, to)).chain(reverse) {
                let text = format!("{} to {}", pair.0, pair.1);
                if let Some(earlier) = stated.insert(pair, Stated { index, link, delay_ms }) {
                    let problem = format!("{text} is stated by link[{}] already", earlier.index);
                    return self.refuse(
                        key("from"),
                        problem,
                        "state each direction once (one_way = true splits a pair)",
                    );
                }
            }
        }
        Ok(stated)
    }

    fn link(
        &self,
        pair: &(LocationName, LocationName),
        stated: Option<&Stated<'_>>,
        cited: Option<&Cited>,
        sites: &BTreeMap<LocationName, String>,
    ) -> Result<Link, TopologyError> {
        let (from, to) = pair;
        let measured = match (cited, sites.get(from), sites.get(to)) {
            (Some(cited), Some(a), Some(b)) if a != b => measured(cited, a, b),
            _ => None,
        };
        let stated_delay = stated.and_then(|stated| stated.delay_ms);
        let (mut profile, mut source) = match (stated_delay, measured) {
            (Some(delay), _) => (LinkProfile::delay(delay), String::new()),
            (None, Some((profile, source))) => (profile, source),
            (None, None) => {
                let why = match (cited, sites.get(from), sites.get(to)) {
                    (None, ..) => "no table is cited".to_owned(),
                    (Some(_), Some(a), Some(b)) if a == b => format!("both are measured as {a}"),
                    (Some(cited), Some(a), Some(b)) => format!("table {:?} has no pair {a}, {b}", cited.name),
                    (Some(cited), Some(_), None) => format!("table {:?} has no site for {to}", cited.name),
                    (Some(cited), None, _) => format!("table {:?} has no site for {from}", cited.name),
                };
                let remedy = format!("add [[link]] with from = \"{from}\", to = \"{to}\", rtt_ms and source");
                return self.refuse("link", format!("nothing gives the delay of {from} to {to}: {why}"), remedy);
            }
        };
        if let Some(Stated { index, link, .. }) = stated {
            if stated_delay.is_some() {
                source.clone_from(&link.source);
            } else {
                source = format!("{source}; the rest stated: {}", link.source);
            }
            profile.jitter_ms = link.jitter_ms.unwrap_or(profile.jitter_ms);
            profile.jitter_distribution = link.jitter_distribution.unwrap_or(profile.jitter_distribution);
            profile.jitter_correlation = link.jitter_correlation.unwrap_or(profile.jitter_correlation);
            profile.loss = link.loss.unwrap_or(profile.loss);
            profile.reorder = link.reorder.unwrap_or(profile.reorder);
            profile.rate_kbit = link.rate_kbit.or(profile.rate_kbit);
            if let Err(error) = profile.validate() {
                let key = format!("link[{index}].{}", error.field);
                return self.refuse(key, error.to_string(), "state a figure within the bounds");
            }
        }
        if let Err(error) = profile.validate() {
            let key = format!("rtt.table ({from} to {to})");
            return self.refuse(key, error.to_string(), "correct the table");
        }
        if profile.jitter_ms > profile.delay_ms {
            let key = stated.map_or("rtt.jitter".to_owned(), |stated| format!("link[{}].jitter_ms", stated.index));
            let problem = format!(
                "the jitter of {from} to {to} ({} ms) is larger than its delay ({} ms)",
                profile.jitter_ms, profile.delay_ms
            );
            return self.refuse(key, problem, "state a jitter of at most the one-way delay");
        }
        Ok(Link { profile, source })
    }
}

/// A directed link out of the table: half of the round trip measured in its direction.
fn measured(cited: &Cited, from: &str, to: &str) -> Option<(LinkProfile, String)> {
    let forward = cited.round_trips.get(from, to);
    let rtt_ms = forward.or_else(|| cited.round_trips.get(to, from))?;
    let note = if forward.is_some() { "" } else { " (published for the other direction only)" };
    let mut source = format!("table {}: {from} to {to}, round trip {rtt_ms} ms{note}, {}", cited.name, cited.source);
    let deviation = cited.deviations.as_ref().and_then(|table| table.get(from, to).or_else(|| table.get(to, from)));
    if let Some(deviation) = deviation {
        source.push_str(&format!(", mdev {deviation} ms"));
    }
    let profile = LinkProfile {
        // A table may say that a path swings more than it is long; a delay cannot.
        jitter_ms: (deviation.unwrap_or(0.0) / 2.0).min(rtt_ms / 2.0),
        ..LinkProfile::delay(rtt_ms / 2.0)
    };
    Some((profile, source))
}

/// A hash over numbers and names of the regions: data of one set of regions must not be opened by another.
fn fingerprint(locations: &[Location]) -> String {
    let mut hash = Sha256::new();
    for location in locations {
        if let Some(region) = location.region {
            hash.update(format!("{region} {}\n", location.name));
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
