//! What regions, control and the roles say to each other, and what the rules make of it when it is well formed and
//! still a lie: the numbers in it may be anything.

use std::collections::BTreeMap;

use bytes::Bytes;
use longhaul_core::chain;
use longhaul_core::clock::RegionClock;
use longhaul_core::failover::{self, Fenced, Inputs};
use longhaul_core::gate::{self, Consistency};
use longhaul_core::ids::{Dot, Epoch, Incarnation, OpId, RecordId, RegionId, Timeline};
use longhaul_core::operation::{Operation, OperationKind, TraceContext};
use longhaul_core::plan::Action;
use longhaul_core::regime::{Durability, Mode, Regime};
use longhaul_core::register::{self, Accept, Ballot, Prepare};
use longhaul_core::replication::apply::{ApplyView, admit_batch};
use longhaul_core::replication::frame::{
    Ack, Batch, Decoder, Echo, Frame, Heartbeat, Hello, Refused, RefusedCode, SnapshotRequired, Want, encode,
};
use longhaul_core::replication::frontier::{collectable_log, frontier};
use longhaul_core::replication::relay::RelayTracker;
use longhaul_core::replication::snapshot::{SnapshotHeader, admit_header, merge_positions};
use longhaul_core::replication::{MemberReport, Position, Positions, durable_vector, shippable};
use longhaul_core::suspicion::SuspicionReport;
use longhaul_core::transition::{Author, Observations, Request, plan, reassert, rejoin_member, rollback};
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use longhaul_core::voter::{LeaseRequest, Release, Voter, VoterReply, VoterRequest, VoterState};
use longhaul_http::wire::control::RegimeChange;
use longhaul_http::wire::regime::{FailoverRequest, TransitionRequest};
use longhaul_http::wire::traffic::{JudgeRequest, RunRequest, TrafficRequest};
use serde_json::json;
use uuid::Uuid;

use crate::fuzz;

pub(crate) const NOW_NS: u64 = 1_800_000_000_000_000_000;
pub(crate) const TIMELINE: Timeline = Timeline::new(1, 1);

pub(crate) fn genesis() -> Regime {
    Regime::genesis((1..=3).map(RegionId), Mode::ActivePassive, Some(RegionId(1)), Durability::Semi(1))
}

pub(crate) fn log(count: u64) -> Vec<Operation> {
    let mut last = chain::START;
    let operations = (1..=count).map(|seq| {
        let marker = seq % 4 == 0;
        let mut operation = Operation {
            dot: Dot { timeline: TIMELINE, seq },
            epoch: Epoch(1),
            kind: if marker { OperationKind::Noop } else { OperationKind::Put },
            home: RegionId(1),
            id: (!marker).then(|| RecordId::new(format!("r{seq}")).unwrap()),
            value: (!marker).then(|| Bytes::from_static(b"{\"n\":1}")),
            version: Version { time_ns: NOW_NS + seq, count: 0, region: RegionId(1) },
            context: VersionVector::from_iter([(TIMELINE, seq - 1)]),
            op_id: OpId(Uuid::from_u64_pair(1, seq)),
            accepted_ns: NOW_NS,
            trace: Some(TraceContext { trace_id: [7; 16], span_id: [8; 8], flags: 1 }),
            merged_from: None,
            chain: last,
        };
        operation.chain = chain::next(last, &operation);
        last = operation.chain;
        operation
    });
    operations.collect()
}

pub(crate) fn positions() -> Positions {
    let log = log(6);
    let last = log.last().unwrap();
    let at = Position { seq: 6, visible: 5, version: last.version, chain: last.chain };
    Positions::from([(TIMELINE, at), (Timeline::new(2, 1), Position::START)])
}

pub(crate) fn vector() -> VersionVector {
    VersionVector::from_iter([(TIMELINE, 5), (Timeline::new(2, 1), 0)])
}

pub(crate) fn header() -> SnapshotHeader {
    SnapshotHeader {
        region: RegionId(1),
        epoch: Epoch(1),
        dataset_generation: 1,
        positions: positions(),
        hlc: Version { time_ns: NOW_NS, count: 1, region: RegionId(1) },
    }
}

