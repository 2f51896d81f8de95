//! Point reads, scans, counts, and reads beside the writer.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::{OpId, RecordKey, RegionId};
use longhaul_core::record::Record;

use super::Testbed;
use super::fixtures::{FIRST, SECOND, conflict, dot, key, quarantined, version, write, writes};
use crate::store::{Commit, QuarantineState, Store, StoreStats};

pub(super) async fn records_answer_in_the_order_of_the_keys(testbed: &Testbed) {
    testbed.store.commit(writes(FIRST, 1, 600)).await.unwrap();
    let mut keys: Vec<RecordKey> = (1..=600).rev().map(|n| key(1, &format!("k{n:04}"))).collect();
    keys.insert(1, key(1, "absent"));
    keys.insert(2, key(2, "k0001"));
    keys.push(key(1, "k0001"));
    let rows = testbed.store.records(&keys).await.unwrap();
    assert_eq!(rows.len(), keys.len());
    for (index, (key, row)) in keys.iter().zip(&rows).enumerate() {
        let expected = if matches!(index, 1 | 2) { None } else { Some(key) };
        assert_eq!(row.as_ref().map(|row| &row.key), expected);
    }
    assert!(testbed.store.records(&[]).await.unwrap().is_empty());
}

async fn pages(store: &Arc<dyn Store>, home: Option<RegionId>, limit: usize) -> Vec<RecordKey> {
    let mut keys: Vec<RecordKey> = Vec::new();
    loop {
        let rows: Vec<Record> = store.scan(home, keys.last(), limit).await.unwrap();
        assert!(rows.len() <= limit);
        if rows.is_empty() {
            return keys;
        }
        keys.extend(rows.into_iter().map(|row| row.key));
    }
}

pub(super) async fn a_scan_pages_through_one_home_or_all(testbed: &Testbed) {
    let store = &testbed.store;
    let mut expected = Vec::new();
    for (seq, (home, id)) in (1..).zip([(2, "a"), (1, "b"), (1, "B"), (1, "a~"), (256, "0"), (2, "b"), (1, "a")]) {
        expected.push(key(home, id));
        let value = if id == "b" { None } else { Some("1") };
        store.commit(write(dot(FIRST, seq), &key(home, id), value)).await.unwrap();
    }
    expected.sort();
    for limit in [1, 2, 3, 100] {
        assert_eq!(pages(store, None, limit).await, expected, "tombstones included, pages of {limit}");
        for home in [1, 2, 3, 256] {
            let of_home: Vec<_> = expected.iter().filter(|key| key.home == RegionId(home)).cloned().collect();
            assert_eq!(pages(store, Some(RegionId(home)), limit).await, of_home);
        }
    }
    let after = key(1, "zzz");
    let of_two: Vec<_> = store.scan(Some(RegionId(2)), Some(&after), 9).await.unwrap();
    assert_eq!(of_two.len(), 2, "the key lies before the home");
    assert!(store.scan(Some(RegionId(1)), Some(&key(2, "a")), 9).await.unwrap().is_empty());
}

pub(super) async fn tombstones_are_listed_oldest_first_up_to_a_version(testbed: &Testbed) {
    let store = &testbed.store;
    let mut expected = Vec::new();
    for seq in 1..=6 {
        let commit = write(dot(FIRST, seq), &key(1, &format!("z{}", 9 - seq)), None);
        expected.extend(commit.records.clone());
        store.commit(commit).await.unwrap();
    }
    store.commit(write(dot(FIRST, 7), &key(1, "alive"), Some("1"))).await.unwrap();
    // One comes back to life, one is collected.
    store.commit(write(dot(FIRST, 8), &expected[1].key, Some("1"))).await.unwrap();
    store.commit(Commit { removed_records: vec![expected[3].key.clone()], ..Commit::default() }).await.unwrap();
    let expected = [expected[0].clone(), expected[2].clone(), expected[4].clone()];
    assert_eq!(store.tombstones(version(1005), 10).await.unwrap(), expected);
    assert_eq!(store.tombstones(version(1005), 2).await.unwrap(), expected[..2]);
    assert!(store.tombstones(version(1000), 10).await.unwrap().is_empty());
}

pub(super) async fn operation_ids_are_paged_in_order(testbed: &Testbed) {
    let store = &testbed.store;
    store.commit(writes(SECOND, 2, 30)).await.unwrap();
    store.commit(writes(FIRST, 1, 30)).await.unwrap();
    let (mut all, mut after): (Vec<_>, Option<OpId>) = (Vec::new(), None);
    loop {
        let page = store.operation_ids(after, 7).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = Some(last.op_id);
        all.extend(page);
    }
    assert_eq!(all.len(), 60);
    assert!(all.is_sorted_by_key(|row| row.op_id));
    assert_eq!((all[0].dot.as_str(), all[0].home, all[0].version), ("1.1:1", RegionId(1), version(1001)));
    assert_eq!((all[59].dot.as_str(), all[59].home), ("2.1:30", RegionId(2)));
}

pub(super) async fn counts_follow_the_rows(testbed: &Testbed) {
    let store = &testbed.store;
    let mut commit = writes(FIRST, 1, 5);
    commit.quarantine = vec![
        quarantined(dot(SECOND, 1), &key(1, "a"), QuarantineState::Open),
        quarantined(dot(SECOND, 2), &key(1, "a"), QuarantineState::Discarded),
    ];
    commit.conflicts = vec![conflict(&key(1, "a"), dot(SECOND, 3), dot(FIRST, 1), 1)];
    store.commit(commit).await.unwrap();
    store.commit(write(dot(FIRST, 6), &key(1, "k0001"), None)).await.unwrap();
    let stats = store.stats().await.unwrap();
    let expected = StoreStats {
        records: 4,
        tombstones: 1,
        operations: 6,
        conflicts: 1,
        quarantined: 2,
        quarantine_open: 1,
        bytes: stats.bytes,
    };
    assert_eq!(stats, expected);
}

/// Commits change two rows, a position and a named value together; a reader must never see them apart.
pub(super) async fn a_reader_beside_the_writer_sees_whole_commits(testbed: &Testbed) {
    const COMMITS: u64 = 100;
    let store = &testbed.store;
    let keys = [key(1, "left"), key(2, "right")];
    let write_all = async {
        for seq in 1..=COMMITS {
            let value = seq.to_string();
            let mut commit = write(dot(FIRST, seq), &keys[0], Some(&value));
            commit.records.extend(write(dot(FIRST, seq), &keys[1], Some(&value)).records);
            commit.meta = vec![("seq".to_owned(), Bytes::from(value.into_bytes()))];
            store.commit(commit).await.unwrap();
        }
    };
    let read_all = async {
        let mut last = 0;
        while last < COMMITS {
            let rows = store.records(&keys).await.unwrap();
            let seqs: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| row.dot.seq)).collect();
            assert_eq!(seqs[0], seqs[1]);
            let loaded = store.load().await.unwrap();
            let position = loaded.positions.get(&FIRST).map_or(0, |at| at.seq);
            let meta = loaded.meta.get("seq").map_or_else(|| Bytes::from_static(b"0"), Clone::clone);
            assert_eq!(meta, position.to_string());
            assert!(position >= last && position >= seqs[0].unwrap_or(0), "what was seen once stays");
            last = position;
            tokio::task::yield_now().await;
        }
    };
    futures::join!(write_all, read_all);
}
