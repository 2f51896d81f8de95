//! Random histories, run against the store in memory (the model) and a store on disk: every read must agree.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::record::Record;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::conformance::fixtures::{
    FIRST, SECOND, conflict, dot, key, op_id, operation, position, quarantined, remembered,
};
use super::conformance::{Reopen, Testbed};
use super::memory::MemoryStore;
use super::sqlite::SqliteStore;
use super::{BucketDigest, Commit, Identity, QuarantineState, Store};

const THIRD: Timeline = Timeline::new(2, 7);
const TIMELINES: [Timeline; 3] = [FIRST, SECOND, THIRD];
const HOMES: u16 = 3;
const KEYS: u16 = 40;
const HISTORIES: u32 = 24;
const STEPS: usize = 60;
/// Most operations in one write: with the shares below more than 5,000 in all histories.
const WRITES_MAX: u16 = 18;

/// One thing that happens to a store.
#[derive(Debug, Clone)]
enum Step {
    /// Appends to a timeline; `(key, kind)`, where kind decides about deletes, sizes and repeated operation ids.
    Write {
        timeline: usize,
        writes: Vec<(u16, u16)>,
    },
    Cut {
        timeline: usize,
        back: u64,
    },
    Trim {
        timeline: usize,
        back: u64,
    },
    Forget {
        timeline: usize,
        jump: u64,
    },
    Remove {
        keys: Vec<u16>,
    },
    Aside {
        timeline: usize,
        seq: u64,
        other: u64,
        state: u8,
    },
    Digest {
        home: u16,
        bucket: u16,
        sum: u128,
    },
    Purge {
        home: u16,
        keep: usize,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let timeline = 0..TIMELINES.len();
    let write = (timeline.clone(), proptest::collection::vec((0..KEYS, any::<u16>()), 1..=usize::from(WRITES_MAX)));
    let step = prop_oneof![
        12 => write.prop_map(|(timeline, writes)| Step::Write { timeline, writes }),
        2 => (timeline.clone(), 0..9_u64).prop_map(|(timeline, back)| Step::Cut { timeline, back }),
        2 => (timeline.clone(), 0..30_u64).prop_map(|(timeline, back)| Step::Trim { timeline, back }),
        1 => (timeline.clone(), 0..9_u64).prop_map(|(timeline, jump)| Step::Forget { timeline, jump }),
        2 => proptest::collection::vec(0..KEYS, 1..20).prop_map(|keys| Step::Remove { keys }),
        3 => (timeline, 1..9_u64, 1..4_u64, 0..3_u8)
            .prop_map(|(timeline, seq, other, state)| Step::Aside { timeline, seq, other, state }),
        2 => (1..=HOMES, 0..4_u16, any::<u128>()).prop_map(|(home, bucket, sum)| Step::Digest { home, bucket, sum }),
        1 => (1..=HOMES, 0..=TIMELINES.len()).prop_map(|(home, keep)| Step::Purge { home, keep }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, STEPS..=STEPS)
}

fn nth_key(n: u16) -> RecordKey {
    key(1 + n % HOMES, &format!("k{n}"))
}

/// A few shared ids, so that some come twice.
fn shared_op_id(kind: u16) -> OpId {
    OpId(uuid::Uuid::from_u128(u128::from(kind % 32)))
}

/// Both stores and the ends of the timelines.
struct Pair {
    model: MemoryStore,
    store: Arc<dyn Store>,
    reopen: Reopen,
    ends: [u64; TIMELINES.len()],
    written: u64,
}

fn identity() -> Identity {
    Identity { topology_fingerprint: "equivalence".to_owned(), region: RegionId(1) }
}

impl Pair {
    fn new(Testbed { store, reopen }: Testbed) -> Self {
        Self { model: MemoryStore::new(), store, reopen, ends: [0; TIMELINES.len()], written: 0 }
    }

    async fn commit(&self, commit: Commit) {
        self.model.commit(commit.clone()).await.unwrap();
        self.store.commit(commit).await.unwrap();
    }

    fn write(&mut self, timeline: usize, writes: Vec<(u16, u16)>) -> Commit {
        let mut commit = Commit::default();
        for (n, kind) in writes {
            self.ends[timeline] += 1;
            self.written += 1;
            let value = "v".repeat(usize::from(kind) % 3000);
            let value = (kind % 4 != 0).then_some(value.as_str());
            let mut operation = operation(dot(TIMELINES[timeline], self.ends[timeline]), &nth_key(n), value);
            // Versions are unique, as the clock makes them.
            operation.version.time_ns = self.written;
            if kind % 5 == 0 {
                operation.op_id = shared_op_id(kind);
            }
            commit.records.extend(Record::from_operation(&operation));
            commit.idempotency.push(remembered(&operation));
            commit.operations.push(operation);
        }
        commit.positions = vec![(TIMELINES[timeline], position(self.ends[timeline]))];
        commit.meta = vec![("last".to_owned(), Bytes::from(self.ends[timeline].to_be_bytes().to_vec()))];
        commit
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write { timeline, writes } => {
                let commit = self.write(timeline, writes);
                self.commit(commit).await;
            }
            Step::Cut { timeline, back } => {
                let seq = self.ends[timeline].saturating_sub(back);
                self.ends[timeline] = seq;
                let truncated = vec![(TIMELINES[timeline], seq)];
                let positions = vec![(TIMELINES[timeline], position(seq))];
                self.commit(Commit { truncated, positions, ..Commit::default() }).await;
            }
            Step::Trim { timeline, back } => {
                let bound = [(TIMELINES[timeline], self.ends[timeline].saturating_sub(back))];
                self.model.trim_log(&bound).await.unwrap();
                self.store.trim_log(&bound).await.unwrap();
            }
            Step::Forget { timeline, jump } => {
                self.ends[timeline] += jump;
                let jumped = (TIMELINES[timeline], position(self.ends[timeline]));
                let positions = if jump > 0 { vec![jumped] } else { Vec::new() };
                self.commit(Commit { forgotten: vec![TIMELINES[timeline]], positions, ..Commit::default() }).await;
            }
            Step::Remove { keys } => {
                let removed_records = keys.into_iter().map(nth_key).collect();
                self.commit(Commit { removed_records, ..Commit::default() }).await;
            }
            Step::Aside { timeline, seq, other, state } => {
                let (loser, winner) = (dot(TIMELINES[timeline], seq), dot(FIRST, other));
                let state =
                    [QuarantineState::Open, QuarantineState::Merged, QuarantineState::Discarded][usize::from(state)];
                let of = nth_key(seq as u16);
                let conflicts = vec![conflict(&of, loser, winner, other)];
                self.commit(Commit {
                    conflicts,
                    quarantine: vec![quarantined(loser, &of, state)],
                    ..Commit::default()
                })
                .await;
            }
            Step::Digest { home, bucket, sum } => {
                let digests = vec![((RegionId(home), bucket), BucketDigest { rows: u64::from(bucket), sum })];
                self.commit(Commit { digests, ..Commit::default() }).await;
            }
            Step::Purge { home, keep } => {
                self.model.purge(RegionId(home), &TIMELINES[..keep]).await.unwrap();
                self.store.purge(RegionId(home), &TIMELINES[..keep]).await.unwrap();
            }
            Step::Reopen => {
                self.store = (self.reopen)(Arc::clone(&self.store)).await;
            }
        }
    }

    async fn compare(&self) {
        macro_rules! same {
            ($method:ident($($argument:expr),*)) => {
                assert_eq!(
                    self.store.$method($($argument),*).await.unwrap(),
                    self.model.$method($($argument),*).await.unwrap(),
                    stringify!($method($($argument),*))
                )
            };
        }
        let (loaded, model) = (self.store.load().await.unwrap(), self.model.load().await.unwrap());
        assert_eq!(loaded.positions, model.positions);
        assert_eq!(loaded.log_floors, model.log_floors);
        assert_eq!(loaded.meta, model.meta);
        assert_eq!(loaded.digests, model.digests);
        let keys: Vec<RecordKey> = (0..KEYS).map(nth_key).collect();
        same!(records(&keys));
        let mut op_ids: Vec<OpId> = (0..32).map(shared_op_id).collect();
        for (timeline, end) in TIMELINES.into_iter().zip(self.ends) {
            op_ids.extend((1..=end).map(|seq| op_id(dot(timeline, seq))));
            for after in [0, end / 2, end] {
                same!(log(timeline, after, 1000, usize::MAX));
                same!(log(timeline, after, 5, usize::MAX));
                same!(log(timeline, after, 1000, 5_000));
            }
        }
        same!(idempotency(&op_ids));
        for home in [None, Some(RegionId(1)), Some(RegionId(2)), Some(RegionId(3))] {
            same!(scan(home, None, 1000));
            same!(scan(home, Some(&keys[16]), 7));
        }
        for written in [0, self.written / 2, self.written] {
            let mut bound = operation(dot(FIRST, 1), &keys[0], None).version;
            bound.time_ns = written;
            same!(tombstones(bound, 1000));
            same!(tombstones(bound, 3));
        }
        same!(conflicts(0, 1000));
        same!(conflicts(2, 3));
        same!(quarantine(0, 1000));
        same!(quarantine(2, 3));
        same!(operation_ids(None, 10_000));
        same!(operation_ids(Some(op_ids[7]), 20));
        let mut stats = self.store.stats().await.unwrap();
        assert!(stats.bytes > 0);
        stats.bytes = 0;
        assert_eq!(stats, self.model.stats().await.unwrap());
    }
}

/// Runs random histories against stores that `empty` opens; each is the argument's number.
pub(super) fn agree<F: Future<Output = Testbed>>(histories: u32, written_min: u64, empty: impl Fn(u32) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (number, written) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let config = Config { cases: histories, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&steps(), |steps| {
        number.set(number.get() + 1);
        runtime.block_on(async {
            let mut pair = Pair::new(empty(number.get()).await);
            for (n, step) in steps.into_iter().enumerate() {
                pair.step(step).await;
                if n % 10 == 9 {
                    pair.compare().await;
                }
            }
            pair.compare().await;
            pair.store.close().await.unwrap();
            written.set(written.get() + pair.written);
        });
        Ok(())
    });
    outcome.unwrap();
    assert!(written.get() >= written_min, "the histories wrote only {} operations", written.get());
}

#[test]
fn a_store_in_a_file_answers_like_the_model_after_any_history() {
    let folder = tempfile::tempdir().unwrap();
    agree(HISTORIES, 5_000, |number| {
        let path = folder.path().join(format!("{number}.db"));
        async move {
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, identity()).await.unwrap());
            let reopen = Box::new(move |last: Arc<dyn Store>| {
                let path = path.clone();
                Box::pin(async move {
                    last.close().await.unwrap();
                    drop(last);
                    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, identity()).await.unwrap());
                    store
                }) as std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>>>>
            });
            Testbed { store, reopen }
        }
    });
}
