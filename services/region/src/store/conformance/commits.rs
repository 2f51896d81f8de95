//! Atomicity, durability, idempotency, order.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::RegionId;

use super::Testbed;
use super::fixtures::{FIRST, SECOND, conflict, dot, key, operation, position, quarantined, remembered, write, writes};
use crate::store::{BucketDigest, Commit, QuarantineState, Store, StoreError};

pub(super) async fn an_empty_store_loads_nothing(testbed: &Testbed) {
    let loaded = testbed.store.load().await.unwrap();
    assert!(loaded.positions.is_empty() && loaded.log_floors.is_empty());
    assert!(loaded.meta.is_empty() && loaded.digests.is_empty());
    assert!(testbed.store.scan(None, None, 10).await.unwrap().is_empty());
    testbed.store.commit(Commit::default()).await.unwrap();
    testbed.store.maintain().await.unwrap();
}

pub(super) async fn everything_in_a_commit_survives_a_reopen(testbed: &Testbed) {
    let large = format!("\"{}\"", "large ".repeat(10_000));
    let (put, delete) = (key(1, "put"), key(2, "delete"));
    let mut commit = write(dot(FIRST, 1), &put, Some(&large));
    let deleted = write(dot(FIRST, 2), &delete, None);
    commit.operations.extend(deleted.operations);
    commit.records.extend(deleted.records);
    commit.idempotency.extend(deleted.idempotency);
    commit.positions = vec![(FIRST, position(2)), (SECOND, position(0))];
    commit.conflicts = vec![conflict(&put, dot(SECOND, 4), dot(FIRST, 1), 9)];
    commit.quarantine = vec![quarantined(dot(SECOND, 8), &put, QuarantineState::Open)];
    commit.digests = vec![
        ((RegionId(1), 0), BucketDigest { rows: 1, sum: u128::MAX }),
        ((RegionId(2), 255), BucketDigest { rows: 2, sum: 1 << 64 }),
    ];
    commit.meta = vec![("regime".to_owned(), Bytes::from_static(b"\x00\xff")), ("none".to_owned(), Bytes::new())];
    testbed.store.commit(commit.clone()).await.unwrap();

    let store = testbed.reopened().await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.positions, commit.positions.iter().copied().collect());
    assert_eq!(loaded.log_floors, [(FIRST, 0), (SECOND, 0)].into());
    assert_eq!(loaded.digests, commit.digests.iter().copied().collect());
    assert_eq!(loaded.meta, commit.meta.iter().cloned().collect());
    assert_eq!(store.log(FIRST, 0, 10, usize::MAX).await.unwrap(), commit.operations);
    let records: Vec<_> = commit.records.iter().cloned().map(Some).collect();
    assert_eq!(store.records(&[put, delete]).await.unwrap(), records);
    let op_ids: Vec<_> = commit.idempotency.iter().map(|row| row.op_id).collect();
    assert_eq!(store.idempotency(&op_ids).await.unwrap(), commit.idempotency);
    assert_eq!(store.conflicts(0, 10).await.unwrap(), commit.conflicts);
    assert_eq!(store.quarantine(0, 10).await.unwrap(), commit.quarantine);
}

pub(super) async fn a_commit_that_fails_leaves_nothing(testbed: &Testbed) {
    let store = &testbed.store;
    let kept = key(1, "kept");
    store.commit(write(dot(FIRST, 1), &kept, Some("1"))).await.unwrap();
    let mut bad = write(dot(FIRST, 2), &key(1, "lost"), Some("2"));
    bad.records.extend(write(dot(FIRST, 2), &kept, Some("overwritten")).records);
    bad.operations.push(operation(dot(FIRST, 1), &kept, Some("a dot that is already there")));
    bad.digests = vec![((RegionId(1), 1), BucketDigest { rows: 1, sum: 1 })];
    bad.meta = vec![("name".to_owned(), Bytes::from_static(b"lost"))];
    bad.truncated = vec![(SECOND, 0)];
    assert!(matches!(store.commit(bad).await, Err(StoreError::Failed { .. })));

    let check = async |store: &Arc<dyn Store>| {
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.positions, [(FIRST, position(1))].into());
        assert!(loaded.meta.is_empty() && loaded.digests.is_empty());
        assert_eq!(store.log(FIRST, 0, 10, usize::MAX).await.unwrap().len(), 1);
        assert_eq!(store.operation_ids(None, 10).await.unwrap().len(), 1);
        let rows = store.scan(None, None, 10).await.unwrap();
        assert_eq!(rows, write(dot(FIRST, 1), &kept, Some("1")).records);
        // A refusal is not a broken disk: the store goes on.
        store.commit(Commit::default()).await.unwrap();
    };
    check(store).await;
    check(&testbed.reopened().await).await;
}

