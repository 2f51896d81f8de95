//! What peers send in pages: snapshots, rows, pieces of logs, conflicts, ledgers. Their readers take the encoding as it
//! is, without a frame around it.

use std::collections::BTreeSet;

use longhaul_core::clock::RegionClock;
use longhaul_core::ids::{Epoch, RecordKey, RegionId};
use longhaul_core::record::Record;
use longhaul_core::replication::Positions;
use longhaul_core::replication::apply::{ApplyView, admit_batch};
use longhaul_core::replication::frame::Batch;
use longhaul_region::handlers::rows::Rows;
use longhaul_region::replicator::snapshot::Page;
use longhaul_region::store::{ConflictKind, ConflictRow};
use longhaul_traffic::ledger::{Entry, Ledger, Pages};
use longhaul_traffic::workload::{Key, Slot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fuzz;
use crate::messages::{NOW_NS, TIMELINE, genesis, header, log, vector};

fn records() -> Vec<Record> {
    log(9).iter().filter_map(Record::from_operation).collect()
}

fn keys() -> Vec<RecordKey> {
    records().into_iter().map(|record| record.key).collect()
}

/// Damages the encoding of `valid`, and gives what can be read of it to `check`.
fn encoded<T: DeserializeOwned>(valid: &[impl Serialize], check: impl Fn(T)) {
    let corpus: Vec<Vec<u8>> = valid.iter().map(|valid| postcard::to_stdvec(valid).unwrap()).collect();
    fuzz(&corpus, |input| postcard::from_bytes::<T>(input).map(&check).is_ok());
}

#[test]
fn pages_of_snapshots() {
    let lacking = BTreeSet::from([RegionId(2)]);
    // In the order of the fields of a page.
    let whole = (header(), None::<RegionId>, records(), BTreeSet::new(), true);
    encoded::<Page>(&[whole, (header(), Some(RegionId(3)), Vec::new(), lacking, false)], drop);
}

#[test]
fn rows_for_repair() {
    let rows = Rows { applied: vector(), found: records(), unrepaired: keys().into_iter().take(2).collect() };
    encoded::<Rows>(&[rows], drop);
}

#[test]
fn keys_of_rows_for_repair() {
    encoded::<Vec<RecordKey>>(&[keys(), Vec::new()], drop);
}

#[test]
fn conflicts_that_are_handed_to_their_home() {
    let conflicts: Vec<ConflictRow> = records()
        .into_iter()
        .map(|record| ConflictRow {
            key: record.key,
            loser: record.dot,
            loser_op_id: record.op_id,
            loser_version: record.version,
            loser_value: record.value,
            winner: record.dot,
            winner_op_id: record.op_id,
            kind: ConflictKind::Concurrent,
            found_ns: NOW_NS,
        })
        .collect();
    encoded::<Vec<ConflictRow>>(&[conflicts], drop);
}

#[test]
fn pieces_of_logs() {
    let batch = Batch { epoch: Epoch(1), timeline: TIMELINE, operations: log(9), visible: 8 };
    let (regime, held) = (genesis(), Positions::new());
    let clock = RegionClock::new(RegionId(2), NOW_NS, u64::MAX);
    encoded::<Batch>(&[batch], |batch| {
        let view = ApplyView { regime: &regime, promised: Epoch(1), positions: &held, clock: &clock, top_up: None };
        let _ = admit_batch(&view, &batch, NOW_NS);
    });
}

#[test]
fn ledgers_of_other_edges() {
    let entry = |n: u32| -> Entry {
        serde_json::from_value(json!({
            "n": n, "op_id": "0198f0a8-7c3e-7d4b-8a6f-0123456789ab", "edge": 1, "session": 2, "parent": null, "key": n % 2,
            "kind": "put", "consistency": "session", "intended_ns": 5, "sent_ns": 6, "write_ns": 6, "ended_ns": 900 - n,
            "outcome": "ok", "code": null, "attempts": 1, "region": 0, "epoch": 1, "dot": null, "version": null,
            "base": null, "observed": "nothing", "trace": null,
        }))
        .unwrap()
    };
    let mut ledger = Ledger::default();
    for slot in [Slot::Register(1), Slot::List(2, 3)] {
        ledger.intern(Key { home: 0, slot });
    }
    ledger.entries = (0..8).map(entry).collect();
    encoded::<Pages<'static>>(&[Pages::of(&ledger)], |pages| {
        let mut joined = Ledger::default();
        joined.join(&pages);
        joined.join(&pages);
    });
}