/// What the rules do with a regime that a peer says was chosen.
fn use_regime(regime: &Regime) {
    let genesis = genesis();
    let author = Author { id: Uuid::nil(), by: RegionId(2), reason: "fuzz".to_owned(), trace: None };
    let _ = register::check_successor(&genesis, regime, RegionId(2));
    let _ = register::check_successor(regime, &genesis, RegionId(2));
    for region in (0..5).map(RegionId) {
        let _ = gate::write_gate(regime, region, RegionId(1), true, true);
        let _ = gate::read_gate(regime, region, RegionId(1), Consistency::Primary);
        gate::still_acknowledges(&genesis, regime, region, true);
        shippable(regime, Timeline::new(region.0, 1), 9);
    }
    let _ = rollback(regime, RegionId(2), "fuzz".to_owned());
    if regime.members.keys().eq(genesis.members.keys()) {
        reassert(regime, regime.epoch, &author);
        let _ = rejoin_member(regime, RegionId(2), &VersionVector::from_iter([(TIMELINE, u64::MAX)]), &author);
    }
    for mode in [Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation] {
        let target = serde_json::from_value(json!({"mode": mode, "primary": 2, "durability": "local"})).unwrap();
        let _ = plan(regime, &Request { target, force: true }, &Observations::default());
    }
    let report = MemberReport::new(Incarnation(1), 1, &positions());
    let reports = BTreeMap::from([1, 2, 3].map(|region| (RegionId(region), report.clone())));
    frontier(regime, &reports);
    collectable_log(regime, &reports);
}

fn use_frame(frame: &Frame) {
    let (regime, held) = (genesis(), positions());
    let clock = RegionClock::new(RegionId(2), NOW_NS, u64::MAX);
    let mut view = ApplyView { regime: &regime, promised: Epoch(1), positions: &held, clock: &clock, top_up: None };
    match frame {
        Frame::Batch(batch) => {
            let judged = admit_batch(&view, batch, NOW_NS);
            if let Err(refusal) = judged {
                refusal.to_frame(&view, batch);
            }
            let empty = Positions::new();
            view.positions = &empty;
            let _ = admit_batch(&view, batch, NOW_NS);
            batch.credit_bytes();
        }
        Frame::Heartbeat(heartbeat) => {
            let mut relay = RelayTracker::new(RegionId(2));
            let have = durable_vector(&held);
            for at in [0, NOW_NS] {
                relay.heads(heartbeat.region, &durable_vector(&heartbeat.positions), &have, at);
                relay.plan(&have, at);
            }
            frontier(&regime, &heartbeat.reports);
            collectable_log(&regime, &heartbeat.reports);
        }
        Frame::Regime(regime) => use_regime(regime),
        Frame::Hello(_) | Frame::Ack(_) | Frame::Want(_) | Frame::SnapshotRequired(_) | Frame::Refused(_) => {}
    }
}

fn frames() -> Vec<Frame> {
    let vector = vector();
    let report = MemberReport::new(Incarnation(1), 1, &positions());
    let heartbeat = Heartbeat {
        number: 3,
        epoch: Epoch(1),
        region: RegionId(1),
        incarnation: Incarnation(1),
        dataset_generation: 1,
        positions: positions(),
        reports: BTreeMap::from([(RegionId(3), report)]),
        promised: Epoch(1),
        suspicion: SuspicionReport { epoch: Epoch(1), suspects: [RegionId(1)].into() },
        clock_ns: NOW_NS,
        echo: Some(Echo { number: 1, held_ns: 5 }),
    };
    vec![
        Frame::Hello(Hello {
            region: RegionId(1),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            dataset_generation: 1,
            have: vector.clone(),
            want: vec![RegionId(1), RegionId(3)],
            credit_bytes: 1 << 20,
        }),
        Frame::Batch(Batch { epoch: Epoch(1), timeline: TIMELINE, operations: log(9), visible: 8 }),
        Frame::Heartbeat(heartbeat),
        Frame::Ack(Ack {
            epoch: Epoch(1),
            durable: vector.clone(),
            heads: BTreeMap::from([(TIMELINE, Version::ZERO)]),
            consumed_bytes: 900,
        }),
        Frame::Want(Want { origins: vec![RegionId(1)], have: vector.clone() }),
        Frame::SnapshotRequired(SnapshotRequired { floors: vector }),
        Frame::Refused(Refused {
            code: RefusedCode::Gap,
            epoch: Epoch(1),
            have: Some((TIMELINE, 3)),
            detail: "a gap".to_owned(),
        }),
        Frame::Regime(Box::new(genesis())),
    ]
}

#[test]
fn replication_frames() {
    let corpus: Vec<Vec<u8>> = frames().iter().map(|frame| encode(frame).unwrap()).collect();
    fuzz(&corpus, |input| {
        let mut decoder = Decoder::new();
        decoder.push(input);
        let mut read = 0;
        while let Ok(Some(frame)) = decoder.next_frame() {
            use_frame(&frame);
            read += 1;
        }
        read > 0
    });
}

