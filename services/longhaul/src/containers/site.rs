//! A process's place in the world of containers, from the command line and the environment.

use std::path::PathBuf;
use std::str::FromStr;

use longhaul_core::ids::LocationName;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::{Location, LocationKind, Topology};
use longhaul_http::clock::SystemClock;

use super::collector;
use super::places::{AGENT_PORT, Hosts, INSTANCES_MAX, USERS_PORT, relay, service_port};
use crate::cli::PlaceArgs;
use crate::embedded::Layout;
use crate::inputs;

/// The topology where none is named.
const TOPOLOGY: &str = "three-continents";
/// Where control listens.
const CONTROL_PORT: u16 = 8080;

/// What makes the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkDriver {
    /// The kernel's `netem`, in each location's network namespace.
    Kernel,
    /// Userspace links, in each location's agent.
    Relay,
    /// Nothing: the network between the locations is what it is.
    Real,
}

impl FromStr for LinkDriver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kernel" => Ok(Self::Kernel),
            "relay" => Ok(Self::Relay),
            "real" => Ok(Self::Real),
            other => Err(format!("{other:?} is no driver of links; use kernel, relay or real")),
        }
    }
}

/// What the moments in ledgers and leases are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockKind {
    /// The time since the host's boot: one clock for all containers of a host.
    Boot,
    /// The same, anchored to the wall clock when the process starts: for several hosts with disciplined clocks.
    Wall,
}

impl FromStr for ClockKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "boot" => Ok(Self::Boot),
            "wall" => Ok(Self::Wall),
            other => Err(format!("{other:?} is no clock; use boot (one host) or wall (several hosts)")),
        }
    }
}

/// A place.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The topology.
    pub(crate) topology: Topology,
    /// The location; `None` for control.
    location: Option<LocationName>,
    /// What makes the links.
    pub(crate) links: LinkDriver,
    /// Hosts on the network that the links are on.
    pub(crate) backbone: Hosts,
    /// Hosts out of band: for control, and for the evidence.
    pub(crate) out_of_band: Hosts,
    /// Hosts of the users of each edge, out of band.
    pub(crate) users: Hosts,
    /// Whether each location has an agent.
    pub(crate) agents: bool,
    /// Where control is, `host:port`.
    control: String,
    /// The seed of the testbed.
    pub(crate) seed: u64,
    /// The mode at the start.
    pub(crate) mode: Mode,
    /// The durability at the start.
    pub(crate) durability: Durability,
    /// The secret of session tokens, the same at all regions.
    pub(crate) session_secret: String,
    /// Where data lies.
    pub(crate) data: Option<PathBuf>,
    /// The PostgreSQL server of a region.
    pub(crate) database_url: Option<String>,
    /// Where traces go.
    pub(crate) otlp: Option<String>,
    /// Where traces go if nothing else is said and something listens there, `http://HOST:PORT`.
    pub(crate) collector: Option<String>,
    /// Where the pages of a Jaeger are that gets the traces.
    pub(crate) jaeger: Option<String>,
    /// How many API instances each region has, at ports one after another.
    pub(crate) instances: u16,
    /// Which of them the process is, from 1.
    pub(crate) instance: u16,
    /// What the ledgers' moments are measured by.
    clock: ClockKind,
}

