//! The operation log: pages, tails, floors.

use std::sync::Arc;

use super::Testbed;
use super::fixtures::{FIRST, SECOND, dot, marker, op_id, position, writes};
use crate::store::{Commit, Store};

pub(super) async fn a_log_is_paged_by_count_and_by_bytes(testbed: &Testbed) {
    let store = &testbed.store;
    let mut commit = writes(FIRST, 1, 300);
    commit.operations.push(marker(dot(FIRST, 301)));
    let all = commit.operations.clone();
    store.commit(commit).await.unwrap();
    store.commit(writes(SECOND, 2, 3)).await.unwrap();

    assert_eq!(store.log(FIRST, 0, 1000, usize::MAX).await.unwrap(), all);
    assert_eq!(store.log(FIRST, 10, 20, usize::MAX).await.unwrap(), all[10..30]);
    let three = all[5..8].iter().map(longhaul_core::operation::Operation::wire_bytes).sum();
    assert_eq!(store.log(FIRST, 5, 1000, three).await.unwrap(), all[5..8]);
    assert_eq!(store.log(FIRST, 5, 1000, three - 1).await.unwrap(), all[5..7]);
    assert_eq!(store.log(FIRST, 5, 1000, 0).await.unwrap(), all[5..6], "one, however large");
    assert!(store.log(FIRST, 301, 1000, usize::MAX).await.unwrap().is_empty());
    assert!(store.log(FIRST, u64::MAX, 1000, usize::MAX).await.unwrap().is_empty());
}

pub(super) async fn a_truncated_tail_takes_its_operation_ids_along(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(FIRST, 1, 10)).await.unwrap();
    store.commit(writes(SECOND, 2, 10)).await.unwrap();
    let cut = Commit { truncated: vec![(FIRST, 6)], positions: vec![(FIRST, position(6))], ..Commit::default() };
    store.commit(cut).await.unwrap();

    let check = async |store: &Arc<dyn Store>| {
        assert_eq!(store.log(FIRST, 0, 100, usize::MAX).await.unwrap().len(), 6);
        assert_eq!(store.log(SECOND, 0, 100, usize::MAX).await.unwrap().len(), 10);
        let ids = [op_id(dot(FIRST, 6)), op_id(dot(FIRST, 7)), op_id(dot(SECOND, 7))];
        let kept: Vec<_> = store.idempotency(&ids).await.unwrap().into_iter().map(|row| row.dot).collect();
        assert_eq!(kept, [dot(FIRST, 6), dot(SECOND, 7)]);
    };
    check(store).await;
    check(&testbed.reopened().await).await;
}

pub(super) async fn trimming_raises_the_floor_and_keeps_operation_ids(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(FIRST, 1, 10)).await.unwrap();
    store.commit(writes(SECOND, 2, 10)).await.unwrap();
    store.trim_log(&[(FIRST, 4), (SECOND, 10)]).await.unwrap();
    store.trim_log(&[(FIRST, 2)]).await.unwrap();

    let store = testbed.reopened().await;
    assert_eq!(store.load().await.unwrap().log_floors, [(FIRST, 4), (SECOND, 10)].into());
    let log = store.log(FIRST, 0, 100, usize::MAX).await.unwrap();
    assert_eq!(log.iter().map(|operation| operation.dot.seq).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
    assert!(store.log(SECOND, 0, 100, usize::MAX).await.unwrap().is_empty());
    assert_eq!(store.operation_ids(None, 100).await.unwrap().len(), 20);
    assert_eq!(store.stats().await.unwrap().operations, 6);
}

pub(super) async fn a_forgotten_timeline_leaves_records_and_operation_ids(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(FIRST, 1, 10)).await.unwrap();
    store.commit(writes(SECOND, 2, 10)).await.unwrap();
    store.commit(Commit { forgotten: vec![FIRST], ..Commit::default() }).await.unwrap();

    let store = testbed.reopened().await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.positions, [(SECOND, position(10))].into());
    assert_eq!(loaded.log_floors, [(SECOND, 0)].into());
    assert!(store.log(FIRST, 0, 100, usize::MAX).await.unwrap().is_empty());
    assert_eq!(store.scan(None, None, 100).await.unwrap().len(), 20);
    assert_eq!(store.operation_ids(None, 100).await.unwrap().len(), 20);
}

pub(super) async fn a_snapshot_moves_the_floor_to_the_position(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(FIRST, 1, 10)).await.unwrap();
    let jump = Commit { forgotten: vec![FIRST], positions: vec![(FIRST, position(500))], ..Commit::default() };
    store.commit(jump).await.unwrap();
    assert_eq!(store.load().await.unwrap().log_floors[&FIRST], 500);
    let next = Commit {
        operations: vec![marker(dot(FIRST, 501))],
        positions: vec![(FIRST, position(501))],
        ..Commit::default()
    };
    store.commit(next).await.unwrap();
    assert_eq!(testbed.reopened().await.load().await.unwrap().log_floors[&FIRST], 500);
}
