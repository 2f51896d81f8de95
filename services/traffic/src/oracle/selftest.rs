//! The oracle's self-test: a clean history must give nothing, and each anomaly, planted once, must be found exactly
//! once. A judge that cannot see would call every run a success.

use longhaul_core::ids::{Dot, Timeline};
use longhaul_core::regime::Mode;
use longhaul_http::wire::traffic::{Findings, ModeSpan};

use super::fixture::Scene;
use super::judge;
use crate::evidence::Foreign;
use crate::ledger::Consistency;
use crate::value::Observed;

/// An anomaly that the oracle missed, miscounted or made up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the oracle's self-test failed: planted {planted}, counted {counted} where {expected} was right; its verdicts mean nothing, so do not use this build"
)]
pub struct SelftestError {
    /// What was planted.
    pub planted: &'static str,
    /// What the oracle counted.
    pub counted: u64,
    /// What it should have counted.
    pub expected: u64,
}

/// How an anomaly is planted into the clean history.
type Plant = fn(&mut Stage);
/// Where it must show.
type Read = fn(&Findings) -> u64;

/// A history without any anomaly, and the operations in it by name.
struct Stage {
    scene: Scene,
    old: usize,
    new: usize,
    read: usize,
    created: usize,
    removed: usize,
    delete: usize,
    appends: [usize; 2],
    refused: usize,
}

fn clean() -> Stage {
    let mut scene = Scene::new();
    let (old, new) = (scene.put(0, 1.0, 1.1), scene.put(0, 2.0, 2.1));
    let read = scene.read(0, 3.0, 3.1, Some(new));
    let again = scene.read(0, 4.0, 4.1, Some(new));
    let created = scene.insert(5.0, 5.1);
    let (removed, delete) = (scene.put(1, 6.0, 6.1), scene.delete(1, 7.0, 7.1));
    let first = scene.append(0, 0, 8.0, 8.1, None);
    let appends = [first, scene.append(0, 0, 9.0, 9.1, Some(first))];
    let refused = scene.failed_put(2, 10.0, 10.5);
    scene.chain(&[old, new, read, again]);
    for region in ["eu", "us"] {
        scene.remember(region, &[old, new, created, removed, delete, appends[0], appends[1]]);
        scene.show(region, new);
        scene.show(region, created);
        scene.absent(region, delete);
        scene.show_list(region, appends[1], &appends);
    }
    Stage { scene, old, new, read, created, removed, delete, appends, refused }
}

impl Stage {
    fn make_stale(&mut self) {
        let old = self.scene.ledger.entries[self.old].clone();
        let read = &mut self.scene.ledger.entries[self.read];
        (read.observed, read.version) = (Observed::Value(old.op_id), old.version);
    }

    fn forget(&mut self, index: usize) {
        let op_id = self.scene.ledger.entries[index].op_id;
        for region in ["eu", "us"] {
            self.scene.region(region).operations.retain(|operation| operation.op_id != op_id);
        }
    }
}