impl Site {
    /// The place of a process at a location, or of control. `variable` reads the environment.
    pub(crate) fn read(args: &PlaceArgs, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let name = args.topology.clone().or_else(|| set("LONGHAUL_TOPOLOGY")).unwrap_or_else(|| TOPOLOGY.to_owned());
        let topology = inputs::topology(&name)?;
        let location = match args.location.clone().or_else(|| set("LONGHAUL_LOCATION")) {
            None => None,
            Some(text) => Some(find(&topology, &text)?),
        };
        let hosts =
            |name: &str, otherwise: &str| Hosts::parse(name, set(name).as_deref().unwrap_or(otherwise), &topology);
        let collector = set("LONGHAUL_COLLECTOR");
        if let Some(url) = collector.as_ref().filter(|url| collector::address(url).is_none()) {
            return Err(format!("LONGHAUL_COLLECTOR: {url:?} is not http://HOST:PORT; correct it"));
        }
        let number = |name: &str, most: u16| {
            let number = parsed(name, set(name))?.unwrap_or(1);
            let refused = || format!("{name}: {number} is not 1 to {most}; correct it");
            (1..=most).contains(&number).then_some(number).ok_or_else(refused)
        };
        let instances = number("LONGHAUL_INSTANCES", INSTANCES_MAX)?;
        Ok(Self {
            instances,
            instance: number("LONGHAUL_INSTANCE", instances)?,
            collector,
            jaeger: set("LONGHAUL_JAEGER"),
            links: parsed("LONGHAUL_LINKS", set("LONGHAUL_LINKS"))?.unwrap_or(LinkDriver::Kernel),
            backbone: hosts("LONGHAUL_ADDRESSES", "{location}")?,
            users: hosts("LONGHAUL_USERS", set("LONGHAUL_OUT_OF_BAND").as_deref().unwrap_or("{location}"))?,
            out_of_band: hosts("LONGHAUL_OUT_OF_BAND", "{location}")?,
            agents: parsed("LONGHAUL_AGENTS", set("LONGHAUL_AGENTS"))?.unwrap_or(true),
            control: set("LONGHAUL_CONTROL").unwrap_or_else(|| format!("control:{CONTROL_PORT}")),
            seed: parsed("LONGHAUL_SEED", set("LONGHAUL_SEED"))?.unwrap_or(42),
            mode: parsed("LONGHAUL_MODE", set("LONGHAUL_MODE"))?.unwrap_or(Mode::ActivePassive),
            durability: parsed("LONGHAUL_DURABILITY", set("LONGHAUL_DURABILITY"))?.unwrap_or(Durability::Local),
            session_secret: set("LONGHAUL_SESSION_SECRET").unwrap_or_else(|| "longhaul".to_owned()),
            data: set("LONGHAUL_DATA").map(PathBuf::from),
            database_url: set("LONGHAUL_DATABASE_URL"),
            otlp: set("OTEL_EXPORTER_OTLP_ENDPOINT"),
            clock: parsed("LONGHAUL_CLOCK", set("LONGHAUL_CLOCK"))?.unwrap_or(ClockKind::Boot),
            topology,
            location,
        })
    }

    /// The location that the process stands at.
    pub(crate) fn location(&self) -> Result<&Location, String> {
        let name = self.location.as_ref().ok_or("the location is not named; use --location or LONGHAUL_LOCATION")?;
        let found = self.topology.location(name.as_str());
        found.ok_or_else(|| format!("a defect: {name} is gone"))
    }

    /// The location, which must be of this kind.
    pub(crate) fn location_of_kind(&self, kind: LocationKind) -> Result<&Location, String> {
        let location = self.location()?;
        if location.kind == kind {
            return Ok(location);
        }
        let what = |kind| if kind == LocationKind::Region { "a region" } else { "an edge" };
        Err(format!("{} is not {}; name another location", location.name, what(kind)))
    }

    /// What a process elsewhere dials to reach the service of `to`: the first of its instances.
    pub(crate) fn dial(&self, to: &LocationName) -> String {
        self.dial_instance(to, 1)
    }

    /// What a process elsewhere dials to reach an instance of the service of `to`.
    fn dial_instance(&self, to: &LocationName, instance: u16) -> String {
        match self.links {
            LinkDriver::Relay => relay(&self.topology, to, instance),
            LinkDriver::Kernel | LinkDriver::Real => self.backbone.at(to, service_port(instance)),
        }
    }

    /// What a process elsewhere dials to reach a region, all of its instances.
    pub(crate) fn dial_all(&self, to: &LocationName) -> Vec<String> {
        (1..=self.instances).map(|instance| self.dial_instance(to, instance)).collect()
    }

