//! One transaction for everything that changes together.

use std::collections::BTreeMap;

use longhaul_core::ids::Timeline;
use sqlx::postgres::{PgConnection, PgQueryResult};
use sqlx::{Connection as _, Error};

use super::error::Failure;
use super::hold::fence;
use crate::store::rows::{RecordBody, encode, integer, state_code};
use crate::store::{Commit, ConflictRow, IdempotencyRow, QuarantineRow};

/// Columns of a dot, as arrays.
#[derive(Default)]
struct Dots {
    region: Vec<i64>,
    incarnation: Vec<i64>,
    seq: Vec<i64>,
}

impl Dots {
    fn push(&mut self, dot: longhaul_core::ids::Dot) -> Result<(), Error> {
        self.region.push(dot.timeline.region.0.into());
        self.incarnation.push(dot.timeline.incarnation.0.into());
        self.seq.push(integer(dot.seq)?);
        Ok(())
    }
}

/// Of rows under one key the last, in key order: a statement must not touch a row twice, and a fixed order keeps
/// neighbours together.
fn last_of<K: Ord, R>(rows: impl IntoIterator<Item = R>, key: impl Fn(&R) -> K) -> Vec<R> {
    rows.into_iter().map(|row| (key(&row), row)).collect::<BTreeMap<K, R>>().into_values().collect()
}

/// Writes a commit under a term. It fails without a trace if another instance has taken the store over.
pub(super) async fn write(connection: &mut PgConnection, term: i64, commit: Commit) -> Result<(), Failure> {
    let mut transaction = connection.begin().await?;
    fence(&mut transaction, term).await?;
    remove(&mut transaction, &commit).await?;
    append(&mut transaction, &commit).await?;
    remember(&mut transaction, commit.idempotency).await?;
    set_records(&mut transaction, commit.records).await?;
    set_conflicts(&mut transaction, &commit.conflicts).await?;
    set_quarantine(&mut transaction, commit.quarantine).await?;
    set_positions(&mut transaction, commit.positions).await?;
    set_digests(&mut transaction, commit.digests).await?;
    set_meta(&mut transaction, commit.meta).await?;
    transaction.commit().await?;
    Ok(())
}

