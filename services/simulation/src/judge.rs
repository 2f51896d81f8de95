//! From what was seen to a verdict: what must hold after a chaotic run, given what it promised.

use longhaul_core::regime::{Durability, Mode};
use longhaul_core::report::LostWrite;
use longhaul_http::wire::traffic::Findings;

use crate::invariants::Watch;
use crate::schedule::Schedule;

/// What the operator saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Demands of liveness that were not met.
    pub(crate) unmet: Vec<String>,
    /// Regime changes that still run at the end.
    pub(crate) running: Vec<String>,
    /// What the oracle found.
    pub(crate) findings: Option<Findings>,
}

/// What was violated, one line each.
pub(crate) fn violations(schedule: &Schedule, watch: &Watch, seen: &Seen) -> Vec<String> {
    let mut lines = seen.unmet.clone();
    lines.extend(seen.running.iter().cloned());
    lines.extend(watch.vanished());
    let Some(findings) = &seen.findings else { return lines };
    lines.extend(findings.invalid.iter().map(|line| format!("the run proves nothing: {line}")));
    let anomalies = &findings.anomalies;
    let never = [
        ("I11: operations that failed have taken effect", anomalies.failed_but_present),
        ("values that nobody wrote were read", anomalies.phantoms),
        ("deleted records came back", anomalies.resurrections),
        ("reads were older than promised", anomalies.stale_reads),
        ("foreign bytes were found", findings.residency_violations),
    ];
    lines.extend(never.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")));
    if !lines.is_empty() {
        lines.extend(anomalies.examples.iter().chain(&findings.residency_examples).cloned());
    }
    if !findings.converged {
        lines.push("the regions do not hold the same in the end".to_owned());
    }
    lines.extend(promises(schedule, watch, findings));
    lines
}

/// What depends on what was promised.
fn promises(schedule: &Schedule, watch: &Watch, findings: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    let regimes = watch.regimes();
    let always = |mode: Mode| regimes.iter().all(|(_, regime)| regime.mode == mode);
    let one_primary = always(Mode::ActivePassive);
    let local = |durability: Durability| durability == Durability::Local;
    // One disk is lost at most: under one primary it never had the only copy of what was promised to be elsewhere.
    let may_lose = (schedule.loses_a_disk() && !one_primary)
        || schedule.accepts_loss()
        || regimes.iter().any(|(_, regime)| regime.mode == Mode::ActivePassive && local(regime.durability));
    let broken: Vec<&LostWrite> =
        findings.rpo.lost.iter().filter(|write| !watch.was_answered_local(&write.op_id)).collect();
    if !may_lose && !broken.is_empty() {
        let shown = list(broken.iter().copied());
        lines.push(format!("I7: {} acknowledged writes are lost: {shown}", broken.len()));
    }
    // A cut loses a tail, and the tail is kept aside: nothing is lost in silence.
    let silent: Vec<&LostWrite> =
        findings.rpo.lost.iter().filter(|write| !write.quarantined && !is_cost_of_force(schedule, write)).collect();
    if !schedule.loses_a_disk() && !silent.is_empty() {
        let shown = list(silent.iter().copied());
        lines.push(format!("I6: {} acknowledged writes are lost and not put aside: {shown}", silent.len()));
    }
    if one_primary && findings.anomalies.duplicates > 0 {
        lines.push(format!("I11: {} operations have two places in a log", findings.anomalies.duplicates));
        lines.extend(findings.anomalies.examples.iter().take(3).cloned());
    }
    if !schedule.loses_a_disk() && findings.conflicts.unexplained > 0 {
        let notes = findings.notes.join("; ");
        lines.push(format!("{} lost updates are unexplained: {notes}", findings.conflicts.unexplained));
    }
    let sessions = findings.sessions;
    let promised = schedule.workload.consistency != "eventual";
    if promised && findings.rpo.writes == 0 && sessions.read_your_writes + sessions.monotonic_reads > 0 {
        lines.push(format!(
            "sessions went back: {} own writes not read, {} reads older than before",
            sessions.read_your_writes, sessions.monotonic_reads
        ));
    }
    lines
}

/// Whether a write is what forcing costs: a region that isolation is forced on while it is away must not even keep
/// what it had accepted for other homes. What it had accepted for its own stays.
fn is_cost_of_force(schedule: &Schedule, write: &LostWrite) -> bool {
    let home = write.key.split('/').next();
    schedule.forces_isolation() && write.region.as_deref() != home
}

/// The first few of some writes, for people.
fn list<'a>(writes: impl IntoIterator<Item = &'a LostWrite>) -> String {
    writes
        .into_iter()
        .take(5)
        .map(|write| format!("{} ({} at {:.3} s)", write.op_id, write.key, write.acknowledged_s))
        .collect::<Vec<_>>()
        .join(", ")
}