/// The damage goes past the length, which the decoder would mostly refuse.
#[test]
fn the_bodies_of_replication_frames() {
    let corpus: Vec<Vec<u8>> = frames().iter().map(|frame| postcard::to_stdvec(frame).unwrap()).collect();
    fuzz(&corpus, |input| {
        let mut decoder = Decoder::new();
        decoder.push(&(input.len() as u32).to_be_bytes());
        decoder.push(input);
        let frame = decoder.next_frame();
        frame.is_ok_and(|frame| frame.inspect(use_frame).is_some())
    });
}

#[test]
fn a_stream_that_comes_byte_by_byte_or_all_at_once_is_read_alike() {
    let corpus = [frames().iter().flat_map(|frame| encode(frame).unwrap()).collect::<Vec<u8>>()];
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            while let Ok(Some(frame)) = decoder.next_frame() {
                frames.push(frame);
            }
        }
        frames
    };
    fuzz(&corpus, |input| {
        let whole = read(&mut std::iter::once(input));
        assert_eq!(read(&mut input.chunks(7)), whole);
        !whole.is_empty()
    });
}

#[test]
fn snapshot_headers() {
    let (regime, clock) = (genesis(), RegionClock::new(RegionId(2), NOW_NS, u64::MAX));
    fuzz(&[postcard::to_stdvec(&header()).unwrap()], |input| {
        let Ok(header) = postcard::from_bytes::<SnapshotHeader>(input) else { return false };
        let mut held = positions();
        let view = ApplyView { regime: &regime, promised: Epoch(1), positions: &held, clock: &clock, top_up: None };
        let _ = admit_header(&view, &header, NOW_NS);
        merge_positions(&mut held, &header);
        true
    });
}

fn requests() -> Vec<VoterRequest> {
    let ballot = Ballot { round: 3, region: RegionId(2) };
    let release = Release { epoch: Epoch(1), holder: RegionId(1) };
    let mut next = genesis();
    next.epoch = Epoch(2);
    vec![
        VoterRequest::Prepare(Prepare { ballot, fence: Some(Epoch(2)) }),
        VoterRequest::Prepare(Prepare { ballot, fence: None }),
        VoterRequest::Accept(Box::new(Accept { ballot, value: next, release: Some(release) })),
        VoterRequest::Lease(LeaseRequest { epoch: Epoch(1), holder: RegionId(1), sent_boot_ns: 5 }),
        VoterRequest::Release(release),
    ]
}

fn as_json<T: serde::Serialize>(messages: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    messages.into_iter().map(|message| serde_json::to_vec(&message).unwrap()).collect()
}

#[test]
fn requests_to_voters() {
    fuzz(&as_json(requests()), |input| {
        let Ok(request) = serde_json::from_slice::<VoterRequest>(input) else { return false };
        for now in [0, u64::MAX] {
            let mut voter = Voter::restore(VoterState { promised_epoch: Epoch(1), ..VoterState::default() }, 7);
            for request in requests().into_iter().chain([request.clone()]).chain(requests()) {
                voter.handle(&request, now);
            }
            voter.next_ballot(RegionId(1), Ballot::GENESIS);
        }
        if let VoterRequest::Accept(accept) = &request {
            use_regime(&accept.value);
        }
        true
    });
}

#[test]
fn answers_of_voters() {
    let mut voter = Voter::new(&genesis());
    let replies: Vec<VoterReply> = requests().iter().map(|request| voter.handle(request, 9).reply).collect();
    let ballot = Ballot { round: 3, region: RegionId(2) };
    fuzz(&as_json(replies), |input| {
        let Ok(reply) = serde_json::from_slice::<VoterReply>(input) else { return false };
        let intents = [
            register::Intent::Read,
            register::Intent::Fence { expected: Epoch(1), fence: Epoch(2) },
            register::Intent::CompareAndSet { expected: Epoch(1), next: Box::new(genesis()), release: None },
        ];
        for intent in intents {
            let (mut proposer, _) = register::Proposer::begin(ballot, genesis(), intent);
            for region in [2, 3, 1, 9].map(RegionId) {
                proposer.on_reply(region, &reply);
            }
        }
        true
    });
}

#[test]
fn what_voters_remember() {
    let state = Voter::new(&genesis()).state().clone();
    let accepted = VoterState {
        acceptor: register::Acceptor {
            promised: Ballot { round: 9, region: RegionId(3) },
            accepted: Some((Ballot::GENESIS, genesis())),
        },
        ..state.clone()
    };
    let corpus = [postcard::to_stdvec(&state).unwrap(), postcard::to_stdvec(&accepted).unwrap()];
    fuzz(&corpus, |input| {
        let Ok(state) = postcard::from_bytes::<VoterState>(input) else { return false };
        let others = [(RegionId(2), state.clone()), (RegionId(3), state.clone())];
        let _ = Voter::rejoin(RegionId(1), &genesis(), &others, u64::MAX);
        Voter::restore(state, u64::MAX).next_ballot(RegionId(1), Ballot::GENESIS);
        true
    });
}