/// Removes log entries up to each bound.
pub(super) async fn trim_log(
    connection: &mut PgConnection,
    term: i64,
    bounds: &[(Timeline, u64)],
) -> Result<(), Failure> {
    let mut transaction = connection.begin().await?;
    fence(&mut transaction, term).await?;
    for (timeline, seq) in bounds {
        const LOG: &str = "DELETE FROM log WHERE region = $1 AND incarnation = $2 AND seq <= $3";
        run_on(&mut transaction, LOG, *timeline, Some(*seq)).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for (timeline, seq) in &commit.truncated {
        const IDEMPOTENCY: &str = "DELETE FROM idempotency WHERE region = $1 AND incarnation = $2 AND seq > $3";
        const LOG: &str = "DELETE FROM log WHERE region = $1 AND incarnation = $2 AND seq > $3";
        run_on(connection, IDEMPOTENCY, *timeline, Some(*seq)).await?;
        run_on(connection, LOG, *timeline, Some(*seq)).await?;
    }
    for timeline in &commit.forgotten {
        run_on(connection, "DELETE FROM log WHERE region = $1 AND incarnation = $2", *timeline, None).await?;
        run_on(connection, "DELETE FROM position WHERE region = $1 AND incarnation = $2", *timeline, None).await?;
    }
    if !commit.removed_records.is_empty() {
        let homes: Vec<i64> = commit.removed_records.iter().map(|key| key.home.0.into()).collect();
        let ids: Vec<&str> = commit.removed_records.iter().map(|key| key.id.as_str()).collect();
        sqlx::query("DELETE FROM record WHERE (home, id) IN (SELECT * FROM UNNEST($1::bigint[], $2::text[]))")
            .bind(homes)
            .bind(ids)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn run_on(
    connection: &mut PgConnection,
    statement: &'static str,
    timeline: Timeline,
    seq: Option<u64>,
) -> Result<PgQueryResult, Error> {
    let query = sqlx::query(statement).bind(i64::from(timeline.region.0)).bind(i64::from(timeline.incarnation.0));
    let query = match seq {
        Some(seq) => query.bind(integer(seq)?),
        None => query,
    };
    query.execute(connection).await
}

async fn append(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if commit.operations.is_empty() {
        return Ok(());
    }
    let (mut dots, mut bodies) = (Dots::default(), Vec::with_capacity(commit.operations.len()));
    for operation in &commit.operations {
        dots.push(operation.dot)?;
        bodies.push(encode(operation)?);
    }
    sqlx::query(
        "INSERT INTO log (region, incarnation, seq, body) \
         SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[])",
    )
    .bind(dots.region)
    .bind(dots.incarnation)
    .bind(dots.seq)
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

async fn remember(connection: &mut PgConnection, mut rows: Vec<IdempotencyRow>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // The sort is stable: the first of equal ids stays first, and stays.
    rows.sort_by_key(|row| row.op_id);
    rows.dedup_by_key(|row| row.op_id);
    let mut dots = Dots::default();
    for row in &rows {
        dots.push(row.dot)?;
    }
    sqlx::query(
        "INSERT INTO idempotency (op_id, region, incarnation, seq, home, id, version, request_hash) SELECT * FROM \
         UNNEST($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], \
         $8::bigint[]) ON CONFLICT DO NOTHING",
    )
    .bind(rows.iter().map(|row| row.op_id.0.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(dots.region)
    .bind(dots.incarnation)
    .bind(dots.seq)
    .bind(rows.iter().map(|row| i64::from(row.key.home.0)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.key.id.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.version.to_bytes().to_vec()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.request_hash.cast_signed()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_records(connection: &mut PgConnection, records: Vec<longhaul_core::record::Record>) -> Result<(), Error> {
    if records.is_empty() {
        return Ok(());
    }
    let records = last_of(records, |record| record.key.clone());
    let bodies = records.iter().map(RecordBody::encode).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO record (home, id, version, body, value) SELECT * FROM \
         UNNEST($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[]) ON CONFLICT (home, id) DO UPDATE SET \
         version = excluded.version, body = excluded.body, value = excluded.value",
    )
    .bind(records.iter().map(|record| i64::from(record.key.home.0)).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.key.id.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.version.to_bytes().to_vec()).collect::<Vec<_>>())
    .bind(bodies)
    .bind(records.iter().map(|record| record.value.as_ref().map(|value| value.to_vec())).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_conflicts(connection: &mut PgConnection, rows: &[ConflictRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let (mut losers, mut winners, mut found, mut bodies) = (Dots::default(), Dots::default(), Vec::new(), Vec::new());
    for row in rows {
        losers.push(row.loser)?;
        winners.push(row.winner)?;
        found.push(integer(row.found_ns)?);
        bodies.push(encode(row)?);
    }
    sqlx::query(
        "INSERT INTO conflict (loser_region, loser_incarnation, loser_seq, winner_region, winner_incarnation, \
         winner_seq, home, found_ns, body) SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], \
         $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[]) ON CONFLICT DO NOTHING",
    )
    .bind(losers.region)
    .bind(losers.incarnation)
    .bind(losers.seq)
    .bind(winners.region)
    .bind(winners.incarnation)
    .bind(winners.seq)
    .bind(rows.iter().map(|row| i64::from(row.key.home.0)).collect::<Vec<_>>())
    .bind(found)
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_quarantine(connection: &mut PgConnection, rows: Vec<QuarantineRow>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows = last_of(rows, |row| row.operation.dot);
    let (mut dots, mut bodies) = (Dots::default(), Vec::with_capacity(rows.len()));
    for row in &rows {
        dots.push(row.operation.dot)?;
        bodies.push(encode(row)?);
    }
    sqlx::query(
        "INSERT INTO quarantine (region, incarnation, seq, home, state, repaired, body) SELECT * FROM \
         UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bytea[]) \
         ON CONFLICT (region, incarnation, seq) DO UPDATE SET home = excluded.home, state = excluded.state, \
         repaired = excluded.repaired, body = excluded.body",
    )
    .bind(dots.region)
    .bind(dots.incarnation)
    .bind(dots.seq)
    .bind(rows.iter().map(|row| i64::from(row.operation.home.0)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| state_code(row.state)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.repaired).collect::<Vec<_>>())
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_positions(
    connection: &mut PgConnection,
    positions: Vec<(Timeline, crate::store::Position)>,
) -> Result<(), Error> {
    if positions.is_empty() {
        return Ok(());
    }
    let positions = last_of(positions, |(timeline, _)| *timeline);
    let (mut dots, mut visible) = (Dots::default(), Vec::new());
    for (timeline, at) in &positions {
        dots.push(longhaul_core::ids::Dot { timeline: *timeline, seq: at.seq })?;
        visible.push(integer(at.visible)?);
    }
    sqlx::query(
        "INSERT INTO position (region, incarnation, seq, visible, version, chain) SELECT * FROM \
         UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[]) \
         ON CONFLICT (region, incarnation) DO UPDATE SET seq = excluded.seq, visible = excluded.visible, \
         version = excluded.version, chain = excluded.chain",
    )
    .bind(dots.region)
    .bind(dots.incarnation)
    .bind(dots.seq)
    .bind(visible)
    .bind(positions.iter().map(|(_, at)| at.version.to_bytes().to_vec()).collect::<Vec<_>>())
    .bind(positions.iter().map(|(_, at)| at.chain.0.to_vec()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_digests(
    connection: &mut PgConnection,
    digests: Vec<((longhaul_core::ids::RegionId, u16), crate::store::BucketDigest)>,
) -> Result<(), Error> {
    if digests.is_empty() {
        return Ok(());
    }
    let digests = last_of(digests, |(place, _)| *place);
    let counts = digests.iter().map(|(_, digest)| integer(digest.rows)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO digest (home, bucket, rows, sum) SELECT * FROM \
         UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[]) \
         ON CONFLICT (home, bucket) DO UPDATE SET rows = excluded.rows, sum = excluded.sum",
    )
    .bind(digests.iter().map(|((home, _), _)| i64::from(home.0)).collect::<Vec<_>>())
    .bind(digests.iter().map(|((_, bucket), _)| i64::from(*bucket)).collect::<Vec<_>>())
    .bind(counts)
    .bind(digests.iter().map(|(_, digest)| digest.sum.to_be_bytes().to_vec()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_meta(connection: &mut PgConnection, meta: Vec<(String, bytes::Bytes)>) -> Result<(), Error> {
    if meta.is_empty() {
        return Ok(());
    }
    let meta = last_of(meta, |(name, _)| name.clone());
    sqlx::query(
        "INSERT INTO meta (name, value) SELECT * FROM UNNEST($1::text[], $2::bytea[]) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(meta.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
    .bind(meta.iter().map(|(_, value)| value.to_vec()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
