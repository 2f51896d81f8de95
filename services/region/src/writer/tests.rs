//! What snapshots leave behind when their source is lost, and what repair takes.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_core::chain;
use longhaul_core::ids::{Dot, OpId, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::{Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::replication::snapshot::SnapshotHeader;
use longhaul_core::replication::{Position, Positions};
use longhaul_core::transition::{Author, rejoin_member};
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use uuid::Uuid;

use super::bench::Bench;
use super::recover::recover;
use super::{SnapshotChunk, meta};
use crate::state::{Blocker, SharedStore};
use crate::store::Store;

const SOURCE: Timeline = Timeline::new(2, 1);
const LOST: Timeline = Timeline::new(3, 1);

impl Bench {
    fn row(&self, dot: Dot, value: &'static [u8]) -> Record {
        let time_ns = self.region.clock.wall_ns();
        let operation = Operation {
            dot,
            epoch: self.region.regime().epoch,
            kind: OperationKind::Put,
            home: key().home,
            id: Some(key().id),
            value: Some(Bytes::from_static(value)),
            version: Version { time_ns, count: 0, region: dot.timeline.region },
            context: VersionVector::default(),
            op_id: OpId(Uuid::from_u64_pair(u64::from(dot.timeline.region.0), dot.seq)),
            accepted_ns: time_ns,
            trace: None,
            merged_from: None,
            chain: chain::START,
        };
        Record::from_operation(&operation).unwrap()
    }

    /// A snapshot of region 2 at 5 of its timeline, with one row.
    async fn merge(&self, row: Record) {
        self.merge_from(vec![row], &[]).await;
    }

    /// A snapshot of region 2 at 5 of its timeline, which lacks records of some homes.
    async fn merge_from(&self, rows: Vec<Record>, lacking: &[RegionId]) {
        let version = Version { time_ns: self.region.clock.wall_ns(), count: 0, region: RegionId(2) };
        let at = Position { seq: 5, visible: 5, version, chain: chain::START };
        let header = Arc::new(SnapshotHeader {
            region: RegionId(2),
            epoch: self.region.regime().epoch,
            dataset_generation: 1,
            positions: Positions::from([(SOURCE, at)]),
            hlc: version,
        });
        let chunk = SnapshotChunk {
            header: Arc::clone(&header),
            home: None,
            after: None,
            up_to: None,
            rows,
            lacking: lacking.iter().copied().collect(),
        };
        self.region.writer.snapshot_chunk(chunk).await.unwrap().unwrap();
        self.region.writer.snapshot_finish(header, None).await.unwrap().unwrap();
    }

    /// Region 3 is lost, and its timeline sealed.
    async fn seal(&self, cut: u64) -> u64 {
        let author = Author { id: Uuid::nil(), by: RegionId(2), reason: "lost".to_owned(), trace: None };
        let known = VersionVector::from_iter([(LOST, cut)]);
        let next = rejoin_member(&self.region.regime(), RegionId(3), &known, &author).unwrap();
        assert_eq!(next.cuts.get(LOST), cut);
        self.region.writer.adopt(next).await.unwrap().quarantined
    }

    async fn record(&self) -> Option<Record> {
        self.store.records(&[key()]).await.unwrap().remove(0)
    }

    async fn rows_ahead(&self) -> VersionVector {
        let loaded = self.store.load().await.unwrap();
        loaded.meta.get(meta::ROWS_AHEAD).map(|bytes| postcard::from_bytes(bytes).unwrap()).unwrap_or_default()
    }

    fn repairs(&self) -> bool {
        self.region.blockers().contains(&Blocker::Repairing)
    }
}

fn key() -> RecordKey {
    RecordKey { home: RegionId(2), id: RecordId::new("a").unwrap() }
}

#[tokio::test]
async fn a_row_that_came_ahead_of_the_log_goes_when_its_timeline_is_sealed_below_it() {
    let bench = Bench::start().await;
    bench.merge(bench.row(Dot { timeline: LOST, seq: 9 }, b"1")).await;
    assert!(bench.record().await.is_some());
    assert_eq!(bench.rows_ahead().await.get(LOST), 9, "remembered durably");
    assert_eq!(bench.seal(4).await, 1);
    assert_eq!((bench.record().await, bench.rows_ahead().await.get(LOST)), (None, 0));
    let rows = bench.store.quarantine(0, 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].operation.dot.seq, rows[0].repaired), (1, 9, false));
    assert!(bench.repairs(), "what it replaced is fetched again before the region serves");
    let shared: SharedStore = Arc::new(bench.store.clone());
    let again = recover(&bench.region.config, &shared, &bench.region.clock).await.unwrap();
    assert!(again.needs_repair(), "after a crash too");
}

#[tokio::test]
async fn a_row_that_came_ahead_of_the_log_stays_when_its_timeline_is_sealed_above_it() {
    let bench = Bench::start().await;
    bench.merge(bench.row(Dot { timeline: LOST, seq: 9 }, b"1")).await;
    assert_eq!(bench.seal(9).await, 0);
    assert_eq!(bench.record().await.map(|row| row.dot.seq), Some(9));
    assert!(!bench.repairs());
}

#[tokio::test]
async fn a_row_that_the_snapshot_covers_is_not_ahead() {
    let bench = Bench::start().await;
    bench.merge(bench.row(Dot { timeline: SOURCE, seq: 5 }, b"1")).await;
    assert_eq!(bench.rows_ahead().await, VersionVector::default());
}

#[tokio::test]
async fn a_row_that_a_snapshot_lacks_was_deleted_unless_its_source_has_purged_the_home() {
    let bench = Bench::start().await;
    bench.merge(bench.row(Dot { timeline: SOURCE, seq: 5 }, b"1")).await;
    bench.merge_from(Vec::new(), &[key().home]).await;
    assert!(bench.record().await.is_some());
    bench.merge_from(Vec::new(), &[RegionId(3)]).await;
    assert!(bench.record().await.is_none());
}

#[tokio::test]
async fn repair_takes_no_row_that_the_own_log_does_not_cover_and_asks_again() {
    let bench = Bench::start().await;
    bench.merge(bench.row(Dot { timeline: LOST, seq: 9 }, b"1")).await;
    bench.seal(4).await;
    let uncovered = bench.row(Dot { timeline: SOURCE, seq: 6 }, b"2");
    assert_eq!(bench.region.writer.repair(vec![key()], vec![uncovered]).await.unwrap(), 1);
    assert!(bench.record().await.is_none() && bench.repairs());
    let covered = bench.row(Dot { timeline: SOURCE, seq: 5 }, b"3");
    assert_eq!(bench.region.writer.repair(vec![key()], vec![covered]).await.unwrap(), 0);
    assert_eq!(bench.record().await.and_then(|row| row.value), Some(Bytes::from_static(b"3")));
    assert!(!bench.repairs());
    assert!(bench.store.quarantine(0, 10).await.unwrap()[0].repaired);
}
