//! Roles as child processes, as a testbed runs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use longhaul_http::client::HttpClient;
use longhaul_http::net::{Net, TokioNet};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::{Child, Command};

/// A running role; killed when dropped.
pub(crate) struct Role {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub(crate) address: String,
}

impl Role {
    /// Starts a role and waits until it is ready.
    pub(crate) async fn start(
        binary: &Path,
        role: &str,
        folder: &Path,
        address: &str,
        config: &impl Serialize,
    ) -> anyhow::Result<Self> {
        // Without a file of spans, nothing is traced.
        Self::start_with(binary, role, folder, address, config, &[], None).await
    }

    /// The same with variables of the environment, and a file of spans.
    pub(crate) async fn start_with(
        binary: &Path,
        role: &str,
        folder: &Path,
        address: &str,
        config: &impl Serialize,
        environment: &[(&str, &str)],
        spans: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let file = folder.join(format!("{role}-{}.json", address.replace(':', "-")));
        let document = serde_json::json!({ "role": config, "location": "bench", "spans": spans });
        std::fs::write(&file, serde_json::to_vec(&document)?)?;
        let log = file.with_extension("log");
        let child = Command::new(binary)
            .arg(role)
            .arg("--config")
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut started = Self { child, log, address: address.to_owned() };
        // A link agent has no state to become ready with.
        started.ready(if role == "link" { "/healthz" } else { "/readyz" }).await?;
        Ok(started)
    }

    async fn ready(&mut self, path: &str) -> anyhow::Result<()> {
        let client = HttpClient::new(Arc::new(TokioNet));
        let second = Duration::from_secs(1);
        for _ in 0..200 {
            let request = http::Request::get(path).body(bytes::Bytes::new())?;
            if client.send(&self.address, request, second).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the role at {} ended with {status}: {}", self.address, self.logged().trim());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = self.logged();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        bail!(
            "the role at {} is not ready after 10 s; its last lines, newest first: {}",
            self.address,
            last.join(" | ")
        )
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the process where it stands (`SIGSTOP`).
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (`SIGCONT`).
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(kill_process(pid.context("the role has ended")?, signal)?)
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) {
        // It is gone either way when this returns.
        let _ = self.child.kill().await;
    }
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident set, bytes: shared pages count in every process that maps them.
    pub(crate) resident: u64,
    /// Proportional set, bytes: a page that n processes share counts 1/n in each, so that a sum over processes is what
    /// the machine gave.
    pub(crate) proportional: u64,
}

/// What a process holds now.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        let line = rollup.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib * 1024)
    };
    Ok(Memory { resident: bytes("Rss:")?, proportional: bytes("Pss:")? })
}

/// A free port on loopback, for a role that is told its port.
pub(crate) async fn free_address() -> anyhow::Result<String> {
    Ok(TokioNet.bind("127.0.0.1:0").await?.address()?.to_string())
}
