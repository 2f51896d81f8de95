//! Gathering: wait for convergence, then read everything from every region.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use longhaul_core::regime::Mode;
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::SharedClock;
use longhaul_http::wire::traffic::RegionTarget;
use uuid::Uuid;

use super::convergence::Snapshots;
use super::pages::{Witness, shows};
use super::{Evidence, Final, Foreign, RegionEvidence, VisibilityWatch};
use crate::canary::RunKey;
use crate::ledger::Ledger;
use crate::workload::Slot;

/// How often the digests are compared.
const POLL: Duration = Duration::from_millis(200);
/// Records read at once from one region.
const READS_AT_ONCE: usize = 32;
/// Most records read from one region; beyond it, records that were created and never touched are sampled evenly.
const RECORDS_MAX: usize = 50_000;
/// Most texts looked for in one region, evenly sampled.
const NEEDLES_MAX: usize = 2_000;
/// Texts in one sweep.
const NEEDLES_AT_ONCE: usize = 500;

/// Whose evidence to gather.
pub struct Subject {
    /// The client.
    pub client: HttpClient,
    /// The clock.
    pub clock: SharedClock,
    /// The token of internal endpoints.
    pub token: Option<String>,
    /// The regions from which evidence is expected.
    pub regions: Vec<RegionTarget>,
    /// What the run's values are recognised by.
    pub run: RunKey,
    /// The mode in force at the end.
    pub mode: Mode,
    /// How long the regions may take to converge.
    pub settle: Duration,
    /// What was seen while traffic flowed.
    pub watch: Arc<VisibilityWatch>,
}

/// Waits for convergence and reads everything. Regions that do not answer are named, not waited for beyond `settle`.
pub async fn gather(subject: &Subject, ledger: &Arc<Ledger>) -> Evidence {
    let ended_ns = ledger.entries.iter().map(|entry| entry.ended_ns).max().unwrap_or(ledger.end_ns);
    let witnesses: BTreeMap<String, Witness> = subject
        .regions
        .iter()
        .map(|region| {
            let (client, token) = (subject.client.clone(), subject.token.clone());
            (region.name.clone(), Witness { client, address: region.address.clone(), token })
        })
        .collect();
    let converged = converge(subject, &witnesses).await;
    let convergence_s = subject.clock.boot_ns().saturating_sub(ended_ns) as f64 / 1e9;
    let mut evidence = Evidence { converged, convergence_s, ..Evidence::default() };
    let ours: BTreeSet<Uuid> = ledger.entries.iter().filter(|entry| entry.kind.writes()).map(|e| e.op_id).collect();
    let mut reading: FuturesUnordered<_> = witnesses
        .iter()
        .map(|(name, witness)| async { (name.clone(), testify(subject, ledger, &ours, name, witness).await) })
        .collect();
    while let Some((name, testimony)) = reading.next().await {
        match testimony {
            Ok(region) => {
                evidence.regions.insert(name, region);
            }
            Err(error) => {
                evidence.missing.insert(name, error.to_string());
            }
        }
    }
    evidence
}

async fn converge(subject: &Subject, witnesses: &BTreeMap<String, Witness>) -> bool {
    let deadline = tokio::time::Instant::now() + subject.settle;
    let mut snapshots = Snapshots::default();
    loop {
        let views = futures::future::join_all(witnesses.values().map(Witness::digest)).await;
        let all: Result<Vec<_>, _> = views.into_iter().collect();
        if let Ok(views) = all
            && snapshots.add(witnesses.keys().cloned().zip(views).collect(), subject.mode)
        {
            return true;
        }
        if tokio::time::Instant::now() + POLL > deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn testify(
    subject: &Subject,
    ledger: &Arc<Ledger>,
    ours: &BTreeSet<Uuid>,
    name: &str,
    witness: &Witness,
) -> Result<RegionEvidence, CallError> {
    let operations = witness.operations(ours).await?;
    let conflicts = witness.conflicts(ours).await?;
    let quarantine = witness.quarantine(ours).await?;
    let mut visible = subject.watch.seen(name);
    visible.retain(|op_id, _| ours.contains(op_id));
    for (op_id, boot_ns) in witness.visibility(ours).await? {
        visible.entry(op_id).or_insert(boot_ns);
    }
    let visible = visible.into_iter().collect();
    let records = records(subject, ledger, witness).await?;
    let mut swept = Vec::new();
    if subject.mode == Mode::RegionalIsolation {
        let foreign = |key: u32| ledger.home_name(key) != name;
        for (key, found) in &records {
            if foreign(*key) && shows(found) {
                swept.push(Foreign { key: *key, place: format!("{name}: records API") });
            }
        }
        swept.extend(sweep(subject, ledger, name, witness).await?);
    }
    Ok(RegionEvidence { operations, conflicts, quarantine, visible, records, swept })
}

/// Every `step`-th of so many that at most `max` remain.
fn step(count: usize, max: usize) -> usize {
    count.div_ceil(max).max(1)
}

async fn records(subject: &Subject, ledger: &Ledger, witness: &Witness) -> Result<BTreeMap<u32, Final>, CallError> {
    let (inserts, shared): (Vec<u32>, Vec<u32>) =
        (0..ledger.keys.len() as u32).partition(|key| matches!(ledger.keys[*key as usize].slot, Slot::Insert(_)));
    let sampled = inserts.iter().step_by(step(inserts.len(), RECORDS_MAX.saturating_sub(shared.len()).max(1)));
    let wanted: Vec<u32> = shared.iter().chain(sampled).copied().collect();
    let reads = wanted.into_iter().map(|key| async move {
        let id = ledger.keys[key as usize].record_id(&ledger.tag);
        (key, witness.record(&subject.run, ledger.home_name(key), &id).await)
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    let mut found = BTreeMap::new();
    while let Some((key, record)) = reads.next().await {
        found.insert(key, record?);
    }
    Ok(found)
}

/// What must not be in a region other than the record's home: the canaries of values, and the ids of records.
fn needles(run: &RunKey, ledger: &Ledger, region: &str) -> Vec<(u32, String)> {
    let canaries = ledger.entries.iter().filter(|entry| entry.may_have_effect()).filter_map(|entry| {
        let home = ledger.home_name(entry.key);
        (home != region).then(|| (entry.key, run.canary(entry.op_id, home)))
    });
    let ids = (0..ledger.keys.len() as u32)
        .filter(|key| ledger.home_name(*key) != region)
        .map(|key| (key, ledger.keys[key as usize].record_id(&ledger.tag)));
    let all: Vec<_> = canaries.chain(ids).collect();
    let step = step(all.len(), NEEDLES_MAX);
    all.into_iter().step_by(step).collect()
}

async fn sweep(subject: &Subject, ledger: &Ledger, name: &str, witness: &Witness) -> Result<Vec<Foreign>, CallError> {
    let needles = needles(&subject.run, ledger, name);
    let mut found = Vec::new();
    for chunk in needles.chunks(NEEDLES_AT_ONCE) {
        let hits = witness.sweep(chunk.iter().map(|(_, needle)| needle.clone()).collect()).await?;
        let known = hits.into_iter().filter_map(|(index, place)| Some((chunk.get(index)?.0, place)));
        found.extend(known.map(|(key, place)| Foreign { key, place: format!("{name}: {place}") }));
    }
    Ok(found)
}
