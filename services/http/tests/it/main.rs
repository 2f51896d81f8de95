//! The client, the server and the upgrade, over real sockets on loopback.

mod boot_clock;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{Listener, Net, TokioNet};
use longhaul_http::problem::Problem;
use longhaul_http::serve::serve;
use longhaul_http::trace::{TRACEPARENT, TraceIds, server_span};
use longhaul_http::{auth, probe, upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

struct Server {
    address: String,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "the test joins the task in stop()")]
async fn start(router: Router) -> Server {
    let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, stop.clone()));
    Server { address, stop, task }
}

impl Server {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn client() -> HttpClient {
    HttpClient::new(Arc::new(TokioNet))
}

#[tokio::test]
async fn json_goes_there_and_back() {
    let server = start(Router::new().route("/double", post(|Json(n): Json<u64>| async move { Json(2 * n) }))).await;
    let answer: u64 = client().post(&server.address, "/double", &21, SECOND).await.unwrap();
    assert_eq!(answer, 42);
    server.stop().await;
}

#[tokio::test]
async fn a_refused_connection_had_no_effect() {
    let server = start(Router::new()).await;
    let address = server.address.clone();
    server.stop().await;
    let error = client().get::<()>(&address, "/", SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert_eq!(error.effect(), Effect::None);
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_request_leaves_an_unknown_outcome() {
    let mut listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let breaker = async {
        let (mut io, _) = listener.accept_io().await.unwrap();
        let mut some = [0; 16];
        io.read_exact(&mut some).await.unwrap();
    };
    let client = client();
    let ((), error) = tokio::join!(breaker, client.get::<()>(&address, "/", SECOND));
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Broken { .. }), "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
}

#[tokio::test]
async fn silence_ends_at_the_deadline_with_an_unknown_outcome() {
    let mut listener: Listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let client = client();
    let call = client.get::<()>(&address, "/", Duration::from_millis(50));
    let (accepted, error) = tokio::join!(listener.accept_io(), call);
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
    drop(accepted);
}

#[tokio::test]
async fn a_problem_arrives_with_its_code() {
    let refuse = || async { Problem::new(ErrorCode::WrongHome, "the home is eu").into_response() };
    let server = start(Router::new().route("/", get(refuse))).await;
    let error = client().get::<()>(&server.address, "/", SECOND).await.unwrap_err();
    let CallError::Problem { problem, .. } = &error else { panic!("{error}") };
    assert_eq!((problem.code, problem.status), (ErrorCode::WrongHome, 421));
    assert_eq!(error.effect(), Effect::None);
    server.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let echo = |mut request: Request| async move {
        let Some((answer, pending)) = upgrade::accept(&mut request, "echo/1") else {
            return Problem::new(ErrorCode::BadRequest, "it speaks echo/1 only").into_response();
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
        tokio::spawn(async move {
            let io = pending.stream().await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(io);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        });
        answer
    };
    let server = start(Router::new().route("/echo", get(echo))).await;
    let client = client();
    let mut io = client.upgrade(&server.address, "/echo", "echo/1", http::HeaderMap::new(), SECOND).await.unwrap();
    io.write_all(b"across the sea").await.unwrap();
    let mut back = [0; 14];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"across the sea");
    drop(io);
    let refused = client.upgrade(&server.address, "/echo", "other/1", http::HeaderMap::new(), SECOND).await;
    let Err(CallError::Problem { problem, .. }) = refused else { panic!("it must be refused") };
    assert_eq!(problem.code, ErrorCode::BadRequest);
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_asked_for_once_configured() {
    let guarded = |token: Option<&str>| {
        let guard = axum::middleware::from_fn_with_state(token.map(str::to_owned), auth::require_token);
        Router::new().route("/", get(async || Json(1))).layer(guard)
    };
    let open = start(guarded(None)).await;
    assert_eq!(client().get::<u8>(&open.address, "/", SECOND).await.unwrap(), 1);
    open.stop().await;

    let closed = start(guarded(Some("secret"))).await;
    let mut codes = Vec::new();
    for header in [None, Some("Bearer wrong!"), Some("Bearer secret")] {
        let mut headers = http::HeaderMap::new();
        if let Some(header) = header {
            headers.insert(http::header::AUTHORIZATION, header.parse().unwrap());
        }
        let answer = client().json::<(), u8>(http::Method::GET, &closed.address, "/", headers, None, SECOND).await;
        codes.push(answer.map_err(|error| error.code()));
    }
    assert_eq!(codes, [Err(ErrorCode::Unauthorized), Err(ErrorCode::Unauthorized), Ok(1)]);
    closed.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_trace_of_its_request() {
    let layer = axum::middleware::from_fn_with_state(TraceIds::new(1), server_span);
    let server = start(Router::new().route("/", get(async || ())).layer(layer)).await;
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = http::Request::new(bytes::Bytes::new());
    request.headers_mut().insert(TRACEPARENT, given.parse().unwrap());
    let answer = client().send(&server.address, request, SECOND).await.unwrap();
    let returned = answer.headers()[TRACEPARENT].to_str().unwrap();
    assert!(returned.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{returned}");
    assert!(!returned.contains("b7ad6b7169203331"), "the answer must name the server's own span");
    server.stop().await;
}

#[tokio::test]
async fn a_probe_measures_each_round_trip() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let server = start(probe::router(client(), clock.clone())).await;
    let round_trips = probe::measure(&client(), &clock, &server.address, 5, SECOND).await.unwrap();
    assert_eq!(round_trips.len(), 5);
    assert!(round_trips.iter().all(|ms| *ms > 0.0 && *ms < 1000.0), "{round_trips:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let taken = TokioNet.bind("127.0.0.1:0").await.unwrap();
    let address = taken.address().unwrap().to_string();
    let error = TokioNet.bind(&address).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&address) && error.contains("choose another port"), "{error}");
}
