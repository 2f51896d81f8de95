//! What a purge leaves, and where bytes are found.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::RegionId;

use super::Testbed;
use super::fixtures::{FIRST, SECOND, conflict, dot, key, op_id, position, quarantined, write, writes};
use crate::store::{BucketDigest, QuarantineState, Store};

pub(super) async fn a_purge_leaves_the_home_and_the_kept_positions(testbed: &Testbed) {
    let store = &testbed.store;
    let (ours, theirs) = (key(1, "k0001"), key(2, "k0001"));
    let mut commit = writes(FIRST, 1, 5);
    commit.conflicts =
        vec![conflict(&ours, dot(SECOND, 20), dot(FIRST, 1), 5), conflict(&theirs, dot(SECOND, 21), dot(FIRST, 2), 6)];
    commit.quarantine = vec![
        quarantined(dot(SECOND, 30), &ours, QuarantineState::Open),
        quarantined(dot(SECOND, 31), &theirs, QuarantineState::Open),
    ];
    let digest = BucketDigest { rows: 1, sum: 1 };
    commit.digests = vec![((RegionId(1), 7), digest), ((RegionId(2), 7), digest)];
    commit.meta = vec![("regime".to_owned(), Bytes::from_static(b"kept"))];
    store.commit(commit).await.unwrap();
    store.commit(writes(SECOND, 2, 5)).await.unwrap();
    store.purge(RegionId(1), &[FIRST]).await.unwrap();

    let check = async |store: &Arc<dyn Store>| {
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.positions, [(FIRST, position(5))].into());
        assert_eq!(loaded.log_floors, [(FIRST, 5)].into());
        assert_eq!(loaded.digests, [((RegionId(1), 7), digest)].into());
        assert_eq!(loaded.meta["regime"], "kept");
        let rows = store.scan(None, None, 100).await.unwrap();
        assert_eq!(rows, writes(FIRST, 1, 5).records);
        assert!(store.log(FIRST, 0, 100, usize::MAX).await.unwrap().is_empty());
        assert!(store.log(SECOND, 0, 100, usize::MAX).await.unwrap().is_empty());
        let remembered = store.idempotency(&[op_id(dot(FIRST, 1)), op_id(dot(SECOND, 1))]).await.unwrap();
        assert_eq!(remembered.into_iter().map(|row| row.key).collect::<Vec<_>>(), std::slice::from_ref(&ours));
        assert_eq!(store.conflicts(0, 9).await.unwrap().len(), 1);
        assert_eq!(store.quarantine(0, 9).await.unwrap()[0].operation.key(), Some(ours.clone()));
    };
    check(store).await;
    check(&testbed.reopened().await).await;
}

pub(super) async fn bytes_are_found_in_every_place_until_they_are_purged(testbed: &Testbed) {
    let store = &testbed.store;
    let canary = |name: &str| format!("canary-{name}-5f1e7c");
    // Long enough to be spread over pages, with the canary deep inside.
    let long = |name: &str| format!("\"{}{}{}\"", "-".repeat(9_000), canary(name), "+".repeat(9_000));
    let needles: Vec<Bytes> = ["ours", "theirs", "deleted", "id", "never"].map(|name| Bytes::from(canary(name))).into();
    store.commit(write(dot(FIRST, 1), &key(1, "a"), Some(&long("ours")))).await.unwrap();
    store.commit(write(dot(SECOND, 1), &key(2, "b"), Some(&long("theirs")))).await.unwrap();
    store.commit(write(dot(SECOND, 2), &key(2, "c"), Some(&long("deleted")))).await.unwrap();
    store.commit(write(dot(SECOND, 3), &key(2, "c"), None)).await.unwrap();
    store.commit(write(dot(SECOND, 4), &key(2, &canary("id")), Some("1"))).await.unwrap();

    let found = |seen: Vec<(usize, String)>| -> Vec<usize> {
        let mut needles: Vec<usize> = seen.into_iter().map(|(needle, _)| needle).collect();
        needles.dedup();
        needles
    };
    assert_eq!(found(store.find_bytes(&needles).await.unwrap()), [0, 1, 2, 3]);
    store.purge(RegionId(1), &[FIRST, SECOND]).await.unwrap();
    assert_eq!(found(store.find_bytes(&needles).await.unwrap()), [0]);
    store.commit(write(dot(FIRST, 2), &key(1, "d"), Some("1"))).await.unwrap();
    assert_eq!(found(testbed.reopened().await.find_bytes(&needles).await.unwrap()), [0]);
}
