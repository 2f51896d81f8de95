//! Regime changes. Control reads the regime from the regions, proposes, and reports what they made of it.

use std::collections::BTreeMap;

use http::HeaderMap;
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{Durability, Mode, Regime, Target};
use longhaul_http::client::CallError;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{FailoverCommand, RegimeChange, RegimeView};
use longhaul_http::wire::regime::{
    CHANGES_PATH, ChangeStarted, ChangeState, ChangeStatus, FAILOVERS_PATH, FailoverRequest, REGIME_PATH,
    TRANSITIONS_PATH, TransitionRequest,
};

use crate::regions::problem;
use crate::state::Control;

impl Control {
    /// The regime with the highest epoch that any region is known to have adopted, and what each has adopted that
    /// answers now.
    pub(crate) async fn regime(&self) -> Result<(Regime, BTreeMap<String, u64>), Problem> {
        let mut adopted = BTreeMap::new();
        let mut highest: Option<Regime> = None;
        let mut silent = Vec::new();
        for (region, answer) in self.ask_all::<Regime>(REGIME_PATH).await {
            match answer {
                Ok(regime) => {
                    adopted.insert(region, regime.epoch.0);
                    if highest.as_ref().is_none_or(|known| known.epoch < regime.epoch) {
                        highest = Some(regime);
                    }
                }
                Err(error) => silent.push(format!("{region}: {error}")),
            }
        }
        let nobody = || Problem::new(ErrorCode::NoRegion, format!("no region tells the regime: {}", silent.join("; ")));
        let newest =
            self.known.learn(highest.ok_or_else(nobody)?, adopted.len() == self.config.topology.regions().count());
        Ok((newest, adopted))
    }

    /// The regime, for people.
    pub(crate) async fn regime_view(&self) -> Result<RegimeView, Problem> {
        let (regime, adopted) = self.regime().await?;
        Ok(RegimeView { adopted, ..RegimeView::new(&regime, &self.config.topology) })
    }

    /// The name of the primary now; `None` if the mode has none.
    pub(crate) async fn primary(&self) -> Result<Option<String>, Problem> {
        let (regime, _) = self.regime().await?;
        Ok(regime.primary.and_then(|region| self.config.topology.region_name(region)).map(ToString::to_string))
    }

    fn region_id(&self, name: &str) -> Result<RegionId, Problem> {
        self.config.topology.region_id(name).ok_or_else(|| {
            let known = self.region_names().join(", ");
            Problem::new(ErrorCode::UnknownName, format!("{name:?} is no region of this testbed; use one of {known}"))
        })
    }

    /// Asks for a planned transition; `None` if the regime is as asked for already.
    pub(crate) async fn change_regime(
        &self,
        change: &RegimeChange,
        trace: HeaderMap,
    ) -> Result<Option<ChangeStarted>, Problem> {
        let (regime, _) = self.regime().await?;
        let wanted = change.primary.as_deref().map(|name| self.region_id(name)).transpose()?;
        let target = target(&regime, change, wanted)?;
        if (target.mode, target.primary, target.durability) == (regime.mode, regime.primary, regime.durability) {
            return Ok(None);
        }
        let request = TransitionRequest { target, force: change.force };
        let first = regime.primary.or(target.primary);
        let order = self.order(first, None);
        self.propose(&order, TRANSITIONS_PATH, &request, trace).await.map(Some)
    }

