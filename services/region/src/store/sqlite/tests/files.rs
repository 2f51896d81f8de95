//! What happens to the files: kills, damage, wrong files, full disks.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use longhaul_core::ids::RegionId;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{identity, open};
use crate::store::conformance::fixtures::{FIRST, SECOND, dot, key, write, writes};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::open::beside;
use crate::store::{Commit, Identity, Store as _, StoreError};

/// The files as a killed process leaves them.
fn copy(store: &SqliteStore, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    let copied = to.join("region.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(store.path(), suffix), beside(&copied, suffix)).unwrap();
    }
    copied
}

async fn refused(path: &Path, identity: Identity) -> (String, String) {
    match SqliteStore::open(path, identity).await {
        Err(StoreError::Unusable { path: named, reason, remedy }) => {
            assert_eq!(named, path.display().to_string());
            assert!(!reason.contains('\n') && !remedy.contains('\n'));
            (reason, remedy)
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("region.db")).await;
    for seq in 1..=60 {
        store.commit(write(dot(FIRST, seq), &key(1, &format!("k{seq}")), Some("1"))).await.unwrap();
        if seq == 20 {
            store.maintain().await.unwrap();
        }
        if seq.is_multiple_of(20) {
            let killed = open(&copy(&store, &folder.path().join(seq.to_string()))).await;
            assert_eq!(killed.load().await.unwrap().positions[&FIRST].seq, seq);
            assert_eq!(killed.log(FIRST, 0, 100, usize::MAX).await.unwrap().len() as u64, seq);
            assert_eq!(killed.stats().await.unwrap().records, seq);
        }
    }
}

#[tokio::test]
async fn a_torn_end_of_the_write_ahead_log_loses_whole_commits_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("region.db")).await;
    for seq in 1..=20 {
        store.commit(write(dot(FIRST, seq), &key(1, &format!("k{seq}")), Some("1"))).await.unwrap();
    }
    let bytes = std::fs::metadata(beside(store.path(), "-wal")).unwrap().len();
    for (n, cut) in (1..).zip([1, 100, 5_000, 50_000]) {
        let torn = copy(&store, &folder.path().join(n.to_string()));
        let log = std::fs::OpenOptions::new().write(true).open(beside(&torn, "-wal")).unwrap();
        log.set_len(bytes - cut).unwrap();
        let torn = open(&torn).await;
        let seq = torn.load().await.unwrap().positions[&FIRST].seq;
        assert!(seq < 20);
        assert_eq!(torn.log(FIRST, 0, 100, usize::MAX).await.unwrap().len() as u64, seq);
        assert_eq!(torn.scan(None, None, 100).await.unwrap().len() as u64, seq);
        assert_eq!(torn.operation_ids(None, 100).await.unwrap().len() as u64, seq);
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region.db");
    let store = open(&path).await;
    store.commit(writes(FIRST, 1, 500)).await.unwrap();
    store.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 40 * 4096);

    let half = folder.path().join("half.db");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&half, identity()).await.0.contains("truncated"));

    // Also with a log beside it that excuses a short file.
    std::fs::write(beside(&half, "-wal"), [0; 32]).unwrap();
    let (reason, remedy) = refused(&half, identity()).await;
    assert!(reason.contains("damaged"), "{reason}");
    assert!(remedy.contains("move it away"));

    for page in [1, 5, 20, 39] {
        let broken = folder.path().join(format!("broken-{page}.db"));
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&broken, bytes).unwrap();
        refused(&broken, identity()).await;
    }

    let empty = folder.path().join("empty.db");
    std::fs::write(&empty, []).unwrap();
    std::fs::write(beside(&empty, "-wal"), [1; 64]).unwrap();
    assert!(refused(&empty, identity()).await.0.contains("empty"));
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to have a header ".repeat(9)).unwrap();
    assert!(refused(&text, identity()).await.0.contains("not a store"));

    let other = folder.path().join("other.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&other).create_if_missing(true);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("CREATE TABLE theirs (a)").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let before = std::fs::read(&other).unwrap();
    assert!(refused(&other, identity()).await.0.contains("not a store"));
    assert_eq!(std::fs::read(&other).unwrap(), before);

    // A folder that is missing is made; one that cannot be made is named.
    open(&folder.path().join("new/folder/region.db")).await.close().await.unwrap();
    let (reason, remedy) = refused(&text.join("region.db"), identity()).await;
    assert!(reason.contains("cannot be made") && remedy.contains("may write"), "{reason}; {remedy}");
}

#[tokio::test]
async fn a_store_of_another_region_or_topology_or_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region.db");
    open(&path).await.close().await.unwrap();
    let region = Identity { region: RegionId(2), ..identity() };
    assert_eq!(refused(&path, region).await.0, "it belongs to region 1, not to 2");
    let topology = Identity { topology_fingerprint: "other".to_owned(), ..identity() };
    assert_eq!(refused(&path, topology).await.0, "it belongs to topology three-regions-1, not to other");

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations SELECT 999, 'later', installed_on, 1, checksum, 1 FROM _sqlx_migrations";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let (reason, remedy) = refused(&path, identity()).await;
    assert!(reason.contains("schema 999") && remedy.contains("newer"), "{reason}; {remedy}");
}

#[tokio::test]
async fn a_store_is_open_in_one_place_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region.db");
    let store = open(&path).await;
    assert!(refused(&path, identity()).await.0.contains("another process"));
    store.close().await.unwrap();
    assert!(matches!(store.commit(Commit::default()).await, Err(StoreError::Failed { .. })));
    assert!(matches!(store.load().await, Err(StoreError::Failed { .. })));
    open(&path).await;
}

