//! The oracle: from the ledger and the evidence to figures. Pure functions, one file for each measure; the definitions
//! are theirs.
//!
//! What counts where: availability, latency, staleness and recovery are of the measured run; loss, conflicts, sessions,
//! residency and anomalies are of everything that users did, warm-up included, because a write that was acknowledged
//! then is a promise too.

pub mod anomalies;
pub mod availability;
pub mod conflicts;
mod fixture;
pub mod history;
pub mod lag;
pub mod latency;
pub mod linearizability;
pub mod lost_updates;
pub mod phases;
pub mod promises;
pub mod residency;
pub mod rpo;
pub mod rto;
mod selftest;
pub mod sessions;
pub mod staleness;
pub mod timeline;
pub mod validity;
pub mod versions;

use std::collections::BTreeSet;

use longhaul_core::report::{Conflicts, Quarantined};
use longhaul_http::wire::traffic::{Findings, JudgeRequest, OutcomeCounts};

pub use selftest::{SelftestError, selftest};

use crate::evidence::Evidence;
use crate::ledger::{Ledger, Outcome};
use history::Case;
use latency::Which;

/// Judges a run.
pub fn judge(ledger: &Ledger, evidence: &Evidence, circumstances: &JudgeRequest) -> Findings {
    let case = &Case::new(ledger, evidence, circumstances);
    let (staleness_ms, stale_read_share) = staleness::staleness(case);
    let (residency_violations, residency_examples) = residency::residency(case);
    let (concurrent, inverted) = conflicts::conflicts(case);
    let updates = lost_updates::updates(case);
    let outcomes = outcomes(case);
    let (invalid, notes) = validity::validity(case, &outcomes, &updates);
    Findings {
        invalid,
        notes,
        operations: outcomes.ok + outcomes.failed + outcomes.unknown,
        outcomes,
        policy_denials: ledger.measured().filter(|entry| ledger.is_policy_denial(entry)).count() as u64,
        rto_ms: rto::rto_ms(case),
        rto_resolution_ms: rto::resolution_ms(case),
        rto_phases_ms: phases::phases(case),
        outages: phases::outages(case),
        rpo: rpo::rpo(case),
        availability: availability::by_edge(case),
        availability_by_home: availability::by_home(case),
        latency_ms: latency::by_edge(case, Which::All),
        read_latency_ms: latency::by_edge(case, Which::Reads),
        write_latency_ms: latency::by_edge(case, Which::Writes),
        staleness_ms,
        stale_read_share,
        lag_ms: lag::lag_ms(case),
        conflicts: Conflicts { concurrent, inverted, unexplained: updates.unexplained.len() as u64 },
        lost_updates: updates.lost,
        appends: updates.appends,
        residency_violations,
        residency_examples,
        quarantined: quarantined(case),
        sessions: sessions::sessions(case).violations,
        anomalies: anomalies::anomalies(case),
        converged: evidence.converged && evidence.missing.is_empty(),
        convergence_s: evidence.convergence_s,
        timeline: timeline::timeline(case),
        marks: timeline::marks(case),
    }
}

fn outcomes(case: &Case<'_>) -> OutcomeCounts {
    let mut counts = OutcomeCounts::default();
    for entry in case.ledger.measured() {
        match entry.outcome {
            Outcome::Ok => counts.ok += 1,
            Outcome::Failed => counts.failed += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        counts.not_sent += u64::from(entry.not_sent());
    }
    counts
}

/// Operations of this run that regions put aside, each place once for each region.
fn quarantined(case: &Case<'_>) -> Quarantined {
    let mut quarantined = Quarantined::default();
    let mut places = BTreeSet::new();
    for (region, evidence) in &case.evidence.regions {
        if !evidence.quarantine.is_empty() {
            quarantined.by_region.insert(region.clone(), evidence.quarantine.len() as u64);
        }
        places.extend(evidence.quarantine.iter().map(|row| row.dot));
    }
    quarantined.operations = places.len() as u64;
    quarantined
}
