//! The messages of the replication stream and their encoding: a big-endian `u32` length, then postcard.
//!
//! A stream carries both directions between two regions. The puller opens it with [`Hello`]; the other side answers
//! with [`Batch`]es within the credit, both sides send [`Heartbeat`]s, and the puller acknowledges what is durable
//! with [`Ack`]. Frames that lie (too large, malformed, out of bounds) end the stream; they never panic and never
//! make the receiver allocate what they announce.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

use super::{MemberReport, Positions};
use crate::ids::{Epoch, Incarnation, RegionId, Timeline};
use crate::limits::{BATCH_OPERATIONS_MAX, FRAME_BYTES_MAX, REGIONS_MAX, VECTOR_TIMELINES_MAX};
use crate::operation::Operation;
use crate::regime::Regime;
use crate::suspicion::SuspicionReport;
use crate::vector::VersionVector;
use crate::version::Version;

/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Opens the stream.
    Hello(Hello),
    /// Operations of one timeline.
    Batch(Batch),
    /// A sign of life, with positions.
    Heartbeat(Heartbeat),
    /// What is durable at the puller.
    Ack(Ack),
    /// From now on, other origins.
    Want(Want),
    /// The log no longer reaches back far enough.
    SnapshotRequired(SnapshotRequired),
    /// The last batch or hello was not admitted.
    Refused(Refused),
    /// A regime that the other side does not know yet.
    Regime(Box<Regime>),
}

/// The puller's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who pulls.
    pub region: RegionId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Under which regime.
    pub epoch: Epoch,
    /// Vectors of another generation mean nothing: the stream is refused.
    pub dataset_generation: u32,
    /// What it durably has.
    pub have: VersionVector,
    /// Whose operations it wants.
    pub want: Vec<RegionId>,
    /// Bytes of operations that may be sent ahead of acknowledgements.
    pub credit_bytes: u64,
}

/// Operations of one timeline, dense and in order. Relayed operations travel unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The sender's regime.
    pub epoch: Epoch,
    /// The timeline of all operations.
    pub timeline: Timeline,
    /// May be empty, to tell of a new `visible`.
    pub operations: Vec<Operation>,
    /// What the sender shows to readers of this timeline (commit index).
    pub visible: u64,
}

impl Batch {
    /// What the batch costs of the credit, bytes.
    pub fn credit_bytes(&self) -> u64 {
        self.operations.iter().map(|operation| operation.wire_bytes() as u64).sum()
    }

    /// Takes up the batch that arrived behind this one, so that one commit makes both durable. Gives it back if it is
    /// not the continuation: another timeline or epoch, a gap, or more than [`BATCH_OPERATIONS_MAX`] in sum.
    ///
    /// # Errors
    ///
    /// The batch that was not taken.
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let continues = match (self.operations.last(), next.operations.first()) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(last), Some(first)) => last.dot.seq + 1 == first.dot.seq,
        };
        let same = self.timeline == next.timeline && self.epoch == next.epoch;
        if !same || !continues || self.operations.len() + next.operations.len() > BATCH_OPERATIONS_MAX {
            return Err(next);
        }
        self.operations.extend(next.operations);
        self.visible = self.visible.max(next.visible);
        Ok(())
    }
}

/// A sign of life, sent every `HEARTBEAT_INTERVAL` in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up from 1 on each stream.
    pub number: u64,
    /// The sender's regime.
    pub epoch: Epoch,
    /// The sender.
    pub region: RegionId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The life of its data set.
    pub dataset_generation: u32,
    /// Everything that it durably has: lag grows on a dead stream, instead of reading 0.
    pub positions: Positions,
    /// What it last heard that the other members durably have, so that reports pass a cut link. Absent from most heartbeats
    /// among many regions; see [`passes_reports_on`].
    pub reports: BTreeMap<RegionId, MemberReport>,
    /// The epoch that it has promised: it refuses older ones.
    pub promised: Epoch,
    /// Whom it does not hear.
    pub suspicion: SuspicionReport,
    /// Its wall clock when it sent this, nanoseconds since the Unix epoch.
    pub clock_ns: u64,
    /// The receiver's last heartbeat, for round trip and clock offset.
    pub echo: Option<Echo>,
}

