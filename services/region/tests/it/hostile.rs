//! Damaged requests and streams: a region answers or hangs up, and goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_core::ids::{Epoch, Incarnation, RegionId, Timeline};
use longhaul_core::replication::frame::{Ack, Echo, Frame, Heartbeat, Hello, Refused, RefusedCode, Want, encode};
use longhaul_core::replication::{MemberReport, Position, Positions};
use longhaul_core::suspicion::SuspicionReport;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use longhaul_region::replicator::{PROTOCOL, REPLICATE_PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::World;

/// Damaged copies of each request, and damaged streams.
const COPIES: u64 = 40;

/// Requests in good order: they change nothing that the next one depends on.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("PUT", "/v1/records/eu-west/x", "{\"a\":[1,2.5e3,{\"b\":null}],\"c\":\"\\u00e9\"}"),
    ("GET", "/v1/records/eu-west/x?y=1", ""),
    ("GET", "/internal/v1/operations?after=0198f0a8-7c3e-7d4b-8a6f-0123456789ab&limit=10", ""),
    ("GET", "/internal/v1/conflicts?offset=1&limit=18446744073709551615", ""),
    ("GET", "/internal/v1/visibility?after=18446744073709551615", ""),
    ("GET", "/internal/v1/snapshot?limit=10&by=2&home=1&after_home=1&after=x", ""),
    ("GET", "/internal/v1/transition/copy/1", ""),
    ("POST", "/internal/v1/quarantine/decide", "{\"decision\":\"discard\"}"),
    ("POST", "/internal/v1/sweep", "{\"needles\":[\"a\",\"bb\"]}"),
    ("POST", "/internal/v1/transition/conflicts", "\u{1}\u{1}\u{1}x"),
    ("POST", "/internal/v1/rows", "\u{1}\u{1}\u{1}x"),
    ("POST", "/internal/v1/chain", "{\"dot\":{\"timeline\":\"1.1\",\"seq\":1}}"),
    ("POST", "/internal/v1/log", "{\"timeline\":\"1.1\",\"after\":0,\"up_to\":18446744073709551615}"),
    ("POST", "/internal/v1/transition/await", "{\"vector\":{\"1.1\":1},\"wait_ms\":1}"),
    ("POST", "/internal/v1/vote", "{\"Lease\":{\"epoch\":1,\"holder\":1,\"sent_boot_ns\":18446744073709551615}}"),
];

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] = self.0 as u8,
                1 => bytes.insert(at, b"\"{}[],:019-e\0\xff"[self.below(14)]),
                2 => bytes.truncate(at),
                _ if at < bytes.len() => {
                    bytes.remove(at);
                }
                _ => {}
            }
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_requests_are_answered_and_never_with_a_defect() {
    let world = World::active_active().await;
    world.put(0, "/v1/records/eu-west/x", &[], "1").await.ok();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (method, path, body) in REQUESTS {
        let method: Method = method.parse().unwrap();
        for copy in 0..COPIES {
            let path = if copy % 3 == 2 {
                String::from_utf8_lossy(&random.damage(path.as_bytes())).replace(|c: char| !c.is_ascii_graphic(), "%")
            } else {
                (*path).to_owned()
            };
            let Ok(uri) = path.parse::<http::Uri>() else { continue };
            if !path.starts_with('/') || uri.path() == REPLICATE_PATH {
                continue;
            }
            let body = if copy == 0 { body.as_bytes().to_vec() } else { random.damage(body.as_bytes()) };
            let json = [("content-type", "application/json")];
            let answer = world.try_send(0, method.clone(), &path, &json, body.clone()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path} {body:?}: {error}"));
            assert_ne!(answer.status, 500, "{method} {path} {body:?}: {:?}", answer.body);
        }
    }
    goes_on(&world).await;
}

async fn goes_on(world: &World) {
    world.put(0, "/v1/records/eu-west/after", &[], "1").await.ok();
    for n in 1..3 {
        world.shows(n, "/v1/records/eu-west/after", "1").await;
    }
}

fn frames() -> Vec<Frame> {
    let timeline = Timeline::new(2, 1);
    let vector = VersionVector::from_iter([(timeline, u64::MAX), (Timeline::new(1, 1), 1)]);
    let positions = Positions::from([(timeline, Position { seq: u64::MAX, visible: 3, ..Position::START })]);
    let report = MemberReport::new(Incarnation(1), 1, &positions);
    vec![
        Frame::Heartbeat(Heartbeat {
            number: u64::MAX,
            epoch: Epoch(1),
            region: RegionId(2),
            incarnation: Incarnation(1),
            dataset_generation: 1,
            positions,
            reports: BTreeMap::from([(RegionId(3), report)]),
            promised: Epoch(1),
            suspicion: SuspicionReport::default(),
            clock_ns: u64::MAX,
            echo: Some(Echo { number: 1, held_ns: u64::MAX }),
        }),
        Frame::Ack(Ack {
            epoch: Epoch(1),
            durable: vector.clone(),
            heads: BTreeMap::from([(timeline, Version::ZERO)]),
            consumed_bytes: u64::MAX,
        }),
        Frame::Want(Want { origins: vec![RegionId(1), RegionId(9)], have: vector.clone() }),
        Frame::Refused(Refused {
            code: RefusedCode::Gap,
            epoch: Epoch(1),
            have: Some((Timeline::new(1, 1), u64::MAX)),
            detail: String::new(),
        }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_streams_end_and_the_region_goes_on() {
    let world = World::active_active().await;
    world.put(0, "/v1/records/eu-west/x", &[], "1").await.ok();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let hello = Frame::Hello(Hello {
        region: RegionId(2),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        dataset_generation: 1,
        have: VersionVector::default(),
        want: vec![RegionId(1)],
        credit_bytes: u64::MAX,
    });
    for copy in 0..COPIES {
        let deadline = Duration::from_secs(5);
        let stream = world.client.upgrade(&world.addresses[0], REPLICATE_PATH, PROTOCOL, HeaderMap::new(), deadline);
        let mut stream = stream.await.unwrap();
        let mut bytes = encode(&hello).unwrap();
        for frame in frames() {
            let whole = encode(&frame).unwrap();
            // The first streams are whole and lie; the others are damaged past the greeting, and then from the start.
            bytes.extend(if copy < 4 { whole } else { random.damage(&whole) });
        }
        if copy > COPIES / 2 {
            bytes = random.damage(&bytes);
        }
        // It may hang up before everything is written, or say something first.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let read = tokio::time::timeout(deadline, stream.read_to_end(&mut said)).await;
        assert!(read.is_ok(), "the region does not hang up");
    }
    goes_on(&world).await;
}
