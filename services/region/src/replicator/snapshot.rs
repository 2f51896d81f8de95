//! Snapshots over HTTP: pages of rows in key order, merged by the writer as they come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::Request;
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::{RecordId, RecordKey, RegionId};
use longhaul_core::limits::{REQUEST_DEADLINE, VALUE_BYTES_MAX};
use longhaul_core::record::Record;
use longhaul_core::regime::Mode;
use longhaul_core::replication::snapshot::SnapshotHeader;
use longhaul_core::replication::{Position, Positions};
use longhaul_core::version::Version;
use longhaul_http::client::success;
use longhaul_http::problem::Problem;
use serde::{Deserialize, Serialize};

use super::StreamEnd;
use super::conversation::{data_flows, is_merging};
use super::puller::authorize;
use crate::state::{Blocker, Region};
use crate::store::StoreError;
use crate::writer::SnapshotChunk;

/// The endpoint.
pub const SNAPSHOT_PATH: &str = "/internal/v1/snapshot";
/// Most rows in one page.
pub const SNAPSHOT_ROWS_MAX: usize = 2000;
/// About so many bytes in one page.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct PageQuery {
    /// Only records of this home.
    home: Option<RegionId>,
    /// After the record with this home ...
    after_home: Option<RegionId>,
    /// ... and id.
    after: Option<RecordId>,
    /// Most rows.
    limit: Option<usize>,
    /// Who asks.
    by: Option<RegionId>,
}

/// One page, as a peer sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    /// What the source had before it read this page; that of the first page counts.
    header: SnapshotHeader,
    /// The home that the source restricts the snapshot to (isolation).
    home: Option<RegionId>,
    rows: Vec<Record>,
    /// Homes whose records the source has purged and not merged again.
    lacking: BTreeSet<RegionId>,
    /// Whether the table ends here.
    last: bool,
}

