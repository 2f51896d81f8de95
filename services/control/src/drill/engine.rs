//! The engine: one drill from the first look at the testbed to the report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use longhaul_core::operation::TraceContext;
use longhaul_core::plan::{Action, DrillPlan, Step};
use longhaul_core::report::{LinkCheck, RunReport, TraceLinks};
use longhaul_http::trace;
use longhaul_http::wire::control::EventKind;
use longhaul_http::wire::drills::{DrillPhase, EdgeProgress};
use longhaul_http::wire::regime::ChangeStatus;
use longhaul_http::wire::traffic::{
    FaultMark, Findings, JudgeRequest, Outage, RunProgress, RunRequest, RunStarted, RunState,
};

use super::assemble::{Facts, assemble, cost};
use super::certificate;
use super::evidence::{Evidence, StepResult, marks};
use super::prepare::{prepare, wait_ready};
use crate::faults::{changes_regime, describe, heals};
use crate::jaeger;
use crate::regime::join_changes;
use crate::spans::DrillTrace;
use crate::state::Control;

/// How often the progress of traffic is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How often gateways and regions are asked for evidence (every n-th look at progress).
const EVIDENCE_EVERY: u32 = 4;
/// How long the last operations may take beyond their own deadline.
const LAST_OPERATIONS: Duration = Duration::from_secs(30);
/// How long regions may take to serve again after everything was healed.
const RETURN_DEADLINE: Duration = Duration::from_secs(30);
/// How long a fault may take to come into force. A recovery is counted from its beginning, and takes some seconds itself.
const IN_FORCE_MAX: Duration = Duration::from_secs(3);
/// How long the judge may take to gather evidence, beyond the settling.
const EVIDENCE_DEADLINE: Duration = Duration::from_secs(180);

/// Runs a drill. Answers with the report and the regime changes that happened. The error is one line; the testbed is
/// healed and its traffic stopped in any case.
pub(crate) async fn run(
    control: &Arc<Control>,
    id: &str,
    plan: &DrillPlan,
) -> Result<(RunReport, Vec<String>), String> {
    let root = control.traces.root();
    let mut headers = HeaderMap::new();
    trace::inject(&mut headers, root);
    let mut drill =
        Drill { control, id, plan, root, headers, run: None, evidence: Evidence::default(), phases: Mutex::default() };
    let result = drill.run(trace::trace_id_text(root)).await;
    if let Err(reason) = &result {
        control.events.record(EventKind::Drill, None, format!("drill {}: {reason}", plan.name));
        drill.clean_up().await;
        drill.trace(&BTreeMap::new(), &[], 0, None);
    }
    result
}

struct Drill<'a> {
    control: &'a Arc<Control>,
    id: &'a str,
    plan: &'a DrillPlan,
    /// The root of its trace.
    root: TraceContext,
    headers: HeaderMap,
    /// The run of traffic, once it was started and until it was judged.
    run: Option<RunStarted>,
    evidence: Evidence,
    /// When each phase began.
    phases: Mutex<Vec<(DrillPhase, u64)>>,
}

