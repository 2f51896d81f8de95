//! Doing it: each action on the world, and the proof that it took effect.

use std::time::Duration;

use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::limits::{CONTROL_DEADLINE, TRANSITION_DEADLINE};
use longhaul_core::link::{LinkPatch, LinkState};
use longhaul_core::plan::Action;
use longhaul_core::quarantine::Decision;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::{EventKind, FailoverCommand, RegimeChange};
use longhaul_http::wire::faults::{FaultState, FaultView, Healed};
use longhaul_http::wire::links::LinkView;
use longhaul_http::wire::regime::{ChangeState, ChangeStatus};
use longhaul_http::wire::status::{CLOCK_PATH, ClockSkew, QuarantineDecision, RegionStatus, STATUS_PATH};

use super::{Roles, changes_regime, describe, heals, place};
use crate::regions::problem;
use crate::state::Control;

/// An action that was carried out and waits to be verified.
pub(crate) struct Acted {
    /// The fault, as it is recorded.
    pub(crate) fault: FaultView,
    /// The regime change that it asked for.
    pub(crate) change: Option<String>,
}

impl Control {
    /// Changes one directed link, and remembers it as a fault until the link is as declared again; the link as it is
    /// from then on.
    pub(crate) async fn change_link(&self, from: &str, to: &str, change: &LinkPatch) -> Result<LinkView, Problem> {
        change.validate().map_err(|error| Problem::new(ErrorCode::BadRequest, error.to_string()))?;
        let action = Action::Link { from: from.to_owned(), to: to.to_owned(), both: false, change: change.clone() };
        self.act(&action, HeaderMap::new()).await?;
        let links = self.link_views().await?;
        let as_declared = |link: &LinkView| link.current == link.declared && link.flap_ms.is_none();
        let is_declared = |from: &str, to: &str| {
            links.iter().any(|link| (link.from.as_str(), link.to.as_str()) == (from, to) && as_declared(link))
        };
        self.faults.healed_links(is_declared, self.clock.boot_ns());
        self.link_view(from, to).await
    }

    /// Puts names in the place of `primary` and `secondary`.
    pub(crate) async fn resolve(&self, action: &Action) -> Result<Action, Problem> {
        // Only a role word needs to know who is primary; names resolve without any region that answers.
        let text = serde_json::to_string(action).unwrap_or_default();
        let by_role = ["\"primary\"", "\"secondary\""].iter().any(|word| text.contains(&format!(":{word}")));
        let primary = if by_role { self.primary().await? } else { None };
        let roles = Roles::new(&self.config.topology, primary.as_deref());
        roles.resolve(action).map_err(|error| Problem::new(ErrorCode::UnknownName, error.to_string()))
    }

    /// Injects a fault (or heals one) and verifies it.
    pub(crate) async fn inject(&self, action: &Action) -> Result<FaultView, Problem> {
        if changes_regime(action) {
            let detail = "a regime change is no fault: use PUT /v1/regime, or POST /v1/failovers";
            return Err(Problem::new(ErrorCode::BadRequest, detail));
        }
        let acted = self.act(action, HeaderMap::new()).await?;
        self.verify(acted).await
    }

    /// Carries an action out, and records it. What it did not do is a problem, and a failed fault in the record.
    pub(crate) async fn act(&self, action: &Action, trace: HeaderMap) -> Result<Acted, Problem> {
        let action = self.resolve(action).await?;
        let fault = FaultView {
            id: self.ids.next().to_string(),
            text: describe(&action),
            state: if heals(&action) || changes_regime(&action) { FaultState::Done } else { FaultState::Active },
            started_boot_ns: self.clock.boot_ns(),
            verified_boot_ns: None,
            healed_boot_ns: None,
            trouble: None,
            action,
        };
        match self.carry_out(&fault.action, trace).await {
            Ok(change) => {
                let kind = if heals(&fault.action) { EventKind::Heal } else { EventKind::Fault };
                self.events.record(kind, place(&fault.action), fault.text.clone());
                self.faults.healed_by(&fault.action, self.clock.boot_ns());
                self.faults.put(fault.clone());
                Ok(Acted { fault, change })
            }
            Err(problem) => {
                self.faults.put(FaultView {
                    state: FaultState::Failed,
                    trouble: Some(problem.detail.clone()),
                    ..fault
                });
                Err(problem)
            }
        }
    }

