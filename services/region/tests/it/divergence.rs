//! Two histories under one number, which no region makes: only a defect or somebody's hand in a store does.

use bytes::Bytes;
use longhaul_core::chain;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordId, RegionId, Timeline};
use longhaul_core::operation::{Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::replication::durable_vector;
use longhaul_core::version::Version;
use longhaul_http::wire::status::RegionStatus;
use longhaul_region::store::{Commit, Position, Store as _};
use uuid::Uuid;

use crate::world::World;

/// Commits one more operation of a timeline to a store whose region does not run, as that region would have; its number.
async fn plant(world: &World, n: usize, timeline: Timeline, value: &'static str) -> u64 {
    let store = &world.stores[n];
    let positions = store.load().await.unwrap().positions;
    let last = positions[&timeline];
    let seq = last.seq + 1;
    let version = Version { time_ns: last.version.time_ns + 1, count: 0, region: timeline.region };
    let mut operation = Operation {
        dot: Dot { timeline, seq },
        epoch: Epoch(1),
        kind: OperationKind::Put,
        home: RegionId(1),
        id: Some(RecordId::new("planted").unwrap()),
        value: Some(Bytes::from_static(value.as_bytes())),
        version,
        context: durable_vector(&positions),
        op_id: OpId(Uuid::from_u64_pair(seq, value.len() as u64)),
        accepted_ns: version.time_ns,
        trace: None,
        merged_from: None,
        chain: last.chain,
    };
    operation.chain = chain::next(last.chain, &operation);
    let commit = Commit {
        records: Record::from_operation(&operation).into_iter().collect(),
        positions: vec![(timeline, Position { seq, visible: seq, version, chain: operation.chain })],
        operations: vec![operation],
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_was_tampered_with_stops_its_own_link_and_nobody_else() {
    let mut world = World::active_active().await;
    let timeline = Timeline::new(3, 1);
    world.put(2, "/v1/records/eu-west/before", &[], "1").await.ok();
    world.shows(1, "/v1/records/eu-west/before", "1").await;
    // Region 1 holds as the third one's next operation what that has never written, and the third one goes on.
    world.stop(1).await.unwrap();
    let held = plant(&world, 1, timeline, "\"false\"").await;
    world.put(2, "/v1/records/eu-west/true", &[], "1").await.ok();
    let seq_of = |status: Option<RegionStatus>| status.unwrap().positions[&timeline.to_string()].seq;
    world.until(|w| async move { seq_of(w.status(2).await) > held }, "the third region has gone on").await;
    world.restart(1).await;
    world
        .until(
            |w| async move {
                let status = w.status(1).await;
                status.is_some_and(|status| status.divergence_alarms > 0 && !status.stopped_links.is_empty())
            },
            "the alarm",
        )
        .await;
    // Everything else goes on: whatever the others write, and what the third one writes where its history is known.
    for (from, readers) in [(0, [1, 2].as_slice()), (1, &[0, 2]), (2, &[0])] {
        let path = format!("/v1/records/eu-west/after-{from}");
        world
            .until(
                |w| async move {
                    w.put(from, &format!("/v1/records/eu-west/after-{from}"), &[], "2").await.status.is_success()
                },
                "a write",
            )
            .await;
        for reader in readers {
            world.shows(*reader, &path, "2").await;
        }
    }
    assert_eq!(world.get(1, "/v1/records/eu-west/after-2", &[]).await.status, 404, "it builds on another history");
}
