//! The transition table: who has to take part, what has to hold, in which order.

use std::collections::BTreeSet;

use super::{GateScope, Observations, Plan, Refusal, Request, Seen, Step};
use crate::ids::RegionId;
use crate::limits;
use crate::regime::{Durability, MemberState, Mode, Regime, Stage, Target};

/// Plans a transition from the present regime, or says everything that stands in its way.
pub fn plan(current: &Regime, request: &Request, observations: &Observations) -> Result<Plan, Vec<Refusal>> {
    let mut planner =
        Planner { current, request, target: request.target, observations, refusals: Vec::new(), costs: Vec::new() };
    planner.check_target();
    if !planner.refusals.is_empty() {
        return Err(planner.refusals);
    }
    let plan = planner.plan();
    if planner.refusals.is_empty() { Ok(plan) } else { Err(planner.refusals) }
}

struct Planner<'a> {
    current: &'a Regime,
    request: &'a Request,
    target: Target,
    observations: &'a Observations,
    refusals: Vec<Refusal>,
    costs: Vec<String>,
}

impl Planner<'_> {
    fn refuse(&mut self, region: Option<RegionId>, missing: impl Into<String>) {
        self.refusals.push(Refusal { region, missing: missing.into(), forceable: false });
    }

    /// Refuses, unless forced: then it is a cost.
    fn refuse_unless_forced(&mut self, region: RegionId, missing: &str, cost: &str) {
        if self.request.force {
            self.costs.push(format!("region {region}: {missing}; {cost}"));
        } else {
            let missing = format!("{missing}; wait for it, or force: {cost}");
            self.refusals.push(Refusal { region: Some(region), missing, forceable: true });
        }
    }

    fn seen(&self, region: RegionId) -> Option<&Seen> {
        self.observations.regions.get(&region)
    }

    /// Active members that can be reached.
    fn able(&self) -> BTreeSet<RegionId> {
        let active = self.current.members.keys().copied().filter(|region| self.current.is_active(*region));
        active.filter(|region| self.seen(*region).is_some()).collect()
    }

    fn check_target(&mut self) {
        if self.current.transition.is_some() {
            self.refuse(None, "a transition is under way; wait until it is done or rolled back");
        }
        let reachable = self.current.members.keys().filter(|region| self.seen(**region).is_some()).count();
        let majority = self.current.majority();
        if reachable < majority {
            self.refuse(None, format!("only {reachable} of the {majority} voters that make a majority can be reached"));
        }
        match (self.target.mode, self.target.primary) {
            (Mode::ActivePassive, None) => self.refuse(None, "active-passive needs a primary; name one"),
            (Mode::ActivePassive, Some(primary)) => self.check_primary(primary),
            (mode, Some(_)) => self.refuse(None, format!("{mode} has no primary; name none")),
            (mode, None) if self.target.durability != Durability::Local => {
                self.refuse(None, format!("{mode} acknowledges locally; durability must be local"));
            }
            (_, None) => {}
        }
        let same = (self.current.mode, self.current.primary, self.current.durability)
            == (self.target.mode, self.target.primary, self.target.durability);
        if same {
            self.refuse(None, "the regime is already as wanted");
        }
    }

    fn check_primary(&mut self, primary: RegionId) {
        match self.current.members.get(&primary).map(|member| member.state) {
            None => self.refuse(Some(primary), "is no region of this topology"),
            Some(MemberState::Active) if self.seen(primary).is_some() => {}
            Some(MemberState::Active) => self.refuse(Some(primary), "cannot be reached; it shall be the primary"),
            Some(_) => self.refuse(Some(primary), "is no full member yet; wait until it has caught up"),
        }
        let followers = self.current.participants().filter(|region| *region != primary).count();
        match self.target.durability {
            Durability::Semi(k) if usize::from(k) > followers => {
                self.refuse(None, format!("semi({k}) needs {k} followers; there are {followers}"));
            }
            _ => {}
        }
    }

    fn plan(&mut self) -> Plan {
        let (steps, needed) = match (self.current.mode, self.target.mode) {
            (Mode::ActivePassive, Mode::ActivePassive) if self.current.primary == self.target.primary => {
                self.plan_durability()
            }
            (Mode::ActivePassive, Mode::ActivePassive) => self.plan_switchover(),
            (Mode::ActivePassive, Mode::ActiveActive) => self.plan_active_active(),
            (Mode::ActiveActive, Mode::ActivePassive) => self.plan_one_primary(),
            (Mode::ActiveActive | Mode::ActivePassive, Mode::RegionalIsolation) => self.plan_isolation(),
            (Mode::RegionalIsolation, Mode::ActiveActive | Mode::ActivePassive) => self.plan_end_of_isolation(),
            // Refused as "already as wanted".
            (Mode::ActiveActive, Mode::ActiveActive) | (Mode::RegionalIsolation, Mode::RegionalIsolation) => {
                (Vec::new(), BTreeSet::new())
            }
        };
        let included = self.able();
        let coordinator = self.coordinator(&included);
        let in_sync = self.in_sync();
        Plan {
            epoch: self.current.epoch,
            target: self.target,
            coordinator,
            excluded: needed.difference(&included).copied().collect(),
            included,
            in_sync,
            steps,
            costs: std::mem::take(&mut self.costs),
            forced: self.request.force,
        }
    }

    /// The primary drives what leads away from it, the new primary what leads to it, otherwise the first active region.
    fn coordinator(&mut self, able: &BTreeSet<RegionId>) -> RegionId {
        let wanted = match self.current.mode {
            Mode::ActivePassive => self.current.primary,
            Mode::ActiveActive | Mode::RegionalIsolation => self.target.primary.or_else(|| able.first().copied()),
        };
        if let Some(region) = wanted.filter(|region| able.contains(region)) {
            region
        } else {
            let missing = "it drives the transition and cannot be reached; if it is lost, fail over first";
            self.refuse(wanted, missing);
            wanted.unwrap_or(RegionId(0))
        }
    }

    /// Every reachable active follower of the target's primary.
    fn in_sync(&mut self) -> BTreeSet<RegionId> {
        if self.target.durability != Durability::Sync {
            return BTreeSet::new();
        }
        let primary = self.target.primary;
        let in_sync: BTreeSet<RegionId> = self.able().into_iter().filter(|region| Some(*region) != primary).collect();
        if in_sync.is_empty() {
            self.refuse(None, "sync needs a follower that can be reached; there is none");
        }
        let followers: Vec<RegionId> = self.current.participants().filter(|region| Some(*region) != primary).collect();
        for region in followers.into_iter().filter(|region| !in_sync.contains(region)) {
            self.costs
                .push(format!("region {region}: cannot be reached or is joining; it starts outside the in-sync set"));
        }
        in_sync
    }

    /// Followers that must have converged before the stronger rule may hold.
    fn protectors(&mut self) -> BTreeSet<RegionId> {
        let primary = self.target.primary;
        let mut followers: Vec<RegionId> = self.able().into_iter().filter(|region| Some(*region) != primary).collect();
        match self.target.durability {
            Durability::Local => BTreeSet::new(),
            Durability::Sync => followers.into_iter().collect(),
            Durability::Semi(k) => {
                if followers.len() < usize::from(k) {
                    let missing = format!("semi({k}) needs {k} followers; {} can be reached", followers.len());
                    self.refuse(None, missing);
                }
                followers.sort_by_key(|region| (self.seen(*region).map_or(u64::MAX, |seen| seen.lag_ms), *region));
                followers.into_iter().take(usize::from(k)).collect()
            }
        }
    }

    fn plan_durability(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let protectors = self.protectors();
        let weaker = match (self.current.durability, self.target.durability) {
            (_, Durability::Local) | (Durability::Sync, Durability::Semi(_)) => true,
            (Durability::Semi(before), Durability::Semi(after)) => after < before,
            _ => false,
        };
        let steps = if weaker {
            vec![Step::Flip]
        } else {
            vec![Step::Enter(Stage::Announced), Step::Converge(protectors), Step::Flip]
        };
        (steps, BTreeSet::new())
    }

    fn plan_switchover(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let (Some(from), Some(to)) = (self.current.primary, self.target.primary) else {
            return (Vec::new(), BTreeSet::new());
        };
        if let Some(seen) = self.seen(to).cloned() {
            let too_far = seen.lag_ms > limits::SWITCHOVER_LAG_MAX.as_millis() as u64
                || seen.lag_operations > limits::SWITCHOVER_LAG_OPERATIONS_MAX;
            if too_far {
                let missing = format!("lags by {} ms and {} operations", seen.lag_ms, seen.lag_operations);
                self.refuse_unless_forced(to, &missing, "writes are held until it has caught up, or it rolls back");
            }
            if seen.quarantined > 0 {
                let missing = format!("holds {} quarantined operations that nobody has decided on", seen.quarantined);
                self.refuse_unless_forced(to, &missing, "they stay quarantined");
            }
        }
        let mut catch_up = self.protectors();
        catch_up.remove(&from);
        catch_up.insert(to);
        let steps = vec![
            Step::Enter(Stage::Announced),
            Step::Converge([to].into()),
            Step::Enter(Stage::Draining),
            Step::Close([from].into(), GateScope::AllWrites),
            Step::Converge(catch_up),
            Step::Flip,
        ];
        (steps, BTreeSet::new())
    }

    /// Everybody who is a full member has to be there; who is not stays behind.
    fn need_active(&mut self, cost: &str) -> BTreeSet<RegionId> {
        let needed: Vec<RegionId> =
            self.current.members.keys().copied().filter(|region| self.current.is_active(*region)).collect();
        for region in needed.iter().copied().filter(|region| !self.observations.regions.contains_key(region)) {
            self.refuse_unless_forced(region, "cannot be reached", cost);
        }
        needed.into_iter().collect()
    }

    /// Every participant has to be there, and be a full member: it owns a home.
    fn need_homes(&mut self, cost: &str) -> BTreeSet<RegionId> {
        let mut needed = self.need_active(cost);
        let joining: Vec<RegionId> =
            self.current.participants().filter(|region| !self.current.is_active(*region)).collect();
        for region in joining {
            self.refuse_unless_forced(region, "is joining and cannot vouch for its home", cost);
            needed.insert(region);
        }
        needed
    }

    fn plan_active_active(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let needed = self.need_active("it stays behind and takes no writes until it has caught up");
        let able = self.able();
        let primary = self.current.primary.into_iter().collect();
        let steps = vec![
            Step::Enter(Stage::Announced),
            Step::Converge(able.clone()),
            Step::Enter(Stage::Draining),
            Step::Close(primary, GateScope::AllWrites),
            Step::Converge(able),
            Step::Flip,
        ];
        (steps, needed)
    }

    fn plan_one_primary(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let needed = self.need_active(
            "its timeline is cut at what the new primary has; what it acknowledged beyond is quarantined when it returns",
        );
        let mut catch_up = self.protectors();
        catch_up.extend(self.target.primary);
        let others = self.able().into_iter().filter(|region| Some(*region) != self.target.primary).collect();
        let steps = vec![
            Step::Enter(Stage::Announced),
            Step::Enter(Stage::Draining),
            Step::Close(others, GateScope::AllWrites),
            Step::Converge(catch_up),
            Step::Flip,
        ];
        (steps, needed)
    }

    fn plan_isolation(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let needed = self.need_homes(
            "its home is frozen: others keep their copies, serve them to nobody, and purge them only after it returned; \
             what it alone acknowledged for other homes is erased when it returns",
        );
        let undecided = self.observations.regions.iter().map(|(region, seen)| (*region, seen.quarantined_for_others));
        for (region, count) in undecided.filter(|(_, count)| *count > 0).collect::<Vec<_>>() {
            let missing = format!("holds {count} quarantined operations of other homes; merge or discard them");
            self.refuse_unless_forced(region, &missing, "they are erased");
        }
        let able = self.able();
        let mut steps = Vec::new();
        let writers = match self.current.primary {
            Some(primary) => {
                steps.extend([Step::Enter(Stage::Announced), Step::Converge(able.clone())]);
                [primary].into()
            }
            None => able.clone(),
        };
        steps.extend([
            Step::Enter(Stage::HomeOnly),
            Step::Close(writers, GateScope::NonHomeWrites),
            Step::Converge(able.clone()),
            Step::Certify(able.clone()),
            Step::Flip,
            Step::Purge(able),
        ]);
        (steps, needed)
    }

    fn plan_end_of_isolation(&mut self) -> (Vec<Step>, BTreeSet<RegionId>) {
        let needed = self.need_homes("its home is frozen: nobody else serves or writes its records until it returned");
        let able = self.able();
        self.costs.push("every region will hold the records of every home again: residency ends".to_owned());
        let mut steps = vec![Step::Enter(Stage::Merging), Step::Merge(able.clone())];
        if let Some(primary) = self.target.primary {
            let others: BTreeSet<RegionId> = able.into_iter().filter(|region| *region != primary).collect();
            let mut catch_up = self.protectors();
            catch_up.insert(primary);
            steps.extend([
                Step::Enter(Stage::Draining),
                Step::Close(others, GateScope::AllWrites),
                Step::Converge(catch_up),
            ]);
        }
        steps.push(Step::Flip);
        (steps, needed)
    }
}
