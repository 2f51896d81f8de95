//! The report: what clients saw, the certificate and the cost, and from them the verdict. Pure.

use longhaul_core::plan::DrillPlan;
use longhaul_core::report::{LinkBytes, LinkCheck, RunReport, TraceLinks, Verdict};
use longhaul_http::wire::traffic::Findings;

use super::{certificate, expect};
use crate::config::ControlConfig;
use crate::links::LinkBytesTable;

/// What the engine knows besides the findings.
pub(crate) struct Facts {
    /// The joined certificate.
    pub(crate) links: Vec<LinkCheck>,
    /// Why the run proves nothing.
    pub(crate) invalid: Vec<String>,
    /// What the testbed was asked to do and did not (a refused switch, a region that did not come back).
    pub(crate) failures: Vec<String>,
    /// Bytes over each link, with their price.
    pub(crate) cost: Vec<LinkBytes>,
    /// `embedded`, `containers`, `simulated`.
    pub(crate) world: String,
    /// The drill's trace.
    pub(crate) trace_id: Option<String>,
    /// Where the traces are.
    pub(crate) traces: TraceLinks,
}

/// Puts the report together and judges it.
pub(crate) fn assemble(plan: &DrillPlan, config: &ControlConfig, findings: Findings, facts: Facts) -> RunReport {
    let links_ok = !facts.links.is_empty() && facts.links.iter().all(|link| link.ok);
    let mut invalid = facts.invalid;
    invalid.extend(findings.invalid);
    if facts.links.is_empty() {
        invalid.push("no link was measured".to_owned());
    }
    invalid.extend(certificate::trouble(&facts.links));
    let mut report = RunReport {
        verdict: Verdict::Passed,
        reasons: Vec::new(),
        mode: plan.regime.mode,
        durability: plan.regime.durability,
        seed: plan.seed,
        plan: plan.clone(),
        topology: config.topology.name.clone(),
        version: config.version.clone(),
        world: facts.world,
        links: facts.links,
        links_ok,
        operations: findings.operations,
        policy_denials: findings.policy_denials,
        rto_ms: findings.rto_ms,
        rto_phases_ms: findings.rto_phases_ms,
        rpo: findings.rpo,
        availability: findings.availability,
        availability_by_home: findings.availability_by_home,
        latency_ms: findings.latency_ms,
        read_latency_ms: findings.read_latency_ms,
        write_latency_ms: findings.write_latency_ms,
        staleness_ms: findings.staleness_ms,
        stale_read_share: findings.stale_read_share,
        lag_ms: findings.lag_ms,
        conflicts: findings.conflicts,
        lost_updates: findings.lost_updates,
        appends: findings.appends,
        residency_violations: findings.residency_violations,
        residency_examples: findings.residency_examples,
        quarantined: findings.quarantined,
        sessions: findings.sessions,
        anomalies: findings.anomalies,
        converged: findings.converged,
        convergence_s: findings.convergence_s,
        cost: facts.cost,
        timeline: findings.timeline,
        marks: findings.marks,
        trace_id: facts.trace_id,
        traces: facts.traces,
    };
    let mut unmet = facts.failures;
    unmet.extend(expect::unmet(&report));
    report.verdict = match (invalid.is_empty(), unmet.is_empty()) {
        (false, _) => Verdict::Invalid,
        (true, false) => Verdict::Failed,
        (true, true) => Verdict::Passed,
    };
    report.reasons = invalid;
    report.reasons.extend(unmet);
    report
}

/// What crossed each link between two readings, with its price. A counter that went backwards began anew.
pub(crate) fn cost(before: &LinkBytesTable, after: &LinkBytesTable, config: &ControlConfig) -> Vec<LinkBytes> {
    let link = |((from, to), causes): (&(String, String), &std::collections::BTreeMap<String, u64>)| {
        let earlier = before.get(&(from.clone(), to.clone()));
        let bytes: std::collections::BTreeMap<String, u64> = causes
            .iter()
            .map(|(cause, now)| {
                let then = earlier.and_then(|causes| causes.get(cause)).copied().unwrap_or(0);
                (cause.clone(), if *now < then { *now } else { now - then })
            })
            .collect();
        let usd = config.price(from, bytes.values().sum());
        LinkBytes { from: from.clone(), to: to.clone(), bytes, usd }
    };
    after.iter().map(link).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use longhaul_core::topology::Topology;

    fn config() -> ControlConfig {
        ControlConfig::new(Topology::shipped("three-continents").unwrap().unwrap(), 1, "0")
    }

    fn facts() -> Facts {
        let link = LinkCheck {
            from: "a".into(),
            to: "b".into(),
            declared_rtt_ms: 80.0,
            measured_rtt_ms: Some(80.0),
            measured_after_rtt_ms: Some(80.0),
            tolerance_ms: 1.6,
            ok: true,
            source: "table".into(),
        };
        Facts {
            links: vec![link],
            invalid: Vec::new(),
            failures: Vec::new(),
            cost: Vec::new(),
            world: "embedded".into(),
            trace_id: None,
            traces: TraceLinks::default(),
        }
    }

    fn findings() -> Findings {
        Findings {
            operations: 100,
            converged: true,
            availability: [("london".to_owned(), 0.99)].into(),
            ..Findings::default()
        }
    }

    /// A report that meets every expectation of the shipped plan.
    pub(crate) fn report() -> RunReport {
        let plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
        assemble(&plan, &config(), findings(), facts())
    }

    #[test]
    fn a_good_run_passes() {
        let report = report();
        assert_eq!((report.verdict, report.reasons.len(), report.links_ok), (Verdict::Passed, 0, true));
    }

    #[test]
    fn a_link_that_is_not_as_declared_makes_the_run_invalid_whatever_the_figures_say() {
        let mut facts = facts();
        facts.links[0].ok = false;
        facts.failures.push("and something failed, too".into());
        let plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
        let report = assemble(&plan, &config(), findings(), facts);
        assert_eq!(report.verdict, Verdict::Invalid);
        assert!(report.reasons[0].starts_with("link a → b"), "{:?}", report.reasons);
        assert_eq!(report.reasons.len(), 2);
    }

    #[test]
    fn a_run_without_a_certificate_is_invalid() {
        let facts = Facts { links: Vec::new(), ..facts() };
        let plan = DrillPlan::shipped("region-loss").unwrap().unwrap();
        assert_eq!(assemble(&plan, &config(), findings(), facts).verdict, Verdict::Invalid);
    }

    #[test]
    fn cost_is_the_difference_times_the_price_and_survives_a_restarted_counter() {
        let table = |users: u64| {
            LinkBytesTable::from([(
                ("us-east-1".to_owned(), "london".to_owned()),
                [("users".to_owned(), users)].into(),
            )])
        };
        let mut config = config();
        config.usd_per_gb.insert("us-east-1".into(), 0.09);
        let cost_of = |before, after| cost(&table(before), &table(after), &config).remove(0);
        assert_eq!(cost_of(1_000_000_000, 3_000_000_000).bytes["users"], 2_000_000_000);
        assert!((cost_of(1_000_000_000, 3_000_000_000).usd - 0.18).abs() < 1e-9);
        assert_eq!(cost_of(500, 20).bytes["users"], 20);
    }
}
