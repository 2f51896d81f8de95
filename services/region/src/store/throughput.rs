//! How fast commits are, of any store. Not a check: run `commits_per_second` by name, optimized, with `--ignored
//! --nocapture`.

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longhaul_core::ids::{OpId, RegionId};
use longhaul_core::limits::COMMIT_BATCH_MAX;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use super::conformance::fixtures::{FIRST, dot, key, position, write};
use super::sqlite::SqliteStore;
use super::{BucketDigest, Commit, Identity, Store};

const VALUE_BYTES: usize = 256;
const DIGESTS_PER_COMMIT: u16 = 8;
const KEYS: u32 = 100_000;

/// What decides how many pages a commit touches.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Rising new record ids; otherwise updates of random ones among [`KEYS`].
    new_keys: bool,
    /// Operation ids that rise with time, as UUIDs of version 7 do; otherwise random ones.
    ordered_ids: bool,
}

/// What the writer commits for a full queue.
fn batch(random: &mut SmallRng, seq: &mut u64, load: Load) -> Commit {
    let mut commit = Commit::default();
    let mut value = "x".repeat(VALUE_BYTES);
    for _ in 0..COMMIT_BATCH_MAX {
        *seq += 1;
        let id = if load.new_keys {
            format!("order-{seq:012}")
        } else {
            format!("order-{:08}", random.random_range(0..KEYS))
        };
        value.replace_range(0..12, &format!("{seq:012}"));
        let mut one = write(dot(FIRST, *seq), &key(1, &id), Some(&value));
        let op_id = OpId(if load.ordered_ids {
            Uuid::from_u64_pair(*seq / 16, random.random())
        } else {
            Uuid::from_u128(random.random())
        });
        one.operations[0].op_id = op_id;
        one.idempotency[0].op_id = op_id;
        commit.operations.append(&mut one.operations);
        commit.records.append(&mut one.records);
        commit.idempotency.append(&mut one.idempotency);
    }
    commit.positions = vec![(FIRST, position(*seq))];
    let digest = BucketDigest { rows: *seq, sum: u128::from(*seq) };
    commit.digests = (0..DIGESTS_PER_COMMIT).map(|bucket| ((RegionId(1), bucket), digest)).collect();
    commit.meta = vec![("clock_upper".to_owned(), Bytes::from_static(b"12345678"))];
    commit
}

/// Measures each load on a store that `empty` opens.
pub(super) async fn measure(empty: impl AsyncFn(usize) -> Arc<dyn Store>) {
    let loads = [(true, true), (true, false), (false, true), (false, false)];
    for (n, (new_keys, ordered_ids)) in loads.into_iter().enumerate() {
        let store = empty(n).await;
        measure_one(&*store, Load { new_keys, ordered_ids }, Duration::from_secs(5)).await;
        store.close().await.unwrap();
    }
}

async fn measure_one(store: &dyn Store, load: Load, length: Duration) {
    let mut random = SmallRng::seed_from_u64(1);
    let (mut seq, mut busy, mut times) = (0, Duration::ZERO, Vec::new());
    let mut maintained = Instant::now();
    while busy < length {
        let commit = batch(&mut random, &mut seq, load);
        let started = Instant::now();
        store.commit(commit).await.unwrap();
        times.push(started.elapsed());
        busy += started.elapsed();
        if maintained.elapsed() > Duration::from_secs(1) {
            let started = Instant::now();
            store.maintain().await.unwrap();
            busy += started.elapsed();
            maintained = Instant::now();
        }
    }
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!(
        "{load:?}: {:.0} operations/s; commits p50 {:?} p99 {:?} max {:?}; {} MB",
        seq as f64 / busy.as_secs_f64(),
        at(0.5),
        at(0.99),
        times[times.len() - 1],
        store.stats().await.unwrap().bytes >> 20,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of the disk, for people"]
async fn commits_per_second() {
    let folder = tempfile::tempdir().unwrap();
    measure(async |n| {
        let identity = Identity { topology_fingerprint: "measured".to_owned(), region: RegionId(1) };
        let store = SqliteStore::open(folder.path().join(format!("{n}.db")), identity).await.unwrap();
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}