impl Drill<'_> {
    fn phase(&self, phase: DrillPhase) {
        self.control.drills.phase(self.id, phase);
        let now_ns = self.control.clock.boot_ns();
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).push((phase, now_ns));
        let text = format!("drill {}: {}", self.plan.name, phase.as_str());
        self.control.events.record(EventKind::Drill, None, text);
    }

    async fn run(&mut self, trace_id: String) -> Result<(RunReport, Vec<String>), String> {
        let control = self.control;
        self.phase(DrillPhase::Prepare);
        prepare(control, self.plan, &self.headers).await?;
        self.phase(DrillPhase::CertificateBefore);
        let before = self.measure().await?;
        let bytes_before = control.link_bytes().await;
        let run = self.start_traffic().await?;
        self.phase(DrillPhase::WarmUp);
        let started = run.start_boot_ns;
        let (steps, ()) = {
            let evidence = std::mem::take(&mut self.evidence);
            let (steps, followed) = futures::future::join(self.steps(started), self.follow(&run, evidence)).await;
            self.evidence = followed?;
            (steps, ())
        };
        let bytes_after = control.link_bytes().await;
        self.phase(DrillPhase::Settle);
        let mut failures = Vec::new();
        failures.extend(control.heal_all().await.trouble);
        if let Err(reason) = wait_ready(control, RETURN_DEADLINE).await {
            failures.push(format!("after everything was healed: {reason}"));
        }
        self.evidence.gather(control).await;
        self.phase(DrillPhase::Judge);
        let findings = self.judge(&run, &steps).await?;
        self.phase(DrillPhase::CertificateAfter);
        let after = self.measure().await?;
        let mut invalid = Vec::new();
        for step in &steps {
            let Some(trouble) = &step.trouble else { continue };
            let line = format!("step {} ({}): {trouble}", step.number, describe(&step.action));
            if changes_regime(&step.action) { &mut failures } else { &mut invalid }.push(line);
        }
        let outages = findings.outages.clone();
        let facts = Facts {
            links: certificate::join(before, &after),
            invalid,
            failures,
            cost: cost(&bytes_before, &bytes_after, &control.config),
            world: control.world.kind().to_owned(),
            traces: self.links(&trace_id, &outages),
            trace_id: Some(trace_id),
        };
        let changes = self.evidence.changes(started).into_iter().map(|change| change.id).collect();
        let report = assemble(self.plan, &control.config, findings, facts);
        self.trace(&outages, &marks(&steps, control), started, Some(&report));
        let text = format!("drill {}: {:?}", self.plan.name, report.verdict).to_lowercase();
        control.events.record(EventKind::Drill, None, text);
        Ok((report, changes))
    }

    /// The changes of the regime that moved since `started`, each once.
    fn changes(&self, started: u64) -> Vec<ChangeStatus> {
        join_changes(self.evidence.changes(started))
    }

    /// Records the drill's trace.
    fn trace(
        &self,
        outages: &BTreeMap<String, Outage>,
        faults: &[FaultMark],
        started: u64,
        report: Option<&RunReport>,
    ) {
        let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.control.trace_drill(&DrillTrace {
            root: self.root,
            plan: &self.plan.name,
            phases: &phases,
            end_ns: self.control.clock.boot_ns(),
            faults,
            changes: &self.changes(phases.first().map_or(started, |(_, began)| *began)),
            outages,
            start_ns: started,
            report,
        });
    }

    /// Where the traces of this drill are: its own, that of the change which ended the worst outage, and those of the
    /// requests at either end of it.
    fn links(&self, trace_id: &str, outages: &BTreeMap<String, Outage>) -> TraceLinks {
        let base = self.control.config.jaeger.as_deref();
        let link = |id: &String| jaeger::link(base, id);
        let length = |outage: &Outage| outage.up_boot_ns.map_or(u64::MAX, |up_ns| up_ns - outage.fault_boot_ns);
        let worst = outages.values().max_by_key(|outage| length(outage));
        let changes = self.changes(0);
        let ended = worst.and_then(|worst| changes.iter().find(|change| worst.change.as_ref() == Some(&change.id)));
        let now_ns = self.control.clock.wall_ns();
        let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let took_ns = phases.first().map_or(0, |(_, began)| self.control.clock.boot_ns().saturating_sub(*began));
        TraceLinks {
            drill: Some(jaeger::link(base, trace_id)),
            failover: ended.and_then(|change| change.trace_id.as_ref()).map(link),
            first_failed: worst.and_then(|worst| worst.first_failed.as_ref()).map(link),
            first_success: worst.and_then(|worst| worst.first_success.as_ref()).map(link),
            searches: jaeger::searches(base, now_ns.saturating_sub(took_ns), now_ns),
        }
    }

    async fn measure(&self) -> Result<Vec<LinkCheck>, String> {
        self.control.world.measure_links().await.map_err(|error| format!("the links cannot be measured: {error}"))
    }

    async fn start_traffic(&mut self) -> Result<RunStarted, String> {
        let control = self.control;
        let request = RunRequest {
            workload: self.plan.traffic.clone(),
            edges: control.edge_targets(),
            regions: control.region_targets(),
            seed: self.plan.seed,
            warm_up_s: self.plan.warm_up_s,
            duration_s: self.plan.duration_s,
            mode: self.plan.regime.mode,
            run_key: control.ids.next().to_string(),
            part: None,
        };
        let started = control
            .start_run(request, self.headers.clone())
            .await
            .map_err(|problem| format!("traffic cannot be started: {}", problem.detail))?;
        self.run = Some(started.clone());
        Ok(started)
    }

    async fn until(&self, boot_ns: u64) {
        let left = boot_ns.saturating_sub(self.control.clock.boot_ns());
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }

    /// Carries the steps out on time, one after the other, and verifies each beside those that follow.
    async fn steps(&self, started: u64) -> Vec<StepResult> {
        self.until(started).await;
        self.phase(DrillPhase::Run);
        let mut results = Vec::new();
        let mut proofs = FuturesUnordered::new();
        for (number, step) in self.plan.steps.iter().enumerate().map(|(index, step)| (index + 1, step)) {
            let due = self.until(started + (step.at_s * 1e9) as u64);
            let mut due = std::pin::pin!(due);
            loop {
                tokio::select! {
                    biased;
                    () = &mut due => break,
                    Some(result) = proofs.next() => results.push(result),
                }
            }
            let began_ns = self.control.clock.boot_ns();
            match self.act(number, step).await {
                Ok(acted) => {
                    let took_ns = self.control.clock.boot_ns().saturating_sub(began_ns);
                    proofs.push(self.prove(number, step, acted, too_slow(&step.action, Duration::from_nanos(took_ns))));
                }
                Err(failed) => results.push(failed),
            }
        }
        while let Some(result) = proofs.next().await {
            results.push(result);
        }
        results.sort_by_key(|result| result.number);
        results
    }

    async fn act(&self, number: usize, step: &Step) -> Result<crate::faults::Acted, StepResult> {
        self.control.act(&step.action, self.headers.clone()).await.map_err(|problem| {
            let missing =
                if problem.missing.is_empty() { String::new() } else { format!(" ({})", problem.missing.join("; ")) };
            let trouble = Some(format!("{}{missing}", problem.detail));
            self.control.events.record(EventKind::Drill, None, format!("step {number} failed: {}", problem.detail));
            StepResult { number, fault: None, action: step.action.clone(), change: None, trouble }
        })
    }

    async fn prove(
        &self,
        number: usize,
        step: &Step,
        acted: crate::faults::Acted,
        too_slow: Option<String>,
    ) -> StepResult {
        let change = acted.change.clone();
        let recorded = acted.fault.clone();
        let action = if heals(&step.action) { step.action.clone() } else { recorded.action.clone() };
        match self.control.verify(acted).await {
            Ok(fault) => StepResult { number, fault: Some(fault), action, change, trouble: too_slow },
            Err(problem) => {
                self.control.events.record(EventKind::Drill, None, format!("step {number}: {}", problem.detail));
                StepResult { number, fault: Some(recorded), action, change, trouble: Some(problem.detail) }
            }
        }
    }

    /// Follows the traffic until every operation has its outcome, and gathers evidence meanwhile.
    async fn follow(&self, run: &RunStarted, mut evidence: Evidence) -> Result<Evidence, String> {
        let control = self.control;
        let length =
            Duration::from_secs_f64(self.plan.duration_s) + Duration::from_millis(self.plan.traffic.deadline_ms);
        let end = run.start_boot_ns + u64::try_from((length + LAST_OPERATIONS).as_nanos()).unwrap_or(u64::MAX);
        for look in 0_u32.. {
            match control.run_progress(&run.id).await {
                Ok(progress) => {
                    let finished = progress.state != RunState::Warming && progress.state != RunState::Running;
                    control.drills.progress(self.id, progress.elapsed_s, edges(&progress));
                    if finished {
                        break;
                    }
                }
                Err(problem) => tracing::debug!(detail = problem.detail, "traffic does not tell its progress"),
            }
            if control.clock.boot_ns() > end {
                return Err(format!("traffic did not end within {} s", (length + LAST_OPERATIONS).as_secs()));
            }
            if look % EVIDENCE_EVERY == 0 {
                evidence.gather(control).await;
            }
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
        evidence.gather(control).await;
        Ok(evidence)
    }

    async fn judge(&mut self, run: &RunStarted, steps: &[StepResult]) -> Result<Findings, String> {
        let request = JudgeRequest {
            faults: marks(steps, self.control),
            changes: self.evidence.changes(run.start_boot_ns),
            gateway_adoptions: self.evidence.adoptions(run.start_boot_ns),
            start_mode: self.plan.regime.mode,
            durability: self.plan.regime.durability,
            modes: self.evidence.modes(steps),
            settle_s: self.plan.settle_s,
            regions_expected_down: Vec::new(),
            others: Vec::new(),
        };
        let deadline = Duration::from_secs_f64(self.plan.settle_s) + EVIDENCE_DEADLINE;
        let findings = self
            .control
            .judge_run(&run.id, request, self.headers.clone(), deadline)
            .await
            .map_err(|problem| format!("the run cannot be judged: {}", problem.detail))?;
        self.run = None;
        Ok(findings)
    }

    /// After a failure: no traffic, no faults.
    async fn clean_up(&self) {
        if let Some(run) = &self.run
            && let Err(problem) = self.control.stop_run(&run.id).await
        {
            tracing::warn!(detail = problem.detail, "the traffic of a failed drill cannot be stopped");
        }
        for trouble in self.control.heal_all().await.trouble {
            tracing::warn!(trouble, "a fault of a failed drill cannot be healed");
        }
    }
}