/// Regions up to which every heartbeat passes on what the others have.
const ALWAYS_PASSED_ON_UP_TO: usize = 8;

/// Whether the heartbeat of this number passes on what the others have ([`Heartbeat::reports`]), in a testbed of so many
/// regions; both ends know it.
///
/// These reports grow with the square of the regions, and the streams that carry them with another: 48 regions would tell
/// each other 45 KB in each heartbeat. Among more than eight they travel the less often, so that their share of the bytes
/// stays what it is among eight: a report that must take the detour around a cut link comes up to 9 s late among 48 regions.
/// The first heartbeat of a stream always carries them, as a region that has just started must hear how much is known of its
/// log; of the others each sender has its own.
pub fn passes_reports_on(regions: usize, sender: RegionId, number: u64) -> bool {
    let times = regions.div_ceil(ALWAYS_PASSED_ON_UP_TO) as u64;
    number == 1 || (number + u64::from(sender.0)).is_multiple_of((times * times).max(1))
}

/// An echo of a heartbeat. Round trip = time since it was sent - `held_ns`; clock offset = `clock_ns` + half the round
/// trip - local wall clock (Cristian, "Probabilistic clock synchronization", 1989).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Its number.
    pub number: u64,
    /// How long its receiver held it before it sent the echo, nanoseconds.
    pub held_ns: u64,
}

/// What is **durable** at the puller; never only received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The puller's regime. Never older than what it has promised.
    pub epoch: Epoch,
    /// Positions by timeline.
    pub durable: VersionVector,
    /// Version of the last durable operation of each timeline.
    pub heads: BTreeMap<Timeline, Version>,
    /// Credit given back since the stream opened, bytes, cumulative.
    pub consumed_bytes: u64,
}

/// Replaces the origins of [`Hello::want`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Whose operations the puller wants.
    pub origins: Vec<RegionId>,
    /// What it durably has of them now.
    pub have: VersionVector,
}

/// The puller is behind the sender's log of some timelines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequired {
    /// The last sequence number that is no longer in the sender's log, per timeline that the puller cannot continue.
    pub floors: VersionVector,
}

/// Why a hello or batch was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusedCode {
    /// Its regime is older than the receiver's, or than what the receiver promised.
    StaleEpoch,
    /// Its regime is newer than the receiver's: the receiver fetches it first.
    UnknownEpoch,
    /// Its vectors are of another life of the data set.
    Generation,
    /// The sender is no member, or not in this life.
    NotMember,
    /// The timeline may not write in this regime.
    WrongTimeline,
    /// Operations lie beyond the cut of their timeline.
    BeyondCut,
    /// An earlier timeline is not complete yet.
    PrefixMissing,
    /// Operations before it are missing.
    Gap,
    /// Two histories under one sequence number.
    Divergence,
    /// An operation contradicts the rules of a log.
    Malformed,
    /// A version is out of the clock's bounds.
    Clock,
    /// Nothing is replicated in regional isolation.
    Isolation,
}

/// The receiver did not admit something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub code: RefusedCode,
    /// The greatest epoch that the receiver knows or has promised.
    pub epoch: Epoch,
    /// The timeline concerned, and what the receiver durably has of it.
    pub have: Option<(Timeline, u64)>,
    /// Why, for people.
    pub detail: String,
}

/// A frame that cannot be sent or read. The stream ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It exceeds `FRAME_BYTES_MAX`.
    #[error(
        "a replication frame of {bytes} bytes exceeds {FRAME_BYTES_MAX}; the peer does not speak this protocol, or batches are too large"
    )]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// It is not a frame.
    #[error("a replication frame of {bytes} bytes is malformed ({reason}); both regions must run the same version")]
    Malformed {
        /// Its length.
        bytes: usize,
        /// What the decoder said.
        reason: String,
    },
    /// It is a frame with more entries than allowed.
    #[error("a replication frame names {count} {what}, and {max} are allowed; both regions must run the same version")]
    OutOfBounds {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
}