    /// Who listens where, as seen from the location.
    pub(crate) fn layout(&self) -> Layout {
        let any = |port: u16| format!("0.0.0.0:{port}");
        let own = any(service_port(self.instance));
        let services = self.topology.locations.iter().map(|location| (location.name.clone(), own.clone()));
        let relays = self.topology.links.keys().map(|pair| (pair.clone(), self.dial(&pair.1)));
        Layout::given(services.collect(), relays.collect(), any(AGENT_PORT), any(USERS_PORT), self.control.clone())
    }

    /// The clock of a process at this place.
    pub(crate) fn clock(&self) -> SystemClock {
        match self.clock {
            ClockKind::Boot => SystemClock::default(),
            ClockKind::Wall => SystemClock::anchored_to_wall(),
        }
    }

    /// Where control listens.
    pub(crate) fn control_listen() -> String {
        format!("0.0.0.0:{CONTROL_PORT}")
    }
}

/// Reads a variable's value, if it has one.
fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{name}: {error}"))).transpose()
}

fn find(topology: &Topology, text: &str) -> Result<LocationName, String> {
    let found = topology.location(text);
    found.map(|location| location.name.clone()).ok_or_else(|| {
        let known = topology.locations.iter().map(|location| location.name.to_string()).collect::<Vec<_>>().join(", ");
        format!("{text:?} is no location of topology {}; use one of {known}", topology.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(location: Option<&str>, variables: &[(&str, &str)]) -> Result<Site, String> {
        let args = PlaceArgs { topology: Some("two-regions".to_owned()), location: location.map(str::to_owned) };
        let variables: std::collections::BTreeMap<_, _> = variables.iter().copied().collect();
        Site::read(&args, &|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_driver_decides_what_is_dialled() {
        let hosts = ("LONGHAUL_ADDRESSES", "eu-west-1=10.87.0.11,eu-central-1=10.87.0.12,paris=10.87.0.13");
        let to = LocationName::new("eu-central-1").unwrap();
        let dial = |links| site(Some("paris"), &[hosts, ("LONGHAUL_LINKS", links)]).unwrap().dial(&to);
        assert_eq!((dial("kernel"), dial("real")), ("10.87.0.12:7000".to_owned(), "10.87.0.12:7000".to_owned()));
        assert_eq!(dial("relay"), "127.0.0.1:17001");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let refused = |location, variables: &[(&str, &str)]| site(location, variables).unwrap_err();
        assert!(refused(Some("mars"), &[]).contains("eu-west-1, eu-central-1, paris"));
        assert!(refused(None, &[("LONGHAUL_LINKS", "magic")]).starts_with("LONGHAUL_LINKS"));
        assert!(refused(None, &[("LONGHAUL_SEED", "soon")]).starts_with("LONGHAUL_SEED"));
        assert!(refused(None, &[("LONGHAUL_MODE", "both")]).starts_with("LONGHAUL_MODE"));
        assert!(refused(None, &[("LONGHAUL_CLOCK", "sun")]).starts_with("LONGHAUL_CLOCK"));
        assert!(refused(None, &[("LONGHAUL_COLLECTOR", "jaeger")]).starts_with("LONGHAUL_COLLECTOR"));
        assert!(refused(None, &[("LONGHAUL_INSTANCES", "17")]).contains("1 to 16"));
        assert!(refused(None, &[("LONGHAUL_INSTANCES", "2"), ("LONGHAUL_INSTANCE", "3")]).contains("1 to 2"));
        assert!(site(None, &[]).unwrap().location().unwrap_err().contains("--location"));
        let edge = site(Some("paris"), &[]).unwrap();
        assert!(edge.location_of_kind(LocationKind::Region).unwrap_err().contains("not a region"));
    }

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let site = site(None, &[("LONGHAUL_SEED", ""), ("LONGHAUL_DATA", "")]).unwrap();
        assert_eq!((site.seed, site.data), (42, None));
    }
}
