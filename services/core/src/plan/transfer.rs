//! A plan on another topology than the one that it was written for.

use std::collections::BTreeMap;

use super::{Action, DrillPlan};
use crate::topology::Topology;

impl DrillPlan {
    /// Puts the plan onto `other`, if it names a region or an edge of `own` (the topology that it was written for) that
    /// `other` does not have: then each of its names stands for the region or edge at the same place in `other`. All of them
    /// or none, so that no two become one. A name without a counterpart stays, for validation to refuse.
    ///
    /// Answers with the names that were replaced, and by what.
    pub fn transfer(&mut self, own: &Topology, other: &Topology) -> BTreeMap<String, String> {
        let is_foreign = |name: &str| own.location(name).is_some() && other.location(name).is_none();
        if !self.names_mut().into_iter().any(|name| is_foreign(name)) {
            return BTreeMap::new();
        }
        let regions = own.regions().zip(other.regions()).map(|((_, name), (_, counterpart))| (name, counterpart));
        let edges = own.edges().zip(other.edges()).map(|(edge, counterpart)| (&edge.name, &counterpart.name));
        let counterparts: BTreeMap<_, _> =
            regions.chain(edges).map(|(name, counterpart)| (name.as_str(), counterpart.to_string())).collect();
        let mut replaced = BTreeMap::new();
        for name in self.names_mut() {
            if let Some(counterpart) = counterparts.get(name.as_str()) {
                replaced.insert(std::mem::replace(name, counterpart.clone()), counterpart.clone());
            }
        }
        replaced
    }

    /// Everywhere that a location may be named.
    fn names_mut(&mut self) -> Vec<&mut String> {
        let steps = self.steps.iter_mut().flat_map(|step| step.action.names_mut());
        self.regime.primary.iter_mut().chain(steps).collect()
    }
}

impl Action {
    fn names_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::RegionLoss { region }
            | Self::RegionReturn { region }
            | Self::ClockSkew { region, .. }
            | Self::Decide { region, .. } => vec![region],
            Self::Kill { target } | Self::Restart { target } | Self::Pause { target } | Self::Resume { target } => {
                vec![target]
            }
            Self::Link { from, to, .. } => vec![from, to],
            Self::Switchover { to } => vec![to],
            Self::Failover { to, .. } => to.iter_mut().collect(),
            Self::Switch { primary, .. } => primary.iter_mut().collect(),
            Self::HealLinks => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SHIPPED;

    fn shipped(name: &str) -> Topology {
        Topology::shipped(name).unwrap().unwrap()
    }

    #[test]
    fn every_shipped_drill_is_valid_on_every_shipped_topology_of_at_least_as_many_regions() {
        for (name, _) in SHIPPED {
            for topology in ["three-continents", "five-azure", "all-azure"] {
                let mut plan = DrillPlan::shipped(name).unwrap().unwrap();
                plan.transfer(&shipped(&plan.topology), &shipped(topology));
                plan.validate(&shipped(topology)).unwrap();
            }
        }
    }

    #[test]
    fn names_stand_for_the_location_at_the_same_place_all_or_none() {
        let mut plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
        let before = plan.clone();
        assert!(plan.transfer(&shipped("three-continents"), &shipped("three-continents")).is_empty());
        assert_eq!(plan, before);
        // eu-west-1 is in both, and at another place: it must not become the stand-in of two.
        plan.steps[1].action = Action::Switchover { to: "eu-west-1".to_owned() };
        let replaced = plan.transfer(&shipped("three-continents"), &shipped("two-regions"));
        let expected = [("us-east-1", "eu-west-1"), ("eu-west-1", "eu-central-1")];
        assert_eq!(replaced, expected.map(|(from, to)| (from.to_owned(), to.to_owned())).into());
        assert_eq!(plan.regime.primary.as_deref(), Some("eu-west-1"));
        assert_eq!(plan.steps[0].action, Action::RegionLoss { region: "eu-west-1".to_owned() });
        assert_eq!(plan.steps[1].action, Action::Switchover { to: "eu-central-1".to_owned() });
    }

    #[test]
    fn a_name_without_a_counterpart_and_a_role_stay_as_they_are() {
        let mut plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
        plan.steps[0].action = Action::RegionLoss { region: "ap-southeast-1".to_owned() };
        plan.steps[1].action = Action::Kill { target: "control".to_owned() };
        let (own, two) = (shipped("three-continents"), shipped("two-regions"));
        plan.transfer(&own, &two);
        assert_eq!(plan.steps[1].action, Action::Kill { target: "control".to_owned() });
        let refused = plan.validate(&two).unwrap_err().to_string();
        assert!(refused.contains("\"ap-southeast-1\" is no region of topology two-regions"), "{refused}");
    }
}