/// Answers one page.
pub(super) async fn serve_page(State(region): State<Arc<Region>>, Query(query): Query<PageQuery>) -> Response {
    let regime = region.regime();
    // A home that was frozen comes back for its own records, from whoever kept them for it.
    let returning = query.home.filter(|home| *home != region.id() && regime.frozen_homes.contains(home));
    if !data_flows(&regime) && returning.is_none() {
        let detail = "nothing is replicated in regional isolation; leave the mode to replicate again";
        return Problem::new(ErrorCode::WrongHome, detail).into_response();
    }
    if query.home.is_some() && returning.is_none() && !is_merging(&regime) {
        // Whoever asks does not know yet that regions write for other homes again: the rows of one home no longer stand for
        // a timeline.
        let detail = "homes are merged already; ask again under the present regime";
        return Problem::new(ErrorCode::NotReady, detail).into_response();
    }
    if region.blockers().contains(&Blocker::Repairing) {
        // Records that a removed tail had touched are absent here, and were not deleted.
        let detail = "this region repairs records that a removed tail had touched; ask another one";
        return Problem::new(ErrorCode::NotReady, detail).into_response();
    }
    let lacking = region.unmerged_homes();
    if !is_merging(&regime) && returning.is_none() && lacking.iter().any(|home| Some(*home) != query.by) {
        // Its vector would say "deleted" of rows that were only purged.
        let detail = "this region has not merged the records of other homes again since isolation; ask another one";
        return Problem::new(ErrorCode::NotReady, detail).into_response();
    }
    // On the way out of isolation each home offers its own set, and nothing else.
    let home = if is_merging(&regime) && returning.is_none() { Some(region.id()) } else { query.home };
    match page(&region, home, query, lacking).await.map(|page| postcard::to_allocvec(&page)) {
        Ok(Ok(bytes)) => ([(http::header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Ok(Err(error)) => Problem::new(ErrorCode::Internal, error.to_string()).into_response(),
        Err(error) => Problem::new(ErrorCode::StoreFailed, error.to_string()).into_response(),
    }
}

/// Reads one page. `lacking` is from before: what is merged while the rows are read may be in them or not.
async fn page(
    region: &Region,
    home: Option<RegionId>,
    query: PageQuery,
    lacking: BTreeSet<RegionId>,
) -> Result<Page, StoreError> {
    let regime = region.regime();
    let positions = shown_positions(region, home.filter(|_| regime.mode == Mode::RegionalIsolation)).await?;
    let hlc = positions.values().map(|position| position.version).max().unwrap_or(Version::ZERO);
    let header = SnapshotHeader {
        region: region.id(),
        epoch: regime.epoch,
        dataset_generation: regime.dataset_generation,
        positions,
        hlc,
    };
    let after = query.after_home.zip(query.after).map(|(home, id)| RecordKey { home, id });
    let limit = query.limit.unwrap_or(SNAPSHOT_ROWS_MAX).clamp(1, SNAPSHOT_ROWS_MAX);
    let mut rows = region.store.scan(home, after.as_ref(), limit).await?;
    let mut last = rows.len() < limit;
    let mut bytes = 0;
    let fits = rows.iter().take_while(|row| {
        bytes += 256 + row.value.as_ref().map_or(0, Bytes::len);
        bytes <= PAGE_BYTES_MAX + VALUE_BYTES_MAX
    });
    let fits = fits.count();
    if fits < rows.len() {
        rows.truncate(fits.max(1));
        last = false;
    }
    Ok(Page { header, home, rows, lacking, last })
}

/// Positions as far as the rows show them: operations that are logged and not visible are not in the rows, so the
/// puller must get them from the log.
async fn shown_positions(region: &Region, only: Option<RegionId>) -> Result<Positions, StoreError> {
    let mut shown = Positions::new();
    let positions = region.positions();
    for (timeline, position) in positions.iter().filter(|(tl, _)| only.is_none_or(|region| tl.region == region)) {
        if position.visible == position.seq {
            shown.insert(*timeline, *position);
        } else if position.visible > 0 {
            let last = region.store.log(*timeline, position.visible - 1, 1, 1).await?;
            if let Some(last) = last.first().filter(|last| last.dot.seq == position.visible) {
                let seq = position.visible;
                shown.insert(*timeline, Position { seq, visible: seq, version: last.version, chain: last.chain });
            }
        }
    }
    Ok(shown)
}

/// Fetches a snapshot from `peer` and merges it.
pub(super) async fn fetch(region: &Arc<Region>, peer: RegionId) -> Result<(), StreamEnd> {
    let merging = is_merging(&region.regime());
    tracing::info!(
        peer = region.config.name_of(peer),
        "a snapshot is fetched: the log alone does not bring everything"
    );
    // In isolation requests go on at home: what comes in is of other homes.
    let _blocked = (!merging).then(|| Blocked::new(region));
    merge_pages(region, peer, merging.then_some(peer)).await
}

/// Fetches from `peer` the records of this region's own home, which was frozen while this region was away.
pub(crate) async fn fetch_own_home(region: &Arc<Region>, peer: RegionId) -> Result<(), StreamEnd> {
    // Its positions stay: in isolation nobody else's timelines count, and its own are sealed where the others have them.
    merge_rows(region, peer, Some(region.id())).await.map(|_| ())
}

/// Keeps the region from serving while a snapshot is merged, also if the stream ends in the middle of it.
struct Blocked<'a>(&'a Region);

impl<'a> Blocked<'a> {
    fn new(region: &'a Region) -> Self {
        region.snapshots_under_way.fetch_add(1, Ordering::AcqRel);
        region.block(Blocker::Snapshot, true);
        Self(region)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        // Several peers may send theirs at the same time.
        if self.0.snapshots_under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.block(Blocker::Snapshot, false);
        }
    }
}

async fn merge_pages(region: &Arc<Region>, peer: RegionId, home: Option<RegionId>) -> Result<(), StreamEnd> {
    let header = Arc::new(merge_rows(region, peer, home).await?);
    region.writer.snapshot_finish(header, home).await?.map_err(StreamEnd::Snapshot)
}

/// Merges the rows, page by page; what they stand for is for the caller to take.
async fn merge_rows(region: &Arc<Region>, peer: RegionId, home: Option<RegionId>) -> Result<SnapshotHeader, StreamEnd> {
    let mut query = PageQuery { home, ..PageQuery::default() };
    let mut header: Option<SnapshotHeader> = None;
    loop {
        let page = fetch_page(region, peer, &query).await?;
        if page.home != home {
            return Err(StreamEnd::Snapshot("the source merges homes, or no longer does".to_owned()));
        }
        let greatest = page.rows.iter().map(|row| row.version).max().unwrap_or(Version::ZERO);
        let epoch = page.header.epoch;
        let header = header.get_or_insert(page.header);
        if header.epoch != epoch {
            return Err(StreamEnd::Snapshot("the source adopted another regime meanwhile".to_owned()));
        }
        header.hlc = header.hlc.max(greatest);
        if header.dataset_generation != region.regime().dataset_generation {
            return Err(StreamEnd::Generation);
        }
        let end = page.rows.last().map(|row| row.key.clone()).filter(|_| !page.last);
        let after = query.after_home.zip(query.after.clone()).map(|(home, id)| RecordKey { home, id });
        let chunk = SnapshotChunk {
            header: Arc::new(header.clone()),
            home: page.home,
            after,
            up_to: end.clone(),
            rows: page.rows,
            lacking: page.lacking,
        };
        region.writer.snapshot_chunk(chunk).await?.map_err(StreamEnd::Snapshot)?;
        match end {
            Some(end) => {
                query.after_home = Some(end.home);
                query.after = Some(end.id);
            }
            None => break,
        }
    }
    header.ok_or(StreamEnd::OutOfPlace)
}

async fn fetch_page(region: &Region, peer: RegionId, query: &PageQuery) -> Result<Page, StreamEnd> {
    let address = region.directory.address(peer).unwrap_or_default();
    let mut path = format!("{SNAPSHOT_PATH}?limit={SNAPSHOT_ROWS_MAX}&by={}", region.id());
    if let Some(home) = query.home {
        path.push_str(&format!("&home={home}"));
    }
    if let (Some(home), Some(id)) = (query.after_home, &query.after) {
        path.push_str(&format!("&after_home={home}&after={id}"));
    }
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().map_err(|_| StreamEnd::OutOfPlace)?;
    authorize(region, request.headers_mut());
    // A page is up to 4 MiB, which a slow link carries in a while.
    let answer = region.client.send(address, request, REQUEST_DEADLINE * 10).await?;
    let answer = success(address, answer)?;
    postcard::from_bytes(answer.body())
        .map_err(|error| StreamEnd::Stopped(format!("a snapshot page is malformed: {error}")))
}
