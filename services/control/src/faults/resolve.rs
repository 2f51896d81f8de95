//! From the words of a plan to names: `primary` and `secondary` become regions, and names must exist.

use longhaul_core::plan::Action;
use longhaul_core::topology::{LocationKind, Topology};

/// A name that cannot be resolved, with those that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no {what} of topology {topology}; use one of {known}")]
pub(crate) struct ResolveError {
    name: String,
    what: &'static str,
    topology: String,
    known: String,
}

/// Who stands for `primary` and `secondary` now.
pub(crate) struct Roles<'a> {
    topology: &'a Topology,
    primary: Option<&'a str>,
}

impl<'a> Roles<'a> {
    /// The roles under a primary. Without one, the topology's first region counts as primary.
    pub(crate) fn new(topology: &'a Topology, primary: Option<&'a str>) -> Self {
        Self { topology, primary }
    }

    fn primary(&self) -> &str {
        let first = || self.topology.regions().next().map_or("", |(_, name)| name.as_str());
        self.primary.unwrap_or_else(first)
    }

    /// The other region with the shortest round trip to the primary; the topology's order breaks ties.
    fn secondary(&self) -> &str {
        let Some((_, primary)) = self.topology.regions().find(|(_, name)| name.as_str() == self.primary()) else {
            return "";
        };
        let others = self.topology.regions().filter(|(_, name)| *name != primary);
        let distance = |name| self.topology.round_trip_ms(primary, name).unwrap_or(f64::INFINITY);
        others.map(|(_, name)| name).min_by(|a, b| distance(a).total_cmp(&distance(b))).map_or("", |name| name.as_str())
    }

    fn name(&self, text: &str, what: &'static str, extra: &[&str]) -> Result<String, ResolveError> {
        let resolved = match text {
            "primary" => self.primary(),
            "secondary" => self.secondary(),
            name => name,
        };
        let locations = || {
            let of_kind = |kind: LocationKind| what == "location" || kind == LocationKind::Region;
            self.topology.locations.iter().filter(move |l| of_kind(l.kind)).map(|l| l.name.as_str())
        };
        if extra.contains(&resolved) || locations().any(|name| name == resolved) {
            return Ok(resolved.to_owned());
        }
        let known: Vec<_> = locations().chain(extra.iter().copied()).chain(["primary", "secondary"]).collect();
        let (name, topology) = (text.to_owned(), self.topology.name.clone());
        Err(ResolveError { name, what, topology, known: known.join(", ") })
    }

    fn region(&self, text: &str) -> Result<String, ResolveError> {
        self.name(text, "region", &[])
    }

    fn location(&self, text: &str) -> Result<String, ResolveError> {
        self.name(text, "location", &[])
    }

    /// The action with names in the place of roles.
    pub(crate) fn resolve(&self, action: &Action) -> Result<Action, ResolveError> {
        let process = |target: &str| self.name(target, "location", &["control", "link"]);
        Ok(match action {
            Action::RegionLoss { region } => Action::RegionLoss { region: self.region(region)? },
            Action::RegionReturn { region } => Action::RegionReturn { region: self.region(region)? },
            Action::Kill { target } => Action::Kill { target: process(target)? },
            Action::Restart { target } => Action::Restart { target: process(target)? },
            Action::Pause { target } => Action::Pause { target: self.location(target)? },
            Action::Resume { target } => Action::Resume { target: self.location(target)? },
            Action::Link { from, to, both, change } => {
                Action::Link { from: self.location(from)?, to: self.location(to)?, both: *both, change: change.clone() }
            }
            Action::HealLinks => Action::HealLinks,
            Action::ClockSkew { region, offset_ms } => {
                Action::ClockSkew { region: self.region(region)?, offset_ms: *offset_ms }
            }
            Action::Decide { region, decision } => Action::Decide { region: self.region(region)?, decision: *decision },
            Action::Switchover { to } => Action::Switchover { to: self.region(to)? },
            Action::Failover { to, allow_data_loss } => Action::Failover {
                to: to.as_deref().map(|to| self.region(to)).transpose()?,
                allow_data_loss: *allow_data_loss,
            },
            Action::Switch { mode, durability, primary, force } => Action::Switch {
                mode: *mode,
                durability: *durability,
                primary: primary.as_deref().map(|name| self.region(name)).transpose()?,
                force: *force,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology::shipped("three-continents").unwrap().unwrap()
    }

    fn loss(region: &str) -> Action {
        Action::RegionLoss { region: region.to_owned() }
    }

    #[test]
    fn roles_follow_the_primary() {
        let topology = topology();
        let roles = Roles::new(&topology, Some("eu-west-1"));
        assert_eq!(roles.resolve(&loss("primary")), Ok(loss("eu-west-1")));
        assert_eq!(roles.resolve(&loss("secondary")), Ok(loss("us-east-1")));
    }

    #[test]
    fn without_a_primary_the_first_region_counts_as_it() {
        let topology = topology();
        assert_eq!(Roles::new(&topology, None).resolve(&loss("primary")), Ok(loss("us-east-1")));
    }

    #[test]
    fn an_edge_can_be_killed_but_not_lost_like_a_region() {
        let topology = topology();
        let roles = Roles::new(&topology, None);
        let kill = Action::Kill { target: "london".to_owned() };
        assert_eq!(roles.resolve(&kill), Ok(kill.clone()));
        let error = roles.resolve(&loss("london")).unwrap_err().to_string();
        assert!(error.contains("is no region") && error.contains("us-east-1, eu-west-1"), "{error}");
    }
}
