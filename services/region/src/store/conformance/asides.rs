//! Conflicts and quarantine.

use super::Testbed;
use super::fixtures::{FIRST, SECOND, conflict, dot, key, quarantined};
use crate::store::{Commit, QuarantineState};

pub(super) async fn a_conflict_is_kept_once_and_listed_newest_first(testbed: &Testbed) {
    let store = &testbed.store;
    let record = key(1, "contended");
    let rows: Vec<_> = (1..=5)
        // Two of them were found in the same nanosecond.
        .map(|seq| conflict(&record, dot(SECOND, seq), dot(FIRST, 9 - seq), 100 + seq / 2))
        .collect();
    store.commit(Commit { conflicts: rows.clone(), ..Commit::default() }).await.unwrap();
    let again = conflict(&record, dot(SECOND, 1), dot(FIRST, 8), 999);
    store.commit(Commit { conflicts: vec![again.clone(), again], ..Commit::default() }).await.unwrap();

    let store = testbed.reopened().await;
    let newest_first: Vec<_> = rows.into_iter().rev().collect();
    assert_eq!(store.conflicts(0, 100).await.unwrap(), newest_first);
    assert_eq!(store.conflicts(1, 2).await.unwrap(), newest_first[1..3]);
    assert!(store.conflicts(5, 2).await.unwrap().is_empty());
}

pub(super) async fn a_quarantined_row_is_updated_in_place(testbed: &Testbed) {
    let store = &testbed.store;
    let record = key(1, "aside");
    let open: Vec<_> =
        [4, 2, 3].map(|seq| quarantined(dot(SECOND, seq), &record, QuarantineState::Open)).into_iter().collect();
    store.commit(Commit { quarantine: open, ..Commit::default() }).await.unwrap();
    let merged = quarantined(dot(SECOND, 3), &record, QuarantineState::Merged);
    store.commit(Commit { quarantine: vec![merged.clone()], ..Commit::default() }).await.unwrap();

    let store = testbed.reopened().await;
    let rows = store.quarantine(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.operation.dot.seq).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(rows[1], merged);
    assert_eq!(store.quarantine(1, 1).await.unwrap(), [merged]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.quarantine_open), (3, 2));
}
