//! How rows look in the tables of every SQL store: what is queried has columns, the rest is a postcard blob.

use bytes::Bytes;
use longhaul_core::ids::{Dot, Epoch, OpId, RecordId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::{Chain, Operation};
use longhaul_core::record::Record;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::Error;
use uuid::Uuid;

use crate::store::{IdempotencyRow, Position, QuarantineState};

/// A number as the tables keep it. Sequence numbers and times stay far below 2^63; one that does not is refused, because
/// it would sort as negative.
pub(super) fn integer(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|error| Error::Encode(format!("{number}: {error}").into()))
}

/// A limit as the statements take it: whatever is too large means all.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn decode_error(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Decode(format!("a stored {what} cannot be read: {why}").into())
}

/// A number that [`integer`] wrote.
fn unsigned<T: TryFrom<i64>>(number: i64) -> Result<T, Error> {
    number.try_into().map_err(|_| decode_error("number", number))
}

/// A body as bytes.
pub(super) fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(body).map_err(|error| Error::Encode(error.to_string().into()))
}

/// What [`encode`] wrote.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|error| decode_error("body", error))
}

/// A log entry.
pub(super) fn operation(bytes: &[u8]) -> Result<Operation, Error> {
    decode(bytes)
}

fn version(bytes: &[u8]) -> Result<Version, Error> {
    Version::from_bytes(bytes).ok_or_else(|| decode_error("version", format_args!("{} bytes", bytes.len())))
}

fn key(home: i64, id: String) -> Result<RecordKey, Error> {
    Ok(RecordKey { home: RegionId(unsigned(home)?), id: RecordId::new(id).map_err(|e| decode_error("record id", e))? })
}

pub(super) fn timeline(region: i64, incarnation: i64) -> Result<Timeline, Error> {
    Ok(Timeline::new(unsigned(region)?, unsigned(incarnation)?))
}

pub(super) fn dot(region: i64, incarnation: i64, seq: i64) -> Result<Dot, Error> {
    Ok(Dot { timeline: timeline(region, incarnation)?, seq: unsigned(seq)? })
}

/// What no query asks of a record.
#[derive(Serialize, Deserialize)]
pub(super) struct RecordBody {
    dot: Dot,
    epoch: Epoch,
    op_id: OpId,
    context: VersionVector,
}

impl RecordBody {
    pub(super) fn encode(record: &Record) -> Result<Vec<u8>, Error> {
        let Record { key: _, value: _, version: _, dot, epoch, op_id, context } = record.clone();
        encode(&Self { dot, epoch, op_id, context })
    }
}

/// `home, id, version, body, value`.
pub(super) type RecordColumns = (i64, String, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

pub(super) fn record((home, id, stamp, body, value): RecordColumns) -> Result<Record, Error> {
    let RecordBody { dot, epoch, op_id, context } = decode(&body)?;
    let value = value.map(Bytes::from);
    Ok(Record { key: key(home, id)?, value, version: version(&stamp)?, dot, epoch, op_id, context })
}

/// `op_id, region, incarnation, seq, home, id, version, request_hash`.
pub(super) type IdempotencyColumns = (Vec<u8>, i64, i64, i64, i64, String, Vec<u8>, i64);

pub(super) fn idempotency(columns: IdempotencyColumns) -> Result<IdempotencyRow, Error> {
    let (op_id, region, incarnation, seq, home, id, stamp, request_hash) = columns;
    Ok(IdempotencyRow {
        op_id: OpId(Uuid::from_slice(&op_id).map_err(|e| decode_error("operation id", e))?),
        dot: dot(region, incarnation, seq)?,
        key: key(home, id)?,
        version: version(&stamp)?,
        request_hash: request_hash.cast_unsigned(),
    })
}

/// `region, incarnation, seq, visible, version, chain`.
pub(super) type PositionColumns = (i64, i64, i64, i64, Vec<u8>, Vec<u8>);

pub(super) fn position(columns: PositionColumns) -> Result<(Timeline, Position), Error> {
    let (region, incarnation, seq, visible, stamp, chain) = columns;
    let chain = chain.try_into().map_err(|_| decode_error("chain", "it must have 16 bytes"))?;
    let at =
        Position { seq: unsigned(seq)?, visible: unsigned(visible)?, version: version(&stamp)?, chain: Chain(chain) };
    Ok((timeline(region, incarnation)?, at))
}

/// A sum of a digest bucket.
pub(super) fn digest_sum(bytes: Vec<u8>) -> Result<u128, Error> {
    Ok(u128::from_be_bytes(bytes.try_into().map_err(|_| decode_error("digest", "it must have 16 bytes"))?))
}

/// The home and bucket of a digest.
pub(super) fn bucket(home: i64, bucket: i64) -> Result<(RegionId, u16), Error> {
    Ok((RegionId(unsigned(home)?), unsigned(bucket)?))
}

/// The number of a state in the `state` column.
pub(super) const fn state_code(state: QuarantineState) -> i64 {
    match state {
        QuarantineState::Open => 0,
        QuarantineState::Merged => 1,
        QuarantineState::Discarded => 2,
    }
}
