//! Reads. Each is one statement, or one read transaction, so it sees one committed state.

use futures::TryStreamExt as _;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};

use crate::store::log_page::LogPage;
use crate::store::rows::{self, IdempotencyColumns, PositionColumns, RecordColumns};
use crate::store::{BucketDigest, ConflictRow, IdempotencyRow, Loaded, OperationId, QuarantineRow, StoreStats};

/// Everything that a starting region must know, from one state of the database.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded, Error> {
    let mut transaction = connection.begin().await?;
    let mut loaded = Loaded::default();
    let positions: Vec<PositionColumns> =
        sqlx::query_as("SELECT region, incarnation, seq, visible, version, chain FROM position")
            .fetch_all(&mut *transaction)
            .await?;
    for columns in positions {
        let (region, incarnation) = (columns.0, columns.1);
        let (timeline, at) = rows::position(columns)?;
        let first: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM log WHERE region = ? AND incarnation = ?")
            .bind(region)
            .bind(incarnation)
            .fetch_one(&mut *transaction)
            .await?;
        let floor = match first {
            Some(first) => rows::dot(region, incarnation, first)?.seq.saturating_sub(1),
            None => at.seq,
        };
        loaded.positions.insert(timeline, at);
        loaded.log_floors.insert(timeline, floor);
    }
    let meta: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT name, value FROM meta").fetch_all(&mut *transaction).await?;
    loaded.meta = meta.into_iter().map(|(name, value)| (name, value.into())).collect();
    let digests: Vec<(i64, i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT home, bucket, rows, sum FROM digest").fetch_all(&mut *transaction).await?;
    for (home, bucket, count, sum) in digests {
        let digest = BucketDigest { rows: count.cast_unsigned(), sum: rows::digest_sum(sum)? };
        loaded.digests.insert(rows::bucket(home, bucket)?, digest);
    }
    transaction.commit().await?;
    Ok(loaded)
}

/// The rows of these keys, in order.
pub(super) async fn records(
    connection: &mut SqliteConnection,
    keys: &[RecordKey],
) -> Result<Vec<Option<Record>>, Error> {
    // Keys have no character that JSON escapes, but the encoder decides that, not this line.
    let wanted: Vec<(u16, &str)> = keys.iter().map(|key| (key.home.0, key.id.as_str())).collect();
    let wanted = serde_json::to_string(&wanted).map_err(|error| Error::Encode(error.into()))?;
    let mut found = sqlx::query_as::<_, (i64, i64, String, Vec<u8>, Vec<u8>, Option<Vec<u8>>)>(
        "SELECT wanted.key, record.home, record.id, version, body, record.value FROM json_each(?) AS wanted \
         CROSS JOIN record ON record.home = wanted.value ->> 0 AND record.id = wanted.value ->> 1",
    )
    .bind(wanted)
    .fetch(connection);
    let mut records = vec![None; keys.len()];
    while let Some((index, home, id, version, body, value)) = found.try_next().await? {
        let slot = usize::try_from(index).ok().and_then(|index| records.get_mut(index));
        let slot = slot.ok_or_else(|| Error::Decode(format!("no key has the index {index}").into()))?;
        *slot = Some(rows::record((home, id, version, body, value))?);
    }
    Ok(records)
}

/// The remembered rows among these ids, in id order.
pub(super) async fn idempotency(
    connection: &mut SqliteConnection,
    op_ids: &[OpId],
) -> Result<Vec<IdempotencyRow>, Error> {
    let wanted: Vec<_> = op_ids.iter().map(|op_id| op_id.0.simple().to_string()).collect();
    let wanted = serde_json::to_string(&wanted).map_err(|error| Error::Encode(error.into()))?;
    let found: Vec<IdempotencyColumns> = sqlx::query_as(
        "SELECT op_id, region, incarnation, seq, home, id, version, request_hash FROM idempotency \
         WHERE op_id IN (SELECT unhex(value) FROM json_each(?)) ORDER BY op_id",
    )
    .bind(wanted)
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::idempotency).collect()
}

