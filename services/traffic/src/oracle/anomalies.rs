//! What must never happen, whatever the fault.

use std::collections::BTreeSet;

use longhaul_core::report::Anomalies;

use super::history::Case;
use super::promises::stale_primary_reads;
use super::sessions::sessions;
use crate::evidence::Final;
use crate::ledger::{Entry, Outcome};
use crate::value::Observed;
use crate::workload::Kind;

/// Examples kept.
const EXAMPLES_MAX: usize = 20;

/// Counts them all.
pub fn anomalies(case: &Case<'_>) -> Anomalies {
    let failed = failed_but_present(case);
    let duplicates = duplicates(case);
    let phantoms = phantoms(case);
    let resurrections = resurrections(case);
    let stale = stale_primary_reads(case);
    let promised = sessions(case).promised;
    let mut examples: Vec<String> = Vec::new();
    let kinds = [&failed, &duplicates, &phantoms, &resurrections, &stale, &promised];
    // A few of each kind rather than many of the first.
    for place in 0..EXAMPLES_MAX {
        examples.extend(kinds.iter().filter_map(|lines| lines.get(place).cloned()));
    }
    examples.truncate(EXAMPLES_MAX);
    Anomalies {
        failed_but_present: failed.len() as u64,
        duplicates: duplicates.len() as u64,
        phantoms: phantoms.len() as u64,
        resurrections: resurrections.len() as u64,
        stale_reads: (stale.len() + promised.len()) as u64,
        examples,
    }
}

/// Whether every attempt of a write was definitely refused (or answered without being accepted).
fn without_effect(entry: &Entry) -> bool {
    entry.kind.writes() && entry.outcome != Outcome::Unknown && !entry.acknowledged()
}

/// Writes that were reported as not accepted and are there: remembered, put aside, or seen by anybody.
fn failed_but_present(case: &Case<'_>) -> Vec<String> {
    let history = &case.history;
    let seen: BTreeSet<_> = case.ledger.entries.iter().filter_map(observed).collect();
    let refused = case.ledger.entries.iter().filter(|entry| without_effect(entry));
    let present = refused.filter_map(|entry| {
        let id = &entry.op_id;
        let place = if history.surviving.contains_key(id) {
            "remembered"
        } else if history.quarantined.contains(id) {
            "in a quarantine"
        } else if history.shown.contains(id) || seen.contains(id) {
            "read"
        } else {
            return None;
        };
        let code = entry.code.map_or("no code", longhaul_core::error_code::ErrorCode::as_str);
        let key = case.ledger.key_text(entry.key);
        Some(format!("failed but present: operation {id} on {key} was refused ({code}) and is {place}"))
    });
    present.collect()
}

fn observed(entry: &Entry) -> Option<uuid::Uuid> {
    match entry.observed {
        Observed::Value(op_id) => Some(op_id),
        _ => None,
    }
}

/// Operations with two places in the surviving history, or acknowledged at one and found at another.
fn duplicates(case: &Case<'_>) -> Vec<String> {
    let put_aside = case.evidence.regions.values().flat_map(|region| &region.quarantine);
    let merged: BTreeSet<_> = put_aside.filter(|row| row.merged).map(|row| row.op_id).collect();
    let quarantined = &case.history.quarantined;
    let surviving = case.history.surviving.iter().filter(|(op_id, _)| !merged.contains(op_id));
    let twice = surviving.filter_map(|(op_id, dots)| {
        let mut all = dots.clone();
        // An acknowledged place beyond a cut was lost; a retry that was accepted elsewhere is then the only one left.
        if !quarantined.contains(op_id) {
            all.extend(case.history.entry_of.get(op_id).and_then(|index| case.ledger.entries[*index].dot));
        }
        let places: Vec<String> = all.iter().map(ToString::to_string).collect();
        (all.len() > 1).then(|| format!("duplicate: operation {op_id} is at {}", places.join(" and ")))
    });
    twice.collect()
}

/// Reads, during the run and at the end, of values that nobody wrote to that record (or not before the read ended).
fn phantoms(case: &Case<'_>) -> Vec<String> {
    let (entries, history) = (&case.ledger.entries, &case.history);
    let impossible = |observed: Observed, key: u32, read_ns: u64| match observed {
        Observed::Nothing | Observed::Absent => false,
        Observed::Foreign => true,
        Observed::Value(op_id) => history.entry_of.get(&op_id).is_none_or(|index| {
            let writer = &entries[*index];
            let writes_values = writer.kind.writes() && writer.kind != Kind::Delete;
            // Never sent, or sent later. What was refused and is seen is another anomaly.
            !writes_values || writer.key != key || writer.write_ns == 0 || writer.write_ns > read_ns
        }),
    };
    let reads = entries.iter().filter(|entry| entry.kind == Kind::Read);
    let during = reads.filter(|read| impossible(read.observed, read.key, read.ended_ns)).map(|read| {
        let key = case.ledger.key_text(read.key);
        format!("phantom: operation {} read a value of {key} that nobody can have written", read.op_id)
    });
    let found = case
        .evidence
        .regions
        .iter()
        .flat_map(|(region, evidence)| evidence.records.iter().map(move |(key, found)| (region, *key, found)));
    let at_the_end = found.filter_map(|(region, key, found)| match found {
        Final::Present { observed, .. } if impossible(*observed, key, u64::MAX) => {
            let key = case.ledger.key_text(key);
            Some(format!("phantom: region {region} shows a value of {key} that nobody wrote"))
        }
        _ => None,
    });
    during.chain(at_the_end).collect()
}

/// Records that some region shows at the end although an acknowledged delete of a later version stands. Regions that
/// have not converged may merely not have heard of it.
fn resurrections(case: &Case<'_>) -> Vec<String> {
    if !case.evidence.converged {
        return Vec::new();
    }
    let (entries, history) = (&case.ledger.entries, &case.history);
    let deleted = |key: u32, shown: longhaul_core::version::Version| {
        history.deletes[key as usize].iter().copied().find(|index| {
            entries[*index].acknowledged()
                && !history.lost[*index]
                && history.version[*index].is_some_and(|version| version > shown)
        })
    };
    let found = case
        .evidence
        .regions
        .iter()
        .flat_map(|(region, evidence)| evidence.records.iter().map(move |(key, found)| (region, *key, found)));
    let back = found.filter_map(|(region, key, found)| match found {
        Final::Present { version, .. } => deleted(key, *version).map(|delete| {
            let (key, delete) = (case.ledger.key_text(key), entries[delete].op_id);
            format!("resurrection: region {region} shows {key} at {version} although {delete} deleted it later")
        }),
        Final::Absent | Final::Refused => None,
    });
    back.collect()
}