/// Why a fault that took this long to come into force proves nothing; regime changes and healing take their time.
fn too_slow(action: &Action, took: Duration) -> Option<String> {
    if took <= IN_FORCE_MAX || changes_regime(action) || heals(action) {
        return None;
    }
    let (took_ms, most_ms) = (took.as_millis(), IN_FORCE_MAX.as_millis());
    Some(format!(
        "it took {took_ms} ms to come into force, at most {most_ms} ms expected: this machine is too slow or too busy"
    ))
}

fn edges(progress: &RunProgress) -> BTreeMap<String, EdgeProgress> {
    let edge = |(name, edge): (&String, &longhaul_http::wire::traffic::EdgeProgress)| {
        let finished = edge.ok + edge.failed + edge.unknown;
        (name.clone(), EdgeProgress { finished, ok_share: edge.ok_share, p50_ms: edge.p50_ms })
    };
    progress.edges.iter().map(edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_that_comes_slowly_proves_nothing() {
        let loss = Action::RegionLoss { region: "a".into() };
        let late = IN_FORCE_MAX + Duration::from_millis(1);
        assert_eq!(too_slow(&loss, IN_FORCE_MAX), None);
        let said = "it took 3001 ms to come into force, at most 3000 ms expected: this machine is too slow or too busy";
        assert_eq!(too_slow(&loss, late).as_deref(), Some(said));
        assert_eq!(too_slow(&Action::RegionReturn { region: "a".into() }, late), None);
        assert_eq!(too_slow(&Action::Switchover { to: "a".into() }, late), None);
    }
}