/// One page of a log.
pub(super) async fn log(
    connection: &mut SqliteConnection,
    timeline: Timeline,
    after: u64,
    max_operations: usize,
    max_bytes: usize,
) -> Result<Vec<Operation>, Error> {
    let mut found = sqlx::query_scalar::<_, Vec<u8>>(
        "SELECT body FROM log WHERE region = ? AND incarnation = ? AND seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(i64::from(timeline.region.0))
    .bind(i64::from(timeline.incarnation.0))
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(rows::limit(max_operations))
    .fetch(connection);
    let mut page = LogPage::new(max_operations, max_bytes);
    while let Some(body) = found.try_next().await? {
        if !page.push(rows::operation(&body)?) {
            break;
        }
    }
    Ok(page.into_operations())
}

/// Rows after a key.
pub(super) async fn scan(
    connection: &mut SqliteConnection,
    home: Option<RegionId>,
    after: Option<&RecordKey>,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let after = after.map_or((-1, ""), |key| (i64::from(key.home.0), key.id.as_str()));
    let query = match home.map(|home| i64::from(home.0)) {
        None => sqlx::query_as(
            "SELECT home, id, version, body, value FROM record WHERE (home, id) > (?, ?) ORDER BY home, id LIMIT ?",
        )
        .bind(after.0)
        .bind(after.1.to_owned()),
        // The key is behind this whole home.
        Some(home) if after.0 > home => return Ok(Vec::new()),
        Some(home) => {
            let id = if after.0 == home { after.1 } else { "" };
            sqlx::query_as(
                "SELECT home, id, version, body, value FROM record WHERE home = ? AND id > ? ORDER BY id LIMIT ?",
            )
            .bind(home)
            .bind(id.to_owned())
        }
    };
    let found: Vec<RecordColumns> = query.bind(rows::limit(limit)).fetch_all(connection).await?;
    found.into_iter().map(rows::record).collect()
}

/// Tombstones up to a version, oldest first.
pub(super) async fn tombstones(
    connection: &mut SqliteConnection,
    at_or_below: Version,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let found: Vec<RecordColumns> = sqlx::query_as(
        "SELECT home, id, version, body, value FROM record WHERE value IS NULL AND version <= ? \
         ORDER BY version, home, id LIMIT ?",
    )
    .bind(at_or_below.to_bytes().to_vec())
    .bind(rows::limit(limit))
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::record).collect()
}

/// Conflicts, newest first.
pub(super) async fn conflicts(
    connection: &mut SqliteConnection,
    offset: u64,
    limit: usize,
) -> Result<Vec<ConflictRow>, Error> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT body FROM conflict ORDER BY found_ns DESC, loser_region DESC, loser_incarnation DESC, loser_seq DESC, \
         winner_region DESC, winner_incarnation DESC, winner_seq DESC LIMIT ? OFFSET ?",
    )
    .bind(rows::limit(limit))
    .bind(i64::try_from(offset).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    found.iter().map(|body| rows::decode(body)).collect()
}

/// Quarantined operations by dot.
pub(super) async fn quarantine(
    connection: &mut SqliteConnection,
    offset: u64,
    limit: usize,
) -> Result<Vec<QuarantineRow>, Error> {
    let found: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM quarantine ORDER BY region, incarnation, seq LIMIT ? OFFSET ?")
            .bind(rows::limit(limit))
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await?;
    found.iter().map(|body| rows::decode(body)).collect()
}

/// Remembered operations after an id.
pub(super) async fn operation_ids(
    connection: &mut SqliteConnection,
    after: Option<OpId>,
    limit: usize,
) -> Result<Vec<OperationId>, Error> {
    let after = after.map_or_else(Vec::new, |op_id| op_id.0.as_bytes().to_vec());
    let found: Vec<IdempotencyColumns> = sqlx::query_as(
        "SELECT op_id, region, incarnation, seq, home, id, version, request_hash FROM idempotency \
         WHERE op_id > ? ORDER BY op_id LIMIT ?",
    )
    .bind(after)
    .bind(rows::limit(limit))
    .fetch_all(connection)
    .await?;
    let row = |columns| rows::idempotency(columns).map(OperationId::from);
    found.into_iter().map(row).collect()
}

/// Counts; sizes are the caller's. Counting walks the tables: for people, not for every request.
pub(super) async fn stats(connection: &mut SqliteConnection) -> Result<StoreStats, Error> {
    let (rows, tombstones, operations, conflicts, quarantined, open): (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM record WHERE value IS NULL), \
                (SELECT count(*) FROM log), (SELECT count(*) FROM conflict), (SELECT count(*) FROM quarantine), \
                (SELECT count(*) FROM quarantine WHERE state = 0)",
    )
    .fetch_one(connection)
    .await?;
    Ok(StoreStats {
        records: (rows - tombstones).cast_unsigned(),
        tombstones: tombstones.cast_unsigned(),
        operations: operations.cast_unsigned(),
        conflicts: conflicts.cast_unsigned(),
        quarantined: quarantined.cast_unsigned(),
        quarantine_open: open.cast_unsigned(),
        bytes: 0,
    })
}
