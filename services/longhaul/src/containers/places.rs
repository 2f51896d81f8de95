//! Where locations are reached, and which port is whose. Ports are the same at every location.

use std::collections::BTreeMap;

use longhaul_core::ids::LocationName;
use longhaul_core::topology::Topology;

/// A location's own service: a region's first API instance, an edge's gateway.
pub(crate) const SERVICE_PORT: u16 = 7000;
/// Most API instances of a region.
pub(crate) const INSTANCES_MAX: u16 = 16;
/// The location's agent.
pub(crate) const AGENT_PORT: u16 = 7100;
/// The users of an edge.
pub(crate) const USERS_PORT: u16 = 7200;
/// The first userspace link of a location; one for each place in the topology and each instance there.
const RELAY_PORT_FIRST: u16 = 17_000;
/// Places in a topology, rounded up.
const PLACES_MAX: u16 = 128;
/// Where the name of the location goes in a pattern.
const PLACEHOLDER: &str = "{location}";

/// The host of every location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosts(BTreeMap<LocationName, String>);

impl Hosts {
    /// Reads `NAME=HOST,NAME=HOST,…`, or a pattern with `{location}` in it. `variable` names the source in errors.
    pub(crate) fn parse(variable: &str, text: &str, topology: &Topology) -> Result<Self, String> {
        let mut stated: BTreeMap<&str, &str> = BTreeMap::new();
        let pattern = text.contains(PLACEHOLDER);
        for pair in text.split(',').map(str::trim).filter(|pair| !pattern && !pair.is_empty()) {
            let (name, host) =
                pair.split_once('=').ok_or_else(|| format!("{variable}: {pair:?} is not LOCATION=HOST; correct it"))?;
            if topology.location(name).is_none() {
                return Err(format!("{variable}: {name:?} is no location of topology {}; correct it", topology.name));
            }
            if let Some((other, _)) = stated.iter().find(|(_, known)| **known == host) {
                return Err(format!("{variable}: {other} and {name} have one host, {host}; give each its own"));
            }
            stated.insert(name, host);
        }
        let host = |name: &LocationName| {
            let host = if pattern {
                text.replace(PLACEHOLDER, name.as_str())
            } else {
                stated.get(name.as_str()).map(|host| (*host).to_owned()).unwrap_or_default()
            };
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_');
            if host.is_empty() || !host.bytes().all(plain) {
                return Err(format!("{variable} has no host for {name}; add {name}=HOST"));
            }
            Ok((name.clone(), host))
        };
        topology.locations.iter().map(|location| host(&location.name)).collect::<Result<_, _>>().map(Self)
    }

    /// A location's host.
    pub(crate) fn host(&self, location: &LocationName) -> &str {
        self.0.get(location).map_or("", String::as_str)
    }

    /// `host:port` at a location. An IPv6 address gets its brackets.
    pub(crate) fn at(&self, location: &LocationName, port: u16) -> String {
        let host = self.host(location);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Where an instance of a location's service listens, numbered from 1.
pub(crate) fn service_port(instance: u16) -> u16 {
    SERVICE_PORT + instance - 1
}

/// Where the userspace link to an instance at a location listens, inside the dialling location.
pub(crate) fn relay(topology: &Topology, to: &LocationName, instance: u16) -> String {
    let place = topology.locations.iter().position(|location| location.name == *to).unwrap_or(0);
    // At most 128 places and 16 instances, so this stays below the ephemeral ports.
    let port = RELAY_PORT_FIRST + (instance - 1) * PLACES_MAX + u16::try_from(place).unwrap_or(0);
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology::shipped("two-regions").unwrap().unwrap()
    }

    fn name(text: &str) -> LocationName {
        LocationName::new(text).unwrap()
    }

    #[test]
    fn hosts_come_from_a_list_or_a_pattern() {
        let list = "eu-west-1=10.87.0.11, eu-central-1=10.87.0.12,paris=fd00::13";
        let hosts = Hosts::parse("X", list, &topology()).unwrap();
        assert_eq!(hosts.at(&name("eu-central-1"), 7000), "10.87.0.12:7000");
        assert_eq!(hosts.at(&name("paris"), 7000), "[fd00::13]:7000");
        let hosts = Hosts::parse("X", "{location}.control", &topology()).unwrap();
        assert_eq!(hosts.at(&name("paris"), 7100), "paris.control:7100");
    }

    #[test]
    fn what_is_missing_twice_or_unknown_is_named() {
        let refused = |text: &str| Hosts::parse("LONGHAUL_ADDRESSES", text, &topology()).unwrap_err();
        assert!(refused("eu-west-1=10.0.0.1,paris=10.0.0.2").contains("no host for eu-central-1"));
        assert!(refused("eu-west-1=10.0.0.1,paris=10.0.0.1").contains("one host"));
        assert!(refused("london=10.0.0.1").contains("\"london\" is no location"));
        assert!(refused("paris").contains("LOCATION=HOST"));
        assert!(refused("eu-west-1=10.0.0.1,eu-central-1=10.0.0.2,paris=10.0.0.3/x").contains("paris"));
    }

    #[test]
    fn every_instance_has_a_relay_port_of_its_own() {
        let topology = topology();
        assert_eq!(relay(&topology, &name("eu-west-1"), 1), "127.0.0.1:17000");
        assert_eq!(relay(&topology, &name("paris"), 1), "127.0.0.1:17002");
        assert_eq!(relay(&topology, &name("eu-west-1"), 2), "127.0.0.1:17128");
    }
}