    /// Asks for a failover, or a planned switchover.
    pub(crate) async fn fail_over(
        &self,
        command: &FailoverCommand,
        trace: HeaderMap,
    ) -> Result<Option<ChangeStarted>, Problem> {
        if command.planned {
            if command.allow_data_loss {
                let detail = "a planned switchover loses nothing; leave out allow_data_loss, or leave out planned";
                return Err(Problem::new(ErrorCode::BadRequest, detail));
            }
            let Some(to) = command.to.clone() else {
                return Err(Problem::new(ErrorCode::BadRequest, "a planned switchover needs `to`, the new primary"));
            };
            let change = RegimeChange { primary: Some(to), ..RegimeChange::default() };
            return self.change_regime(&change, trace).await;
        }
        let to = command.to.as_deref().map(|name| self.region_id(name)).transpose()?;
        let (regime, _) = self.regime().await?;
        if regime.mode != Mode::ActivePassive {
            let detail = format!("{} has no primary to fail over; only active-passive has", regime.mode);
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        let request = FailoverRequest { to, allow_data_loss: command.allow_data_loss };
        let order = self.order(to, regime.primary);
        self.propose(&order, FAILOVERS_PATH, &request, trace).await.map(Some)
    }

    /// Running regions in the order in which to ask them: `first`, then the rest without `never`.
    fn order(&self, first: Option<RegionId>, never: Option<RegionId>) -> Vec<String> {
        let mut order: Vec<_> = self
            .config
            .topology
            .regions()
            .filter(|(id, name)| Some(*id) != never && self.world.is_running(name.as_str()))
            .collect();
        order.sort_by_key(|(id, _)| Some(*id) != first);
        order.into_iter().map(|(_, name)| name.to_string()).collect()
    }

    /// Sends a proposal to the first region that can be reached. Once one may have taken it, nobody else is asked.
    async fn propose<B: serde::Serialize + Sync>(
        &self,
        order: &[String],
        path: &str,
        request: &B,
        trace: HeaderMap,
    ) -> Result<ChangeStarted, Problem> {
        let mut last = Problem::new(ErrorCode::NoRegion, "no region runs that could do it; see /v1/regions");
        for region in order {
            match self.tell_region(region, path, request, trace.clone()).await {
                Ok(started) => return Ok(started),
                Err(error) => {
                    last = problem(region, &error);
                    let elsewhere = matches!(error, CallError::Unreachable { .. })
                        || (error.effect() == Effect::None
                            && matches!(last.code, ErrorCode::NotReady | ErrorCode::NotPrimary));
                    if !elsewhere {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Every change that any region reports, one record each, in order of time.
    pub(crate) async fn changes(&self) -> Vec<ChangeStatus> {
        join_changes(self.raw_changes().await)
    }

    /// Every record of every change from every region.
    pub(crate) async fn raw_changes(&self) -> Vec<ChangeStatus> {
        self.ask_all::<Vec<ChangeStatus>>(CHANGES_PATH).await.into_values().filter_map(Result::ok).flatten().collect()
    }
}

/// What a change leads to, from the regime as it is.
fn target(regime: &Regime, change: &RegimeChange, wanted: Option<RegionId>) -> Result<Target, Problem> {
    let refuse = |detail: String| Err(Problem::new(ErrorCode::BadRequest, detail));
    let mode = change.mode.unwrap_or(regime.mode);
    if mode != Mode::ActivePassive {
        if wanted.is_some() {
            return refuse(format!("{mode} has no primary; leave out `primary`"));
        }
        if change.durability.is_some_and(|durability| durability != Durability::Local) {
            return refuse(format!("{mode} has no durability but local; leave out `durability`"));
        }
        return Ok(Target { mode, primary: None, durability: Durability::Local });
    }
    let durability = change.durability.unwrap_or(regime.durability);
    if let Durability::Semi(k) = durability
        && usize::from(k) >= regime.members.len()
    {
        return refuse(format!("{durability} needs {k} followers, and there are {}", regime.members.len() - 1));
    }
    let primary = wanted.or(regime.primary).or_else(|| regime.members.keys().next().copied());
    Ok(Target { mode, primary, durability })
}

/// One record of each change: the one that knows most (ended before running, more milestones before fewer), with the
/// milestones of all.
pub(crate) fn join_changes(records: Vec<ChangeStatus>) -> Vec<ChangeStatus> {
    let mut joined: BTreeMap<String, ChangeStatus> = BTreeMap::new();
    for record in records {
        match joined.get_mut(&record.id) {
            None => {
                joined.insert(record.id.clone(), record);
            }
            Some(known) => {
                let knowledge = |status: &ChangeStatus| (status.state != ChangeState::Running, status.milestones.len());
                let (mut best, other) = if knowledge(&record) > knowledge(known) {
                    (record, known.clone())
                } else {
                    (known.clone(), record)
                };
                for milestone in other.milestones {
                    if !best.milestones.contains(&milestone) {
                        best.milestones.push(milestone);
                    }
                }
                best.predicted_loss = best.predicted_loss.or(other.predicted_loss);
                *known = best;
            }
        }
    }
    let mut changes: Vec<_> = joined.into_values().collect();
    for change in &mut changes {
        change.milestones.sort_by_key(|milestone| milestone.boot_ns);
    }
    changes.sort_by_key(|change| change.milestones.first().map_or(u64::MAX, |milestone| milestone.boot_ns));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_http::wire::regime::Milestone;

    fn regime(mode: Mode) -> Regime {
        Regime::genesis([RegionId(1), RegionId(2), RegionId(3)], mode, Some(RegionId(2)), Durability::Semi(1))
    }

    #[test]
    fn what_a_change_does_not_name_stays_as_it_is() {
        let change = RegimeChange { durability: Some(Durability::Sync), ..RegimeChange::default() };
        let target = target(&regime(Mode::ActivePassive), &change, None).unwrap();
        assert_eq!((target.primary, target.durability), (Some(RegionId(2)), Durability::Sync));
        let change = RegimeChange { mode: Some(Mode::ActiveActive), ..RegimeChange::default() };
        let target = super::target(&regime(Mode::ActivePassive), &change, None).unwrap();
        assert_eq!((target.primary, target.durability), (None, Durability::Local));
    }

    #[test]
    fn a_way_back_to_one_primary_names_one() {
        let change = RegimeChange { mode: Some(Mode::ActivePassive), ..RegimeChange::default() };
        assert_eq!(target(&regime(Mode::ActiveActive), &change, None).unwrap().primary, Some(RegionId(1)));
    }

    #[test]
    fn what_a_mode_does_not_have_is_refused() {
        let isolation = RegimeChange { mode: Some(Mode::RegionalIsolation), ..RegimeChange::default() };
        let error = target(&regime(Mode::ActivePassive), &isolation, Some(RegionId(1))).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
        let semi = RegimeChange { durability: Some(Durability::Semi(3)), ..RegimeChange::default() };
        assert!(target(&regime(Mode::ActivePassive), &semi, None).unwrap_err().detail.contains("there are 2"));
    }

    fn change(region: &str, state: ChangeState, milestones: &[(&str, u64)]) -> ChangeStatus {
        ChangeStatus {
            id: "x".into(),
            kind: "failover".into(),
            state,
            region: region.into(),
            epoch_from: 1,
            epoch_to: 2,
            from: None,
            to: None,
            reason: String::new(),
            missing: Vec::new(),
            predicted_loss: None,
            milestones: milestones
                .iter()
                .map(|(name, boot_ns)| Milestone { name: (*name).into(), boot_ns: *boot_ns, region: region.into() })
                .collect(),
            trace_id: None,
        }
    }

    #[test]
    fn records_of_one_change_from_several_regions_become_one() {
        let witness = change("b", ChangeState::Running, &[("suspected", 5)]);
        let driver = change("a", ChangeState::Done, &[("suspected", 7), ("fenced", 9)]);
        let joined = join_changes(vec![witness, driver]);
        assert_eq!(joined.len(), 1);
        assert_eq!((joined[0].region.as_str(), joined[0].state), ("a", ChangeState::Done));
        let times: Vec<_> = joined[0].milestones.iter().map(|milestone| milestone.boot_ns).collect();
        assert_eq!(times, [5, 7, 9]);
    }
}
