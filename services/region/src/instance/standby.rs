//! What an instance answers that does not hold the store: reads, and the regime, from the committed rows of the moment.
//! Everything else it forwards.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::{Consistency, GateRefusal, read_gate};
use longhaul_core::ids::RecordKey;
use longhaul_core::limits::{STORE_HOLD, STORE_HOLDER_SILENCE, VALUE_BYTES_MAX};
use longhaul_core::operation::TraceContext;
use longhaul_core::regime::Mode;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::problem::Problem;
use longhaul_http::watch;
use longhaul_http::{probe, trace};
use tokio_util::sync::CancellationToken;

use super::forward::forward;
use crate::config::RegionConfig;
use crate::handlers::{gate_problem, problem, reading};
use crate::state::{Parts, Region, Tenure};
use crate::store::StoreError;
use crate::store::postgres::{Holder, Look, PostgresStore, Server};
use crate::writer::WriterHandle;

/// How often a read of a session looks whether what the session has seen is visible.
const SESSION_POLL: Duration = Duration::from_millis(10);

/// A reader's state: the region as far as reading goes, without a writer and without tasks.
pub(super) struct Standby {
    region: Region,
    store: Arc<PostgresStore>,
    holder: watch::Sender<Holder>,
}

impl Standby {
    pub(super) fn new(
        config: &RegionConfig,
        server: &Server,
        client: &HttpClient,
        clock: &SharedClock,
        holder: Holder,
    ) -> Arc<Self> {
        let store = Arc::new(PostgresStore::reading(server));
        // Nobody takes what is sent to this writer: nothing is sent.
        let (writer, _) = WriterHandle::channel();
        let parts = Parts {
            clock: Arc::clone(clock),
            store: Arc::clone(&store) as crate::state::SharedStore,
            client: client.clone(),
            shutdown: CancellationToken::new(),
            writer,
            regime: config.genesis_regime(),
            positions: std::collections::BTreeMap::new(),
            tenure: Tenure::unlimited(),
        };
        Arc::new(Self { region: Region::new(config.clone(), parts), store, holder: watch::Sender::new(holder) })
    }

    /// Takes note of who holds the store.
    pub(super) fn learn(&self, holder: Holder) {
        self.holder.send_replace(holder);
    }

    /// Where the holder is, if it has lately proved that it lives.
    fn holder(&self) -> Option<String> {
        let holder = self.holder.borrow();
        (!holder.released && holder.silent_for < STORE_HOLD).then(|| holder.address.clone())
    }

    /// One look at the store; the regime that it shows is this instance's from now on.
    async fn look(&self, key: Option<&RecordKey>) -> Result<Look, StoreError> {
        let look = self.store.look(key).await?;
        if let Some(regime) = &look.regime
            && regime.epoch > self.region.regime().epoch
        {
            self.region.publish_regime(Arc::new(regime.clone()));
        }
        Ok(look)
    }

    /// One look from which reads may be answered.
    async fn ready(&self, key: Option<&RecordKey>, trace: Option<TraceContext>) -> Result<Look, Problem> {
        let look = self.look(key).await;
        let look =
            look.map_err(|error| problem(&self.region, ErrorCode::StoreUnavailable, error.to_string(), trace))?;
        if look.is_ready(self.region.id()) {
            Ok(look)
        } else {
            Err(gate_problem(&self.region, GateRefusal::NotReady, trace))
        }
    }
}

/// What a reader answers.
pub(super) fn router(standby: &Arc<Standby>) -> Router {
    let region = &standby.region;
    Router::new()
        .route("/v1/records/{home}/{id}", get(get_record).fallback(pass_on))
        .route("/v1/regime", get(regime))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(readyz))
        .fallback(pass_on)
        .with_state(Arc::clone(standby))
        .merge(probe::router(region.client.clone(), Arc::clone(&region.clock)))
        .layer(DefaultBodyLimit::max(VALUE_BYTES_MAX * 64))
        .layer(from_fn_with_state(region.trace_ids.clone(), trace::server_span))
}

async fn pass_on(State(standby): State<Arc<Standby>>, request: Request) -> Response {
    let mut holders = standby.holder.subscribe();
    let term = holders.borrow_and_update().term;
    // Whoever waits for a holder that is paused or gone is told so when the others notice.
    let gone = async move {
        let gone = holders.wait_for(|holder| holder.term != term || holder.silent_for >= STORE_HOLDER_SILENCE);
        if gone.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    forward(&standby.region.client, standby.region.config.name(), standby.holder(), gone, request).await
}

async fn regime(State(standby): State<Arc<Standby>>) -> Response {
    match standby.look(None).await {
        Ok(_) => Json(standby.region.regime().as_ref()).into_response(),
        Err(error) => problem(&standby.region, ErrorCode::StoreUnavailable, error.to_string(), None).into_response(),
    }
}

async fn readyz(State(standby): State<Arc<Standby>>) -> Response {
    match standby.ready(None, None).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Reads a record. A `primary` read of active-passive needs the lease, which only the holder has.
async fn get_record(
    State(standby): State<Arc<Standby>>,
    Path((home, id)): Path<(String, String)>,
    trace: Option<Extension<TraceContext>>,
    request: Request,
) -> Response {
    let trace = trace.map(|Extension(trace)| trace);
    let region = &standby.region;
    let asked = match reading::parse(region, &home, &id, request.headers()) {
        Ok(asked) => asked,
        Err((code, detail)) => return problem(region, code, detail, trace).into_response(),
    };
    if asked.consistency == Consistency::Primary && region.regime().mode == Mode::ActivePassive {
        return pass_on(State(standby), request).await;
    }
    let headers: HeaderMap = request.headers().clone();
    match read(&standby, asked, &headers, trace).await {
        Ok(Some(answer)) => answer,
        // The regime has just become one of a primary.
        Ok(None) => pass_on(State(standby), request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn read(
    standby: &Standby,
    asked: reading::Asked,
    headers: &HeaderMap,
    trace: Option<TraceContext>,
) -> Result<Option<Response>, Problem> {
    let region = &standby.region;
    let wait = Duration::from_millis(region.config.timings.session_wait_ms);
    let until = tokio::time::Instant::now() + wait;
    loop {
        let look = standby.ready(Some(&asked.key), trace).await?;
        // The regime of the same snapshot as the record.
        let regime = look.regime.unwrap_or_else(|| region.regime().as_ref().clone());
        if asked.consistency == Consistency::Primary && regime.mode == Mode::ActivePassive {
            return Ok(None);
        }
        read_gate(&regime, region.id(), asked.key.home, asked.consistency)
            .map_err(|refusal| gate_problem(region, refusal, trace))?;
        let token = asked.token.as_ref().filter(|_| reading::is_of_session(asked.consistency, &regime));
        let needed = token.map(|token| reading::needed(region, &regime, token)).transpose();
        let needed = needed.map_err(|(code, detail)| problem(region, code, detail, trace))?.unwrap_or_default();
        if look.visible.dominates(&needed) && token.is_none_or(|token| token.epoch <= regime.epoch) {
            region.counters.reads.add(1);
            return Ok(Some(reading::shown(region, &regime, look.record, asked.token, headers, trace)));
        }
        if tokio::time::Instant::now() >= until {
            return Err(reading::behind(region, wait, trace));
        }
        tokio::time::sleep(SESSION_POLL).await;
    }
}