const PLANTS: [(&str, Plant, Read); 14] = [
    (
        "a lost acknowledgement",
        |stage| {
            stage.forget(stage.created);
            stage.scene.absent("eu", stage.created);
            stage.scene.absent("us", stage.created);
        },
        |found| found.rpo.writes,
    ),
    (
        "a created record that is remembered and not shown",
        |stage| {
            stage.scene.absent("eu", stage.created);
            stage.scene.absent("us", stage.created);
        },
        |found| found.rpo.writes,
    ),
    (
        "a stale read against a promise",
        |stage| {
            stage.make_stale();
            stage.scene.ledger.entries[stage.read].consistency = Consistency::Primary;
            stage.scene.ledger.entries[stage.read].parent = None;
        },
        |found| found.anomalies.stale_reads,
    ),
    (
        "a phantom",
        |stage| stage.scene.ledger.entries[stage.read].observed = Observed::Foreign,
        |found| found.anomalies.phantoms,
    ),
    (
        "a value of another record",
        |stage| {
            let other = stage.scene.ledger.entries[stage.created].op_id;
            stage.scene.ledger.entries[stage.read].observed = Observed::Value(other);
        },
        |found| found.anomalies.phantoms,
    ),
    (
        "a duplicate",
        |stage| {
            let second = Dot { timeline: Timeline::new(2, 1), seq: 1 };
            stage.scene.region("us").operations[0].dot = second;
        },
        |found| found.anomalies.duplicates,
    ),
    ("a resurrection", |stage| stage.scene.show("us", stage.removed), |found| found.anomalies.resurrections),
    (
        "a foreign byte",
        |stage| {
            let boot_ns = stage.scene.at(39.0);
            stage.scene.circumstances.modes.push(ModeSpan { boot_ns, mode: Mode::RegionalIsolation });
            let key = stage.scene.ledger.entries[stage.new].key;
            stage.scene.region("us").swept.push(Foreign { key, place: "us: store".to_owned() });
        },
        |found| found.residency_violations,
    ),
    (
        "a refused write that took effect",
        |stage| stage.scene.remember("eu", &[stage.refused]),
        |found| found.anomalies.failed_but_present,
    ),
    (
        "a read that went back",
        |stage| {
            // The second read goes back behind the first; the session wrote neither value.
            let (old, second) = (stage.scene.ledger.entries[stage.old].clone(), stage.read + 1);
            let entry = &mut stage.scene.ledger.entries[second];
            (entry.observed, entry.version) = (Observed::Value(old.op_id), old.version);
            stage.scene.ledger.entries[stage.read].parent = None;
        },
        |found| found.sessions.monotonic_reads,
    ),
    (
        "a session that does not read its own write",
        |stage| {
            stage.make_stale();
            let first = stage.scene.ledger.entries[stage.new].n;
            stage.scene.ledger.entries[stage.read].parent = Some(first);
        },
        |found| found.sessions.read_your_writes,
    ),
    (
        "a lost update",
        |stage| {
            let last = stage.appends[1];
            stage.scene.show_list("eu", last, &[last]);
            stage.scene.show_list("us", last, &[last]);
        },
        |found| found.lost_updates,
    ),
    (
        "a lost update that nothing explains",
        |stage| {
            let last = stage.appends[1];
            stage.scene.show_list("eu", last, &[last]);
            stage.scene.show_list("us", last, &[last]);
        },
        |found| found.conflicts.unexplained,
    ),
    ("a conflict", |stage| stage.scene.conflict("eu", stage.old, stage.delete), |found| found.conflicts.concurrent),
];

/// Everything in the findings that a clean history leaves at 0.
fn alarms(found: &Findings) -> u64 {
    found.rpo.writes
        + found.anomalies.total()
        + found.residency_violations
        + found.sessions.read_your_writes
        + found.sessions.monotonic_reads
        + found.lost_updates
        + found.conflicts.concurrent
        + found.conflicts.unexplained
        + found.invalid.len() as u64
}

/// Plants each anomaly once and looks for it. To be called before every run; it takes a few milliseconds.
pub fn selftest() -> Result<(), SelftestError> {
    let findings = |stage: &Stage| judge(&stage.scene.ledger, &stage.scene.evidence, &stage.scene.circumstances);
    let expect = |planted, counted, expected| {
        if counted == expected { Ok(()) } else { Err(SelftestError { planted, counted, expected }) }
    };
    expect("nothing", alarms(&findings(&clean())), 0)?;
    for (planted, plant, read) in PLANTS {
        let mut stage = clean();
        plant(&mut stage);
        expect(planted, read(&findings(&stage)), 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_history_is_clean_and_every_planted_anomaly_is_found() {
        assert_eq!(selftest(), Ok(()));
    }

    #[test]
    fn an_anomaly_is_not_taken_for_another_one() {
        for (planted, plant, read) in PLANTS {
            let mut stage = clean();
            plant(&mut stage);
            let found = judge(&stage.scene.ledger, &stage.scene.evidence, &stage.scene.circumstances);
            // A lost update shows as lost and as unexplained; everything else shows once.
            let expected = if planted.contains("lost update") { 2 } else { 1 };
            assert_eq!((read(&found), alarms(&found)), (1, expected), "{planted}: {found:?}");
        }
    }
}
