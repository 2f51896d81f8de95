//! One API instance of a region, as a process, and what a test asks of it.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_http::client::HttpClient;
use longhaul_http::net::TokioNet;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test.
const LONGHAUL: &str = env!("CARGO_BIN_EXE_longhaul");
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(40);
/// Deadline of one request.
const REQUEST: Duration = Duration::from_secs(6);

/// A process. Dropping it kills it.
pub(crate) struct Instance {
    /// Where it answers.
    pub(crate) address: String,
    process: Child,
    _folder: TempDir,
}

/// An address of this host that nobody uses.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

/// The configuration of a region that is alone in its topology.
pub(crate) fn lone_region(url: &str, address: &str) -> Value {
    json!({
        "region": 1,
        "regions": {"1": "eu-west"},
        "listen": address,
        "store": {"kind": "postgres", "url": url},
        "topology_fingerprint": "tests",
        "peers": {},
        "genesis": {"mode": "active-active", "durability": "local"},
        "seed": 1,
        "session_secret": "tests",
    })
}

impl Instance {
    /// Starts a region with this configuration.
    pub(crate) fn region(config: &Value) -> Self {
        Self::start("region", config)
    }

    /// Starts a role.
    pub(crate) fn start(role: &str, config: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("role.json");
        std::fs::write(&path, json!({"role": config, "location": "test"}).to_string()).expect("a file");
        let process = Command::new(LONGHAUL)
            .args([role, "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let address = config["listen"].as_str().expect("a role listens").to_owned();
        Self { address, process, _folder: folder }
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Waits for its end and says whether that was in order.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.process.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal by name.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {process}");
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was served.
    Ok(Value),
    /// It certainly had no effect.
    Refused(ErrorCode, String),
    /// Nobody knows.
    Unknown(String),
}

/// A client.
#[derive(Clone)]
pub(crate) struct Api(HttpClient);

impl Api {
    pub(crate) fn new() -> Self {
        Self(HttpClient::new(Arc::new(TokioNet)))
    }

    /// Sends a request with these headers.
    pub(crate) async fn send(
        &self,
        address: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request = Request::new(bytes);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("tests have plain paths");
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("tests have plain headers");
            request.headers_mut().insert(name, value.parse().expect("tests have plain headers"));
        }
        let answer = match self.0.send(address, request, REQUEST).await {
            Ok(answer) => answer,
            Err(error) if error.effect() == Effect::None => {
                return Answer::Refused(error.code(), error.to_string());
            }
            Err(error) => return Answer::Unknown(error.to_string()),
        };
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
        if answer.status().is_success() {
            return Answer::Ok(body);
        }
        let code = body["code"].as_str().and_then(ErrorCode::parse);
        let detail = body["detail"].as_str().unwrap_or_default().to_owned();
        match code {
            Some(code) if code.effect() == Effect::None => Answer::Refused(code, detail),
            _ => Answer::Unknown(format!("{}: {detail}", answer.status())),
        }
    }

    pub(crate) async fn get(&self, address: &str, path: &str) -> Answer {
        self.send(address, Method::GET, path, &[], None).await
    }

    /// Writes a record under an operation id.
    pub(crate) async fn put(&self, address: &str, id: &str, op_id: &str, value: &Value) -> Answer {
        let path = format!("/v1/records/eu-west/{id}");
        self.send(address, Method::PUT, &path, &[("idempotency-key", op_id)], Some(value)).await
    }

    /// Waits until the instance says that it is ready.
    pub(crate) async fn ready(&self, address: &str) {
        self.until(address, "/readyz", |answer| matches!(answer, Answer::Ok(_))).await;
    }

    /// Asks again and again until the answer is what is waited for; returns it.
    #[expect(clippy::disallowed_methods, reason = "a test outside of the program waits in real time")]
    pub(crate) async fn until(&self, address: &str, path: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(address, path).await;
            if holds(&answer) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "{address}{path} says {answer:?} after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}
