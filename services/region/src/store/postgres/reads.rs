//! Reads. Each is one statement, or one read transaction, so it sees one committed state.

use futures::TryStreamExt as _;
use longhaul_core::ids::{OpId, RecordKey, RegionId, Timeline};
use longhaul_core::operation::Operation;
use longhaul_core::record::Record;
use longhaul_core::version::Version;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};

use crate::store::log_page::LogPage;
use crate::store::rows::{self, IdempotencyColumns, PositionColumns, RecordColumns};
use crate::store::{BucketDigest, ConflictRow, IdempotencyRow, Loaded, OperationId, QuarantineRow, StoreStats};

/// Everything that a starting region must know, from one state of the database.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Loaded, Error> {
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let mut loaded = Loaded::default();
    let positions: Vec<PositionColumns> =
        sqlx::query_as("SELECT region, incarnation, seq, visible, version, chain FROM position")
            .fetch_all(&mut *transaction)
            .await?;
    for columns in positions {
        let (region, incarnation) = (columns.0, columns.1);
        let (timeline, at) = rows::position(columns)?;
        let first: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM log WHERE region = $1 AND incarnation = $2")
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
pub(super) async fn records(connection: &mut PgConnection, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, Error> {
    let mut records = vec![None; keys.len()];
    if keys.is_empty() {
        return Ok(records);
    }
    let mut found = sqlx::query_as::<_, (i64, i64, String, Vec<u8>, Vec<u8>, Option<Vec<u8>>)>(
        "SELECT wanted.place, record.home, record.id, version, body, value \
         FROM UNNEST($1::bigint[], $2::text[]) WITH ORDINALITY AS wanted (home, id, place) \
         JOIN record ON record.home = wanted.home AND record.id = wanted.id",
    )
    .bind(keys.iter().map(|key| i64::from(key.home.0)).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>())
    .fetch(connection);
    while let Some((place, home, id, version, body, value)) = found.try_next().await? {
        let index = place.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| records.get_mut(index));
        let slot = slot.ok_or_else(|| Error::Decode(format!("no key has the place {place}").into()))?;
        *slot = Some(rows::record((home, id, version, body, value))?);
    }
    Ok(records)
}

/// The remembered rows among these ids, in id order.
pub(super) async fn idempotency(connection: &mut PgConnection, op_ids: &[OpId]) -> Result<Vec<IdempotencyRow>, Error> {
    if op_ids.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<IdempotencyColumns> = sqlx::query_as(
        "SELECT op_id, region, incarnation, seq, home, id, version, request_hash FROM idempotency \
         WHERE op_id = ANY($1::bytea[]) ORDER BY op_id",
    )
    .bind(op_ids.iter().map(|op_id| op_id.0.as_bytes().to_vec()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::idempotency).collect()
}

/// One page of a log.
pub(super) async fn log(
    connection: &mut PgConnection,
    timeline: Timeline,
    after: u64,
    max_operations: usize,
    max_bytes: usize,
) -> Result<Vec<Operation>, Error> {
    let mut found = sqlx::query_scalar::<_, Vec<u8>>(
        "SELECT body FROM log WHERE region = $1 AND incarnation = $2 AND seq > $3 ORDER BY seq LIMIT $4",
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
    connection: &mut PgConnection,
    home: Option<RegionId>,
    after: Option<&RecordKey>,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let after = after.map_or((-1, ""), |key| (i64::from(key.home.0), key.id.as_str()));
    let query = match home.map(|home| i64::from(home.0)) {
        None => sqlx::query_as(
            "SELECT home, id, version, body, value FROM record WHERE (home, id) > ($1, $2) ORDER BY home, id LIMIT $3",
        )
        .bind(after.0)
        .bind(after.1.to_owned()),
        // The key is behind this whole home.
        Some(home) if after.0 > home => return Ok(Vec::new()),
        Some(home) => {
            let id = if after.0 == home { after.1 } else { "" };
            sqlx::query_as(
                "SELECT home, id, version, body, value FROM record WHERE home = $1 AND id > $2 ORDER BY id LIMIT $3",
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
    connection: &mut PgConnection,
    at_or_below: Version,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let found: Vec<RecordColumns> = sqlx::query_as(
        "SELECT home, id, version, body, value FROM record WHERE value IS NULL AND version <= $1 \
         ORDER BY version, home, id LIMIT $2",
    )
    .bind(at_or_below.to_bytes().to_vec())
    .bind(rows::limit(limit))
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::record).collect()
}

/// Conflicts, newest first.
pub(super) async fn conflicts(
    connection: &mut PgConnection,
    offset: u64,
    limit: usize,
) -> Result<Vec<ConflictRow>, Error> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT body FROM conflict ORDER BY found_ns DESC, loser_region DESC, loser_incarnation DESC, loser_seq DESC, \
         winner_region DESC, winner_incarnation DESC, winner_seq DESC LIMIT $1 OFFSET $2",
    )
    .bind(rows::limit(limit))
    .bind(i64::try_from(offset).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    found.iter().map(|body| rows::decode(body)).collect()
}

/// Quarantined operations by dot.
pub(super) async fn quarantine(
    connection: &mut PgConnection,
    offset: u64,
    limit: usize,
) -> Result<Vec<QuarantineRow>, Error> {
    let found: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM quarantine ORDER BY region, incarnation, seq LIMIT $1 OFFSET $2")
            .bind(rows::limit(limit))
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await?;
    found.iter().map(|body| rows::decode(body)).collect()
}

/// Remembered operations after an id.
pub(super) async fn operation_ids(
    connection: &mut PgConnection,
    after: Option<OpId>,
    limit: usize,
) -> Result<Vec<OperationId>, Error> {
    let after = after.map_or_else(Vec::new, |op_id| op_id.0.as_bytes().to_vec());
    let found: Vec<IdempotencyColumns> = sqlx::query_as(
        "SELECT op_id, region, incarnation, seq, home, id, version, request_hash FROM idempotency \
         WHERE op_id > $1 ORDER BY op_id LIMIT $2",
    )
    .bind(after)
    .bind(rows::limit(limit))
    .fetch_all(connection)
    .await?;
    let row = |columns| rows::idempotency(columns).map(OperationId::from);
    found.into_iter().map(row).collect()
}

/// Counts and sizes. Counting walks the tables: for people, not for every request.
pub(super) async fn stats(connection: &mut PgConnection) -> Result<StoreStats, Error> {
    let (rows, tombstones, operations, conflicts, quarantined, open): (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM record WHERE value IS NULL), \
                (SELECT count(*) FROM log), (SELECT count(*) FROM conflict), (SELECT count(*) FROM quarantine), \
                (SELECT count(*) FROM quarantine WHERE state = 0)",
    )
    .fetch_one(&mut *connection)
    .await?;
    let bytes: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class \
         WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'",
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
        bytes: bytes.cast_unsigned(),
    })
}
