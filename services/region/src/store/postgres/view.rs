//! What an instance sees that does not hold the store: committed rows, and the regime of the very same moment.
//!
//! Nothing is cached and nothing is told by messages, so that no bound on staleness is needed: each look is one
//! statement, hence one snapshot, and shows every commit that returned before it began.

use longhaul_core::ids::{RecordKey, RegionId};
use longhaul_core::limits::STORE_DEADLINE;
use longhaul_core::record::Record;
use longhaul_core::regime::Regime;
use longhaul_core::vector::VersionVector;
use sqlx::Error;
use sqlx::postgres::PgConnection;

use tokio::sync::Mutex;

use super::readers::Readers;
use super::server::Server;
use super::{PostgresStore, Writer};
use crate::store::{StoreError, rows};
use crate::writer::meta;

/// One moment of the store.
#[derive(Debug, Clone)]
pub struct Look {
    /// The adopted regime; none before the region has started for the first time.
    pub regime: Option<Regime>,
    /// How far each timeline is visible.
    pub visible: VersionVector,
    /// Records that a removed tail had touched are not repaired yet: reads would miss them.
    pub repairing: bool,
    /// The record that was asked for.
    pub record: Option<Record>,
}

/// Regime, repairs, positions (three arrays), and the record's columns.
type LookColumns = (
    Option<Vec<u8>>,
    bool,
    Option<Vec<i64>>,
    Option<Vec<i64>>,
    Option<Vec<i64>>,
    Option<i64>,
    Option<String>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

const LOOK: &str = "SELECT (SELECT value FROM meta WHERE name = $3), \
     EXISTS (SELECT 1 FROM quarantine WHERE NOT repaired), at.region, at.incarnation, at.visible, \
     record.home, record.id, record.version, record.body, record.value \
     FROM (SELECT array_agg(region ORDER BY region, incarnation) AS region, \
                  array_agg(incarnation ORDER BY region, incarnation) AS incarnation, \
                  array_agg(visible ORDER BY region, incarnation) AS visible FROM position) AS at \
     LEFT JOIN record ON record.home = $1 AND record.id = $2";

impl PostgresStore {
    /// A store that reads beside whoever writes. It connects when it is first asked.
    pub fn reading(server: &Server) -> Self {
        Self {
            server: server.clone(),
            term: 0,
            writer: Mutex::new(Writer::Closed),
            readers: Readers::new(server.clone()),
        }
    }

    /// The store at this moment, with one record if a key is given.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be used now.
    pub async fn look(&self, key: Option<&RecordKey>) -> Result<Look, StoreError> {
        self.read(STORE_DEADLINE, async move |reader| look(reader, key).await).await
    }
}

async fn look(connection: &mut PgConnection, key: Option<&RecordKey>) -> Result<Look, Error> {
    let (home, id) = key.map_or((-1, ""), |key| (i64::from(key.home.0), key.id.as_str()));
    let columns: LookColumns =
        sqlx::query_as(LOOK).bind(home).bind(id).bind(meta::REGIME).fetch_one(connection).await?;
    let (regime, repairing, regions, incarnations, visible, home, id, version, body, value) = columns;
    let regime = match regime {
        Some(text) => Some(serde_json::from_slice(&text).map_err(|error| Error::Decode(error.into()))?),
        None => None,
    };
    let timelines = regions.unwrap_or_default().into_iter().zip(incarnations.unwrap_or_default());
    let mut vector = VersionVector::default();
    for ((region, incarnation), seq) in timelines.zip(visible.unwrap_or_default()) {
        let dot = rows::dot(region, incarnation, seq)?;
        vector.set(dot.timeline, dot.seq);
    }
    let record = match (home, id, version, body) {
        (Some(home), Some(id), Some(version), Some(body)) => Some(rows::record((home, id, version, body, value))?),
        _ => None,
    };
    Ok(Look { regime, visible: vector, repairing, record })
}

impl Look {
    /// Whether the region serves reads, as far as its records go.
    pub fn is_ready(&self, me: RegionId) -> bool {
        !self.repairing && self.regime.as_ref().is_some_and(|regime| regime.is_active(me))
    }
}