/// The frame with its length before it.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let malformed = |e: postcard::Error| FrameError::Malformed { bytes: 0, reason: e.to_string() };
    let mut bytes = postcard::to_extend(frame, vec![0; LENGTH_BYTES]).map_err(malformed)?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: length as u64 });
    }
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Cuts a byte stream into frames. It holds at most one incomplete frame beyond what was pushed since the last
/// [`Decoder::next_frame`] that returned none.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    failed: Option<FrameError>,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came. After an error they are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, `None` if more bytes are needed. An error is final.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.read().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        })
    }

    fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: length as u64 });
        }
        let Some(body) = self.buffer.get(LENGTH_BYTES..LENGTH_BYTES + length) else {
            return Ok(None);
        };
        let malformed = |reason: String| FrameError::Malformed { bytes: length, reason };
        let (frame, rest) = postcard::take_from_bytes::<Frame>(body).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes are left over", rest.len())));
        }
        check_bounds(&frame)?;
        self.buffer.advance(LENGTH_BYTES + length);
        Ok(Some(frame))
    }
}

fn check_bounds(frame: &Frame) -> Result<(), FrameError> {
    let within = |what, count: usize, max| {
        if count > max { Err(FrameError::OutOfBounds { what, count, max }) } else { Ok(()) }
    };
    let timelines = |count| within("timelines", count, VECTOR_TIMELINES_MAX);
    let regions = |count| within("regions", count, REGIONS_MAX);
    match frame {
        Frame::Hello(hello) => {
            timelines(hello.have.0.len())?;
            regions(hello.want.len())
        }
        Frame::Batch(batch) => {
            within("operations", batch.operations.len(), BATCH_OPERATIONS_MAX)?;
            batch.operations.iter().try_for_each(|operation| timelines(operation.context.0.len()))
        }
        Frame::Heartbeat(heartbeat) => {
            timelines(heartbeat.positions.len())?;
            regions(heartbeat.reports.len().max(heartbeat.suspicion.suspects.len()))?;
            heartbeat.reports.values().try_for_each(|report| timelines(report.vector.0.len().max(report.heads.len())))
        }
        Frame::Ack(ack) => timelines(ack.durable.0.len().max(ack.heads.len())),
        Frame::Want(want) => {
            timelines(want.have.0.len())?;
            regions(want.origins.len())
        }
        Frame::SnapshotRequired(required) => timelines(required.floors.0.len()),
        Frame::Refused(_) => Ok(()),
        Frame::Regime(regime) => {
            timelines(regime.cuts.0.len())?;
            regions(regime.members.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::regime::Mode;
    use crate::replication::fixture::{log, position, regime};

    #[test]
    fn among_few_regions_every_heartbeat_passes_reports_on_and_among_many_the_first_and_each_its_own() {
        let of = |regions, sender| (1..=72).filter(move |number| passes_reports_on(regions, RegionId(sender), *number));
        for regions in 1..=8 {
            assert_eq!(of(regions, 1).count(), 72, "{regions} regions");
        }
        assert_eq!(of(9, 3).collect::<Vec<_>>()[..4], [1, 5, 9, 13]);
        assert_eq!(of(16, 2).collect::<Vec<_>>()[..4], [1, 2, 6, 10]);
        assert_eq!(of(48, 1).collect::<Vec<_>>(), [1, 35, 71]);
        assert_eq!(of(48, 7).collect::<Vec<_>>(), [1, 29, 65]);
    }

    #[test]
    fn a_batch_takes_up_its_continuation_and_nothing_else() {
        let timeline = Timeline::new(1, 1);
        let operations = log(timeline, 6, 0);
        let batch = |from: usize, to: usize, visible| Batch {
            epoch: Epoch(1),
            timeline,
            operations: operations[from..to].to_vec(),
            visible,
        };
        let mut whole = batch(0, 2, 1);
        whole.join(batch(2, 4, 3)).unwrap();
        whole.join(batch(0, 0, 4)).unwrap();
        assert_eq!(whole, batch(0, 4, 4));
        let elsewhere = Batch { timeline: Timeline::new(2, 1), ..batch(4, 6, 4) };
        let later = Batch { epoch: Epoch(2), ..batch(4, 6, 4) };
        for other in [elsewhere, later, batch(5, 6, 4), batch(3, 4, 4)] {
            assert_eq!(whole.join(other.clone()), Err(other));
        }
        assert_eq!(batch(0, 0, 1).join(batch(0, 2, 1)), Err(batch(0, 2, 1)), "nobody knows what it continues");
        let mut full = Batch { operations: vec![operations[0].clone(); BATCH_OPERATIONS_MAX], ..batch(0, 0, 1) };
        assert_eq!(full.join(batch(1, 2, 1)), Err(batch(1, 2, 1)), "a frame's bound holds");
    }

    fn frames() -> Vec<Frame> {
        let timeline = Timeline::new(1, 1);
        let operations = log(timeline, 3, 0);
        let positions = Positions::from([(timeline, position(&operations))]);
        let report = MemberReport::new(Incarnation(1), 1, &positions);
        let have = report.vector.clone();
        let heads = report.heads.clone();
        vec![
            Frame::Hello(Hello {
                region: RegionId(2),
                incarnation: Incarnation(1),
                epoch: Epoch(1),
                dataset_generation: 1,
                have: have.clone(),
                want: vec![RegionId(1)],
                credit_bytes: 1,
            }),
            Frame::Batch(Batch { epoch: Epoch(1), timeline, operations, visible: 3 }),
            Frame::Heartbeat(Heartbeat {
                number: 1,
                epoch: Epoch(1),
                region: RegionId(1),
                incarnation: Incarnation(1),
                dataset_generation: 1,
                positions,
                reports: BTreeMap::from([(RegionId(3), report)]),
                promised: Epoch(1),
                suspicion: SuspicionReport { epoch: Epoch(1), suspects: [RegionId(1)].into() },
                clock_ns: u64::MAX,
                echo: Some(Echo { number: 1, held_ns: 2 }),
            }),
            Frame::Ack(Ack { epoch: Epoch(1), durable: have.clone(), heads, consumed_bytes: 7 }),
            Frame::Want(Want { origins: vec![RegionId(1), RegionId(3)], have: have.clone() }),
            Frame::SnapshotRequired(SnapshotRequired { floors: have }),
            Frame::Refused(Refused {
                code: RefusedCode::Gap,
                epoch: Epoch(2),
                have: Some((timeline, 3)),
                detail: "a gap".to_owned(),
            }),
            Frame::Regime(Box::new(regime(Mode::ActivePassive))),
        ]
    }

    #[test]
    fn frames_come_back_as_they_were_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = frames().iter().flat_map(|frame| encode(frame).unwrap()).collect();
        for size in [1, 7, bytes.len()] {
            let (mut decoder, mut read) = (Decoder::new(), Vec::new());
            for chunk in bytes.chunks(size) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames());
        }
    }

    #[test]
    fn a_length_beyond_the_limit_ends_the_stream_at_once() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        let error = FrameError::TooLarge { bytes: u64::from(u32::MAX) };
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        decoder.push(&encode(&frames()[0]).unwrap());
        assert_eq!(decoder.next_frame(), Err(error), "an error is final");
    }

    #[test]
    fn a_frame_that_names_too_much_is_refused() {
        let origins = (0..=REGIONS_MAX as u16).map(RegionId).collect();
        let mut decoder = Decoder::new();
        decoder.push(&encode(&Frame::Want(Want { origins, have: VersionVector::default() })).unwrap());
        assert!(matches!(decoder.next_frame(), Err(FrameError::OutOfBounds { what: "regions", .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            which: prop::sample::Index,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..64),
            noise in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            let mut bytes = encode(which.get(&frames())).unwrap();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(tail);
            for bytes in [bytes, noise] {
                let mut decoder = Decoder::new();
                decoder.push(&bytes);
                while let Ok(Some(_)) = decoder.next_frame() {}
            }
        }
    }
}