#[test]
fn regimes() {
    let mut switching = genesis();
    switching.epoch = Epoch(7);
    switching.cuts.set(TIMELINE, 9);
    switching.hlc_floor_ns = NOW_NS;
    switching.transition = serde_json::from_value(json!({
        "id": Uuid::nil(), "coordinator": 1, "stage": "draining", "deadline_ms": 9000,
        "target": {"mode": "active-passive", "primary": 2, "durability": "sync"},
    }))
    .unwrap();
    fuzz(&as_json([genesis(), switching]), |input| {
        serde_json::from_slice::<Regime>(input).map(|regime| use_regime(&regime)).is_ok()
    });
}

#[test]
fn positions_of_fenced_regions() {
    let log = log(6);
    let fenced = Fenced {
        promised_epoch: Epoch(2),
        position: failover::Position {
            positions: BTreeMap::from([(TIMELINE, (6, log[5].chain))]),
            max_version: log[5].version,
        },
    };
    fuzz(&as_json([fenced.clone()]), |input| {
        let Ok(other) = serde_json::from_slice::<Fenced>(input) else { return false };
        let inputs = Inputs {
            fenced: BTreeMap::from([(RegionId(2), fenced.clone()), (RegionId(3), other)]),
            latency_rank: BTreeMap::new(),
            chains: BTreeMap::new(),
            last_head: Some(4),
            old_is_lost: false,
            allow_data_loss: true,
            prefer: None,
            id: Uuid::nil(),
            by: RegionId(2),
            reason: String::new(),
            trace: None,
        };
        let _ = failover::plan(&genesis(), &inputs);
        true
    });
}

#[test]
fn commands_of_people() {
    let target = json!({"mode": "active-passive", "primary": 2, "durability": "semi(1)"});
    let reads = |input: &[u8]| serde_json::from_slice::<TransitionRequest>(input).is_ok();
    fuzz(&as_json([json!({"target": target, "force": true})]), reads);
    let reads = |input: &[u8]| serde_json::from_slice::<FailoverRequest>(input).is_ok();
    fuzz(&as_json([json!({"to": 2, "allow_data_loss": true})]), reads);
    let reads = |input: &[u8]| serde_json::from_slice::<RegimeChange>(input).is_ok();
    fuzz(&as_json([json!({"mode": "active-active"}), json!({"primary": "a", "durability": "sync"})]), reads);
    let actions = [
        json!({"do": "region-loss", "region": "a"}),
        json!({"do": "link", "from": "a", "to": "b", "both": true, "change": {"delay_ms": 5.0, "state": "cut", "flap_ms": 9}}),
        json!({"do": "clock-skew", "region": "a", "offset_ms": -500}),
        json!({"do": "switch", "mode": "active-passive", "durability": "sync", "primary": "a", "force": false}),
    ];
    fuzz(&as_json(actions), |input| serde_json::from_slice::<Action>(input).is_ok());
}

#[test]
fn requests_to_the_traffic_role() {
    let edges = json!([{"name": "c", "home": "a", "gateway": "127.0.0.1:1"}]);
    let run = json!({
        "workload": {"rate_per_s": 50.0}, "edges": edges, "regions": [{"name": "a", "address": "127.0.0.1:2"}],
        "seed": 1, "warm_up_s": 1.0, "duration_s": 5.0, "mode": "active-active", "run_key": "k",
    });
    fuzz(&as_json([run]), |input| {
        let check = |run: RunRequest| {
            longhaul_traffic::workload::check(&run.workload, run.edges.len(), Some(run.duration_s)).is_ok()
        };
        serde_json::from_slice::<RunRequest>(input).map(check).is_ok()
    });
    let reads = |input: &[u8]| serde_json::from_slice::<TrafficRequest>(input).is_ok();
    fuzz(&as_json([json!({"workload": {"rate_per_s": 50.0}, "edges": edges, "seconds": 3.0})]), reads);
    let judge = json!({
        "faults": [{"boot_ns": 1, "kind": "kill", "what": "a"}], "start_mode": "active-active", "durability": "local",
        "modes": [{"boot_ns": 1, "mode": "active-passive"}], "settle_s": 5.0, "regions_expected_down": ["a"],
    });
    fuzz(&as_json([judge]), |input| serde_json::from_slice::<JudgeRequest>(input).is_ok());
}
