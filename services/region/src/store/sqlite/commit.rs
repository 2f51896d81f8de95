//! One transaction for everything that changes together.

use longhaul_core::ids::Timeline;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};

use super::bulk::Bulk;
use crate::failpoint::{FailPoint, reach};
use crate::store::Commit;
use crate::store::rows::{RecordBody, encode, integer, state_code};

const LOG: Bulk = Bulk { before: "INSERT INTO log (region, incarnation, seq, body)", columns: 4, after: "" };

const RECORDS: Bulk = Bulk {
    before: "INSERT INTO record (home, id, version, body, value)",
    columns: 5,
    after: "ON CONFLICT DO UPDATE SET version = excluded.version, body = excluded.body, value = excluded.value",
};

const REMOVED_RECORDS: Bulk = Bulk { before: "DELETE FROM record WHERE (home, id) IN (", columns: 2, after: ")" };

const IDEMPOTENCY: Bulk = Bulk {
    before: "INSERT INTO idempotency (op_id, region, incarnation, seq, home, id, version, request_hash)",
    columns: 8,
    after: "ON CONFLICT DO NOTHING",
};

const CONFLICTS: Bulk = Bulk {
    before: "INSERT INTO conflict (loser_region, loser_incarnation, loser_seq, winner_region, winner_incarnation, \
             winner_seq, home, found_ns, body)",
    columns: 9,
    after: "ON CONFLICT DO NOTHING",
};

const QUARANTINE: Bulk = Bulk {
    before: "INSERT INTO quarantine (region, incarnation, seq, home, state, body)",
    columns: 6,
    after: "ON CONFLICT DO UPDATE SET home = excluded.home, state = excluded.state, body = excluded.body",
};

const POSITIONS: Bulk = Bulk {
    before: "INSERT INTO position (region, incarnation, seq, visible, version, chain)",
    columns: 6,
    after: "ON CONFLICT DO UPDATE SET seq = excluded.seq, visible = excluded.visible, version = excluded.version, \
            chain = excluded.chain",
};

const DIGESTS: Bulk = Bulk {
    before: "INSERT INTO digest (home, bucket, rows, sum)",
    columns: 4,
    after: "ON CONFLICT DO UPDATE SET rows = excluded.rows, sum = excluded.sum",
};

const META: Bulk = Bulk {
    before: "INSERT INTO meta (name, value)",
    columns: 2,
    after: "ON CONFLICT DO UPDATE SET value = excluded.value",
};

/// Writes a commit. `BEGIN IMMEDIATE`, because a transaction that starts as a reader and then writes can be refused at
/// once however long the busy timeout is.
pub(super) async fn write(connection: &mut SqliteConnection, commit: Commit) -> Result<(), Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    remove(&mut transaction, &commit).await?;
    append(&mut transaction, &commit).await?;
    if !commit.operations.is_empty() {
        reach(FailPoint::InsideCommit);
    }
    set_records(&mut transaction, commit.records).await?;
    set_asides(&mut transaction, commit.conflicts, commit.quarantine).await?;
    POSITIONS
        .run(&mut transaction, &commit.positions, |(timeline, at), values| {
            values.timeline(*timeline)?;
            values.number(at.seq)?;
            values.number(at.visible)?;
            values.blob(at.version.to_bytes().to_vec())?;
            values.blob(at.chain.0.to_vec())
        })
        .await?;
    DIGESTS
        .run(&mut transaction, &commit.digests, |((home, bucket), digest), values| {
            values.number(home.0.into())?;
            values.number((*bucket).into())?;
            values.number(digest.rows)?;
            values.blob(digest.sum.to_be_bytes().to_vec())
        })
        .await?;
    META.run(&mut transaction, &commit.meta, |(name, value), values| {
        values.text(name)?;
        values.blob(value.to_vec())
    })
    .await?;
    transaction.commit().await
}