#[tokio::test]
async fn a_full_disk_fails_the_commit_and_every_later_one_and_keeps_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region.db");
    let store = open(&path).await;
    store.commit(write(dot(FIRST, 1), &key(1, "kept"), Some("1"))).await.unwrap();
    // As many pages as there are: what a full disk says, without filling one.
    sqlx::query("PRAGMA max_page_count = 1").execute(&mut *store.writer().await.unwrap()).await.unwrap();
    let large = "x".repeat(64 * 1024);
    let Err(error) = store.commit(write(dot(FIRST, 2), &key(1, "lost"), Some(&large))).await else {
        panic!("there was room")
    };
    assert!(matches!(error, StoreError::Failed { .. }));
    assert!(error.to_string().contains("full") && error.to_string().contains("region.db"), "{error}");
    let later = store.commit(write(dot(FIRST, 2), &key(1, "small"), Some("1"))).await.unwrap_err();
    assert!(later.to_string().contains("an earlier write failed"), "{later}");
    assert_eq!(store.stats().await.unwrap().records, 1, "reads go on");
    store.close().await.unwrap();
    assert_eq!(open(&path).await.load().await.unwrap().positions[&FIRST].seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_is_whole_or_absent_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("region.db")).await;
    let (mut seq, mut dropped, mut kept) = (0, 0, 0);
    for polls in (0..200).map(|n| n % 25) {
        let mut batch = Commit::default();
        for _ in 0..3 {
            seq += 1;
            let one = write(dot(FIRST, seq), &key(1, &format!("k{seq}")), Some("1"));
            batch.operations.extend(one.operations);
            batch.records.extend(one.records);
            batch.positions = one.positions;
        }
        let mut commit = store.commit(batch);
        let mut done = false;
        for _ in 0..=polls {
            done = futures::poll!(&mut commit).is_ready();
            if done {
                break;
            }
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
        drop(commit);
        dropped += u32::from(!done);
        // The next transaction sees what became of it.
        store.commit(Commit::default()).await.unwrap();
        let position = store.load().await.unwrap().positions.get(&FIRST).map_or(0, |at| at.seq);
        if position == seq {
            kept += 1;
        } else {
            assert!(!done, "a commit that returned is there");
            assert_eq!(position, seq - 3, "whole or absent");
            seq = position;
        }
        assert_eq!(store.stats().await.unwrap().records, seq);
        assert_eq!(store.stats().await.unwrap().operations, seq);
    }
    assert!(dropped > 0 && kept > 0, "{dropped} were dropped, {kept} are there");
}

/// Writes until the write-ahead log is as long as it may get; how many operations that took.
async fn fill_log(store: &SqliteStore) -> u64 {
    let value = "x".repeat(60_000);
    let mut seq = 0;
    while store.files.log_bytes() <= super::super::checkpoint::LOG_BYTES_MAX {
        let mut batch = Commit::default();
        for _ in 0..100 {
            seq += 1;
            batch.operations.extend(write(dot(FIRST, seq), &key(1, "k"), Some(&value)).operations);
        }
        store.commit(batch).await.unwrap();
    }
    seq
}

#[tokio::test]
async fn the_write_ahead_log_is_cut_when_it_is_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("region.db")).await;
    let seq = fill_log(&store).await;
    store.maintain().await.unwrap();
    assert_eq!(store.files.log_bytes(), 0);
    assert_eq!(store.stats().await.unwrap().operations, seq);
}

#[tokio::test]
async fn a_long_read_delays_the_cut_of_the_write_ahead_log_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("region.db")).await;
    store.commit(write(dot(SECOND, 1), &key(2, "old"), Some("1"))).await.unwrap();
    let mut reader = SqliteConnectOptions::new().filename(store.path()).read_only(true).connect().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    let rows = async |reading: &mut SqliteConnection| {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM log").fetch_one(reading).await.unwrap()
    };
    assert_eq!(rows(&mut reading).await, 1);
    let seq = fill_log(&store).await;
    store.maintain().await.unwrap();
    assert!(store.files.log_bytes() > 0, "the reader still needs it");
    store.commit(write(dot(SECOND, 2), &key(2, "new"), Some("2"))).await.unwrap();
    assert_eq!(rows(&mut reading).await, 1, "what it began to read");
    drop(reading);
    store.maintain().await.unwrap();
    assert_eq!(store.files.log_bytes(), 0);
    assert_eq!(store.stats().await.unwrap().operations, seq + 2);
}

#[tokio::test]
async fn a_purge_leaves_no_foreign_byte_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("region.db");
    let store = open(&path).await;
    let secret = |n: u64| format!("\"secret-of-two-{n:04}\"");
    for seq in 1..=200 {
        store
            .commit(write(dot(FIRST, seq), &key(2, &format!("theirs-{}", seq % 50)), Some(&secret(seq))))
            .await
            .unwrap();
        if seq == 100 {
            store.maintain().await.unwrap();
        }
    }
    store.purge(RegionId(1), &[FIRST]).await.unwrap();
    assert!(store.find_bytes(&[Bytes::from_static(b"secret-of-two"), "theirs-".into()]).await.unwrap().is_empty());
    // Not by our own search alone.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(13).any(|window| window == b"secret-of-two"));
    }
}
