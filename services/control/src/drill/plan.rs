//! From a request to the plan that runs.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::plan::{DrillPlan, SHIPPED};
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::Topology;
use longhaul_http::problem::Problem;
use longhaul_http::wire::drills::DrillRequest;

/// The plan of a request, with its overrides, checked against the topology.
pub(crate) fn plan_of(request: DrillRequest, topology: &Topology) -> Result<DrillPlan, Problem> {
    let bad = |detail: String| Problem::new(ErrorCode::BadRequest, detail);
    let plan = match (request.name, request.plan) {
        (Some(name), None) => {
            let Some(plan) = DrillPlan::shipped(&name) else {
                let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
                let detail = format!("there is no drill {name:?}; use one of {}", names.join(", "));
                return Err(Problem::new(ErrorCode::UnknownName, detail));
            };
            plan.map_err(|error| bad(error.to_string()))?
        }
        (None, Some(plan)) => plan,
        _ => return Err(bad("say which drill: either `name` (a shipped plan) or `plan` (your own)".to_owned())),
    };
    let plan = with_start(plan, request.mode, request.durability, request.seed);
    plan.validate(topology).map_err(|error| bad(error.to_string()))?;
    Ok(plan)
}

/// The plan in another mode, durability or seed. A mode without a primary drops the plan's; a mode that comes without
/// a durability keeps the plan's where it has one.
fn with_start(mut plan: DrillPlan, mode: Option<Mode>, durability: Option<Durability>, seed: Option<u64>) -> DrillPlan {
    plan.seed = seed.unwrap_or(plan.seed);
    plan.regime.mode = mode.unwrap_or(plan.regime.mode);
    if let Some(durability) = durability {
        plan.regime.durability = durability;
    }
    if plan.regime.mode != Mode::ActivePassive {
        plan.regime.primary = None;
        if durability.is_none() {
            plan.regime.durability = Durability::Local;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology::shipped("three-continents").unwrap().unwrap()
    }

    fn named(name: &str) -> DrillRequest {
        DrillRequest { name: Some(name.to_owned()), ..DrillRequest::default() }
    }

    #[test]
    fn a_shipped_plan_runs_in_every_mode() {
        for mode in [Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation] {
            let plan = plan_of(DrillRequest { mode: Some(mode), seed: Some(7), ..named("region-loss") }, &topology());
            let plan = plan.unwrap();
            assert_eq!((plan.regime.mode, plan.seed), (mode, 7));
            assert_eq!(plan.regime.primary.is_some(), mode == Mode::ActivePassive);
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_a_remedy() {
        let unknown = plan_of(named("region-lost"), &topology()).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::UnknownName);
        assert!(unknown.detail.contains("region-loss"), "{}", unknown.detail);
        let durability =
            DrillRequest { mode: Some(Mode::ActiveActive), durability: Some(Durability::Sync), ..named("region-loss") };
        assert_eq!(plan_of(durability, &topology()).unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(plan_of(DrillRequest::default(), &topology()).unwrap_err().code, ErrorCode::BadRequest);
    }
}
