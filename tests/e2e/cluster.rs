//! A testbed of its own for one test: `longhaul up`, its addresses, its processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::net::TokioNet;
use serde_json::Value;

/// The program under test.
pub(crate) const LONGHAUL: &str = env!("CARGO_BIN_EXE_longhaul");
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running testbed. Dropping it kills the parent; its children end with it.
pub(crate) struct Cluster {
    parent: Child,
    runtime: tokio::runtime::Runtime,
    client: HttpClient,
    /// `host:port` by name; control's is `control`.
    addresses: BTreeMap<String, String>,
    data: PathBuf,
    /// Until it is handed out with [`Cluster::stop_and_keep`].
    folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts `longhaul up` with these arguments, and waits until it says that it is up.
    pub(crate) fn up(arguments: &[&str]) -> Self {
        Self::up_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same with the data in `data` of a folder.
    pub(crate) fn up_in(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        Self::up_with(folder, arguments, |_| ())
    }

    /// The same; what else the command needs is for `prepare` to say.
    pub(crate) fn up_with(folder: tempfile::TempDir, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let data = folder.path().join("data");
        let mut command = Command::new(LONGHAUL);
        command.args(["up", "--port", "0", "--data"]).arg(&data).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        prepare(&mut command);
        let mut parent = command.spawn().unwrap();
        let mut addresses = BTreeMap::new();
        for line in BufReader::new(parent.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["control", url] => {
                    addresses.insert("control".to_owned(), address(url));
                }
                ["region" | "gateway", url, name] => {
                    addresses.insert(name.to_owned(), address(url));
                }
                _ => {}
            }
            if line.contains("Ctrl-C") {
                break;
            }
        }
        assert!(addresses.len() > 1, "the testbed did not start: {:?}", parent.wait());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = HttpClient::new(Arc::new(TokioNet));
        let traffic: Value = serde_json::from_slice(&std::fs::read(data.join("traffic.json")).unwrap()).unwrap();
        addresses.insert("traffic".to_owned(), traffic["role"]["listen"].as_str().unwrap().to_owned());
        Self { parent, runtime, client, addresses, data, folder: Some(folder) }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// `host:port` of a location, of `control`, or of `traffic`.
    pub(crate) fn address(&self, name: &str) -> &str {
        self.addresses.get(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Every address that the testbed told.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.values().cloned().collect()
    }

    /// The parent's process id.
    pub(crate) fn parent(&self) -> u32 {
        self.parent.id()
    }

    /// Process ids of the children.
    pub(crate) fn children(&self) -> Vec<u32> {
        let of = |entry: std::fs::DirEntry| {
            let id: u32 = entry.file_name().to_string_lossy().parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()?;
            (parent == self.parent.id()).then_some(id)
        };
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.ok()?)).collect()
    }

    /// Sends a request with a JSON body and reads the answer.
    pub(crate) fn send(&self, method: Method, name: &str, path: &str, body: Option<&Value>) -> Response<Bytes> {
        let sent = self.try_send(method, name, path, body, Duration::from_secs(20));
        sent.unwrap_or_else(|error| panic!("{name} {path}: {error}"))
    }

    /// Sends a request that nobody may answer.
    pub(crate) fn try_send(
        &self,
        method: Method,
        name: &str,
        path: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request = Request::new(bytes);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        self.runtime.block_on(self.client.send(self.address(name), request, deadline))
    }

    /// Sends a request that must succeed, and reads JSON.
    pub(crate) fn json(&self, method: Method, name: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.send(method, name, path, body);
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(answer.status().is_success(), "{name} {path}: {} {text}", answer.status());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Asks control.
    pub(crate) fn control(&self, path: &str) -> Value {
        self.json(Method::GET, "control", path, None)
    }

    /// Tells the parent to stop, and waits for it.
    pub(crate) fn stop(self) -> ExitStatus {
        self.stop_and_keep().0
    }

    /// The same; hands out the folder in which `data` is.
    pub(crate) fn stop_and_keep(mut self) -> (ExitStatus, tempfile::TempDir) {
        signal(self.parent.id(), "TERM");
        let mut status = None;
        until("the parent ends", || {
            status = self.parent.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), self.folder.take().expect("only here it is taken"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

/// Sends a signal by name.
pub(crate) fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), id.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {id}");
}

/// Whether there is a process with this id that is not a zombie.
pub(crate) fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_answered(|| if holds() { Ok(()) } else { Err(what.to_owned()) });
}

/// Waits until something is as it should be; the last answer that said what is not so is the error.
#[expect(clippy::disallowed_methods, reason = "a test outside of the program waits in real time")]
pub(crate) fn until_answered(mut ask: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(answer) = ask() {
        assert!(start.elapsed() < PATIENCE, "{answer}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs the program to its end.
pub(crate) fn longhaul(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(LONGHAUL).args(arguments).current_dir(folder).output().unwrap()
}