    /// Proves that an action took effect; the fault says so from then on.
    pub(crate) async fn verify(&self, acted: Acted) -> Result<FaultView, Problem> {
        let mut fault = acted.fault;
        let proof = self.prove(&fault.action, acted.change.as_deref()).await;
        // It may have been healed while the proof was under way; that is kept.
        let known = self.faults.get(&fault.id);
        if let Some(known) = known {
            fault.state = known.state;
            fault.healed_boot_ns = known.healed_boot_ns;
        }
        let result = match proof {
            Ok(()) => {
                fault.verified_boot_ns = Some(self.clock.boot_ns());
                Ok(fault.clone())
            }
            Err(trouble) => {
                fault.state = FaultState::Failed;
                fault.trouble = Some(trouble.clone());
                Err(Problem::new(ErrorCode::Conflict, format!("{}: it did not take effect: {trouble}", fault.text)))
            }
        };
        self.faults.put(fault);
        result
    }

    async fn carry_out(&self, action: &Action, trace: HeaderMap) -> Result<Option<String>, Problem> {
        let world = |error: crate::world::WorldError| Problem::new(ErrorCode::Conflict, error.0);
        match action {
            Action::RegionLoss { region } => {
                // Links first: a dying process must not say goodbye to its peers.
                let cut = LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() };
                let changes: Vec<_> =
                    self.pairs_of(region).into_iter().map(|(from, to)| (from, to, cut.clone())).collect();
                self.patch_links(&changes).await?;
                self.world.kill(region).await.map_err(world)?;
            }
            Action::RegionReturn { region } => {
                self.restore_links(&self.pairs_of(region)).await?;
                self.world.restart(region).await.map_err(world)?;
            }
            Action::Kill { target } => self.world.kill(target).await.map_err(world)?,
            Action::Restart { target } => self.world.restart(target).await.map_err(world)?,
            Action::Pause { target } => self.world.pause(target).await.map_err(world)?,
            Action::Resume { target } => self.world.resume(target).await.map_err(world)?,
            Action::Link { from, to, both, change } => {
                let mut changes = vec![(from.clone(), to.clone(), change.clone())];
                if *both {
                    changes.push((to.clone(), from.clone(), change.clone()));
                }
                self.patch_links(&changes).await?;
            }
            Action::HealLinks => {
                self.restore_all_links().await?;
                self.cut_lost_regions().await?;
            }
            Action::ClockSkew { region, offset_ms } => {
                let skew = ClockSkew { offset_ms: *offset_ms };
                let told = self.tell_region::<_, serde_json::Value>(region, CLOCK_PATH, &skew, trace).await;
                told.map_err(|error| problem(region, &error))?;
            }
            Action::Decide { region, decision } => {
                let decision = QuarantineDecision { decision: *decision, dots: Vec::new() };
                self.decide_divergent(region, &decision, trace).await?;
            }
            Action::Switchover { to } => {
                let change = RegimeChange { primary: Some(to.clone()), ..RegimeChange::default() };
                return self.change_regime(&change, trace).await.map(|started| started.map(|started| started.id));
            }
            Action::Failover { to, allow_data_loss } => {
                let command = FailoverCommand { to: to.clone(), allow_data_loss: *allow_data_loss, planned: false };
                return self.fail_over(&command, trace).await.map(|started| started.map(|started| started.id));
            }
            Action::Switch { mode, durability, primary, force } => {
                let change = RegimeChange {
                    mode: Some(*mode),
                    durability: Some(*durability),
                    primary: primary.clone(),
                    force: *force,
                };
                return self.change_regime(&change, trace).await.map(|started| started.map(|started| started.id));
            }
        }
        Ok(None)
    }

    /// Puts links back to what is declared, except where another fault in force says otherwise.
    async fn restore_links(&self, pairs: &[(String, String)]) -> Result<(), Problem> {
        let declared: Vec<_> = pairs
            .iter()
            .filter_map(|(from, to)| Some((from.clone(), to.clone(), self.declared_patch(from, to)?)))
            .collect();
        self.patch_links(&declared).await?;
        for fault in self.faults.active().into_iter().rev() {
            let Action::Link { from, to, both, change } = fault.action else { continue };
            let directions = [(&from, &to, true), (&to, &from, both)];
            let again: Vec<_> = directions
                .into_iter()
                .filter(|(a, b, applies)| *applies && pairs.iter().any(|(from, to)| from == *a && to == *b))
                .map(|(a, b, _)| (a.clone(), b.clone(), change.clone()))
                .collect();
            self.patch_links(&again).await?;
        }
        Ok(())
    }

    /// A region that is lost stays behind black links, whatever else is healed.
    async fn cut_lost_regions(&self) -> Result<(), Problem> {
        let cut = LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() };
        for fault in self.faults.active() {
            let Action::RegionLoss { region } = fault.action else { continue };
            let changes: Vec<_> =
                self.pairs_of(&region).into_iter().map(|(from, to)| (from, to, cut.clone())).collect();
            self.patch_links(&changes).await?;
        }
        Ok(())
    }

    async fn prove(&self, action: &Action, change: Option<&str>) -> Result<(), String> {
        match action {
            Action::RegionLoss { region } => {
                self.gone(region)?;
                for (from, to) in self.pairs_of(region) {
                    self.is_cut(&from, &to).await?;
                }
                Ok(())
            }
            Action::Kill { target } | Action::Pause { target } => self.gone(target),
            Action::RegionReturn { region: target } | Action::Restart { target } | Action::Resume { target } => {
                if self.world.is_running(target) { Ok(()) } else { Err(format!("no process of {target} runs")) }
            }
            Action::Link { from, to, both, change } => {
                self.is_patched(from, to, change).await?;
                if *both {
                    self.is_patched(to, from, change).await?;
                }
                if change.state == Some(LinkState::Cut) && change.flap_ms.is_none_or(|flap| flap == 0) {
                    self.is_black(from, to).await?;
                }
                Ok(())
            }
            Action::HealLinks => Ok(()),
            Action::Decide { region, decision } => {
                let status = self.status_of(region).await?;
                // What was overwritten since is not merged, and stays open.
                if *decision == Decision::Merge || status.quarantine_open == 0 {
                    Ok(())
                } else {
                    Err(format!("{region} says that {} operations are undecided", status.quarantine_open))
                }
            }
            Action::ClockSkew { region, offset_ms } => {
                let status = self.status_of(region).await?;
                if status.clock_skew_ms == *offset_ms {
                    Ok(())
                } else {
                    Err(format!("{region} says that its clock is off by {} ms", status.clock_skew_ms))
                }
            }
            Action::Switchover { .. } | Action::Failover { .. } | Action::Switch { .. } => match change {
                Some(id) => self.ended(id).await.map(|_| ()),
                None => Ok(()),
            },
        }
    }

    async fn status_of(&self, region: &str) -> Result<RegionStatus, String> {
        self.ask_region(region, STATUS_PATH).await.map_err(|problem| problem.detail)
    }

    fn gone(&self, target: &str) -> Result<(), String> {
        if self.world.is_running(target) { Err(format!("the process of {target} still runs")) } else { Ok(()) }
    }

    async fn is_cut(&self, from: &str, to: &str) -> Result<(), String> {
        let view = self.link_view(from, to).await.map_err(|problem| problem.detail)?;
        if view.current.state == LinkState::Cut { Ok(()) } else { Err(format!("the link {from} → {to} is up")) }
    }

    async fn is_patched(&self, from: &str, to: &str, change: &LinkPatch) -> Result<(), String> {
        let view = self.link_view(from, to).await.map_err(|problem| problem.detail)?;
        let lasting = LinkPatch { reset: false, flap_ms: None, state: None, ..change.clone() };
        let flapping = change.flap_ms.is_some_and(|flap| flap > 0);
        let state_holds = flapping || change.state.is_none_or(|state| state == view.current.state);
        let flap_holds = change.flap_ms.is_none_or(|flap| view.flap_ms.unwrap_or(0) == flap);
        if view.current.patched(&lasting) == view.current && state_holds && flap_holds {
            Ok(())
        } else {
            Err(format!("the link {from} → {to} is {:?}", view.current))
        }
    }

    /// Sends a probe through: nothing may come back.
    async fn is_black(&self, from: &str, to: &str) -> Result<(), String> {
        match self.world.probe(from, to, CUT_PROBE).await {
            Ok(None) => Ok(()),
            Ok(Some(round_trip_ms)) => {
                Err(format!("a probe from {from} to {to} came back after {round_trip_ms:.1} ms"))
            }
            // Nobody is there who could probe (a killed process): nothing can pass either.
            Err(error) => {
                tracing::debug!(%error, from, to, "a cut link cannot be probed");
                Ok(())
            }
        }
    }

    /// Waits for the end of a regime change.
    pub(crate) async fn ended(&self, id: &str) -> Result<ChangeStatus, String> {
        let watch = async {
            loop {
                let found = self.changes().await.into_iter().find(|change| change.id == id);
                match found {
                    Some(change) if change.state == ChangeState::Done => return Ok(change),
                    Some(change) if change.state != ChangeState::Running => {
                        let missing = if change.missing.is_empty() {
                            String::new()
                        } else {
                            format!(" ({})", change.missing.join("; "))
                        };
                        return Err(format!("it was {:?}: {}{missing}", change.state, change.reason).to_lowercase());
                    }
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let limit = TRANSITION_DEADLINE + CONTROL_DEADLINE * 2;
        match tokio::time::timeout(limit, watch).await {
            Ok(result) => result,
            Err(_) => Err(format!("the change {id} did not end within {} s", limit.as_secs())),
        }
    }

    /// Takes one fault back.
    pub(crate) async fn heal(&self, id: &str) -> Result<FaultView, Problem> {
        let Some(fault) = self.faults.get(id) else {
            let detail = format!("there is no fault {id:?}; GET /v1/faults lists them");
            return Err(Problem::new(ErrorCode::UnknownName, detail));
        };
        if fault.state != FaultState::Active {
            let detail = format!("fault {id} is not in force; nothing is to be healed");
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        match &fault.action {
            Action::Link { from, to, both, .. } => {
                // Out of the book first, or it would be put back as a fault in force.
                let boot_ns = self.clock.boot_ns();
                self.faults.put(FaultView {
                    state: FaultState::Healed,
                    healed_boot_ns: Some(boot_ns),
                    ..fault.clone()
                });
                let mut pairs = vec![(from.clone(), to.clone())];
                if *both {
                    pairs.push((to.clone(), from.clone()));
                }
                self.restore_links(&pairs).await?;
                self.cut_lost_regions().await?;
                let text = format!("link {from} to {to} is as declared again");
                self.events.record(EventKind::Heal, None, text);
            }
            action => {
                if let Some(inverse) = inverse(action) {
                    self.act(&inverse, HeaderMap::new()).await?;
                }
            }
        }
        Ok(self.faults.get(id).unwrap_or(fault))
    }

    /// Takes every fault back, newest first.
    pub(crate) async fn heal_all(&self) -> Healed {
        let mut healed = Healed { healed: Vec::new(), trouble: Vec::new() };
        for fault in self.faults.active() {
            // An earlier act of healing may have taken this one along.
            if self.faults.get(&fault.id).is_some_and(|now| now.state != FaultState::Active) {
                healed.healed.push(fault.id);
                continue;
            }
            match self.heal(&fault.id).await {
                Ok(_) => healed.healed.push(fault.id),
                Err(problem) => healed.trouble.push(format!("{}: {}", fault.text, problem.detail)),
            }
        }
        healed
    }
}

fn inverse(action: &Action) -> Option<Action> {
    Some(match action {
        Action::RegionLoss { region } => Action::RegionReturn { region: region.clone() },
        Action::Kill { target } => Action::Restart { target: target.clone() },
        Action::Pause { target } => Action::Resume { target: target.clone() },
        Action::ClockSkew { region, .. } => Action::ClockSkew { region: region.clone(), offset_ms: 0 },
        _ => return None,
    })
}

/// How long a probe through a cut link may take to come back before the link counts as black.
const CUT_PROBE: Duration = Duration::from_millis(1500);