pub(super) async fn of_two_rows_under_one_key_the_last_wins(testbed: &Testbed) {
    let twice = key(1, "twice");
    let mut commit = write(dot(FIRST, 1), &twice, Some("1"));
    let second = write(dot(FIRST, 2), &twice, Some("2"));
    commit.operations.extend(second.operations);
    commit.records.extend(second.records.clone());
    commit.positions.extend(second.positions);
    commit.meta = vec![("n".to_owned(), Bytes::from_static(b"1")), ("n".to_owned(), Bytes::from_static(b"2"))];
    testbed.store.commit(commit).await.unwrap();
    assert_eq!(testbed.store.scan(None, None, 10).await.unwrap(), second.records);
    let loaded = testbed.store.load().await.unwrap();
    assert_eq!(loaded.positions[&FIRST], position(2));
    assert_eq!(loaded.meta["n"], "2");
}

pub(super) async fn an_operation_id_keeps_its_first_row(testbed: &Testbed) {
    let store = &testbed.store;
    let first = remembered(&operation(dot(FIRST, 1), &key(1, "first"), Some("1")));
    let mut second = remembered(&operation(dot(SECOND, 1), &key(1, "second"), Some("2")));
    second.op_id = first.op_id;
    let both = Commit { idempotency: vec![first.clone(), second.clone()], ..Commit::default() };
    store.commit(both).await.unwrap();
    store.commit(Commit { idempotency: vec![second], ..Commit::default() }).await.unwrap();
    assert_eq!(store.idempotency(&[first.op_id, first.op_id]).await.unwrap(), vec![first]);
}

pub(super) async fn lists_take_effect_in_their_order(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(FIRST, 1, 5)).await.unwrap();
    store.commit(writes(SECOND, 2, 5)).await.unwrap();
    // A tail is cut and another put in its place; a timeline is forgotten and starts again; a row is removed and set.
    let again = key(1, "k0004");
    let mut commit = write(dot(FIRST, 4), &again, Some("\"another history\""));
    commit.idempotency[0].op_id = longhaul_core::ids::OpId(uuid::Uuid::from_u128(42));
    commit.truncated = vec![(FIRST, 3)];
    commit.forgotten = vec![SECOND];
    commit.removed_records = vec![again.clone(), key(1, "k0005")];
    let other = write(dot(SECOND, 1), &key(2, "k0001"), Some("\"again\""));
    commit.operations.extend(other.operations);
    commit.positions.extend(other.positions);
    store.commit(commit.clone()).await.unwrap();

    let log = store.log(FIRST, 2, 10, usize::MAX).await.unwrap();
    assert_eq!(log.iter().map(|operation| operation.dot.seq).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(log[1], commit.operations[0]);
    assert_eq!(store.log(SECOND, 0, 10, usize::MAX).await.unwrap().len(), 1);
    assert_eq!(store.load().await.unwrap().positions, [(FIRST, position(4)), (SECOND, position(1))].into());
    let rows = store.records(&[again, key(1, "k0005")]).await.unwrap();
    assert_eq!(rows, [Some(commit.records[0].clone()), None]);
    let remembered = store.operation_ids(None, 100).await.unwrap();
    assert_eq!(remembered.len(), 3 + 1 + 5, "three of the first timeline, the new one, five of the second");
}