async fn remove(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for (timeline, seq) in &commit.truncated {
        const IDEMPOTENCY: &str = "DELETE FROM idempotency WHERE region = ? AND incarnation = ? AND seq > ?";
        const LOG: &str = "DELETE FROM log WHERE region = ? AND incarnation = ? AND seq > ?";
        run_on(connection, IDEMPOTENCY, *timeline, Some(*seq)).await?;
        run_on(connection, LOG, *timeline, Some(*seq)).await?;
    }
    for timeline in &commit.forgotten {
        run_on(connection, "DELETE FROM log WHERE region = ? AND incarnation = ?", *timeline, None).await?;
        run_on(connection, "DELETE FROM position WHERE region = ? AND incarnation = ?", *timeline, None).await?;
    }
    REMOVED_RECORDS
        .run(connection, &commit.removed_records, |key, values| {
            values.number(key.home.0.into())?;
            values.text(key.id.as_str())
        })
        .await
}

/// Removes log entries up to each bound.
pub(super) async fn trim_log(connection: &mut SqliteConnection, bounds: &[(Timeline, u64)]) -> Result<(), Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (timeline, seq) in bounds {
        const LOG: &str = "DELETE FROM log WHERE region = ? AND incarnation = ? AND seq <= ?";
        run_on(&mut transaction, LOG, *timeline, Some(*seq)).await?;
    }
    transaction.commit().await
}

async fn run_on(
    connection: &mut SqliteConnection,
    statement: &'static str,
    timeline: Timeline,
    seq: Option<u64>,
) -> Result<(), Error> {
    let query = sqlx::query(statement).bind(i64::from(timeline.region.0)).bind(i64::from(timeline.incarnation.0));
    let query = match seq {
        Some(seq) => query.bind(integer(seq)?),
        None => query,
    };
    query.execute(connection).await?;
    Ok(())
}

async fn append(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    LOG.run(connection, &commit.operations, |operation, values| {
        values.dot(operation.dot)?;
        values.blob(encode(operation)?)
    })
    .await?;
    // In key order neighbours share a page. The sort is stable: the first of equal ids stays first.
    let mut rows: Vec<_> = commit.idempotency.iter().collect();
    rows.sort_by_key(|row| row.op_id);
    IDEMPOTENCY
        .run(connection, &rows, |row, values| {
            values.blob(row.op_id.0.as_bytes().to_vec())?;
            values.dot(row.dot)?;
            values.number(row.key.home.0.into())?;
            values.text(row.key.id.as_str())?;
            values.blob(row.version.to_bytes().to_vec())?;
            values.signed(row.request_hash.cast_signed())
        })
        .await
}

async fn set_records(
    connection: &mut SqliteConnection,
    mut records: Vec<longhaul_core::record::Record>,
) -> Result<(), Error> {
    records.sort_by(|a, b| a.key.cmp(&b.key));
    RECORDS
        .run(connection, &records, |record, values| {
            values.number(record.key.home.0.into())?;
            values.text(record.key.id.as_str())?;
            values.blob(record.version.to_bytes().to_vec())?;
            values.blob(RecordBody::encode(record)?)?;
            values.blob_or_null(record.value.as_deref())
        })
        .await
}

async fn set_asides(
    connection: &mut SqliteConnection,
    conflicts: Vec<crate::store::ConflictRow>,
    quarantine: Vec<crate::store::QuarantineRow>,
) -> Result<(), Error> {
    CONFLICTS
        .run(connection, &conflicts, |row, values| {
            values.dot(row.loser)?;
            values.dot(row.winner)?;
            values.number(row.key.home.0.into())?;
            values.number(row.found_ns)?;
            values.blob(encode(row)?)
        })
        .await?;
    QUARANTINE
        .run(connection, &quarantine, |row, values| {
            values.dot(row.operation.dot)?;
            values.number(row.operation.home.0.into())?;
            values.signed(state_code(row.state))?;
            values.blob(encode(row)?)
        })
        .await
}
