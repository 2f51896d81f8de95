//! One child process: started, watched, stopped, killed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};

use crate::outcome::one_line;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(6);
/// How much of the end of a log is searched for its last line, bytes.
const LOG_TAIL: u64 = 4096;

/// A role's process. It may be killed and started again; its port, configuration and data stay.
#[derive(Debug)]
pub(crate) struct Child {
    /// Whose it is: a location, `link` or `traffic`.
    name: String,
    role: &'static str,
    config: PathBuf,
    log: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The process, with the write end of its standard input: it ends when that is closed.
    process: Option<Process>,
    stopped: bool,
    /// Killed on purpose: its end is no surprise.
    expected: bool,
}

impl Child {
    /// A process that is not started yet.
    pub(crate) fn new(name: impl Into<String>, role: &'static str, config: PathBuf, log: PathBuf) -> Self {
        Self { name: name.into(), role, config, log, state: Mutex::default() }
    }

    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<(), String> {
        let mut state = self.state();
        if state.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None))) {
            return Err(format!("{} runs already; kill it first", self.name));
        }
        let cannot = |error: io::Error| format!("{} cannot be started: {error}; see {}", self.name, self.log.display());
        let program = std::env::current_exe().map_err(cannot)?;
        let log = File::options().create(true).append(true).open(&self.log).map_err(cannot)?;
        let process = Command::new(program)
            .arg(self.role)
            .arg("--config")
            .arg(&self.config)
            .arg("--supervised")
            // Logs go to files, where colours are noise.
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C in the terminal is for the parent; it stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        *state = State { process: Some(process), stopped: false, expected: false };
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let state = self.state();
        let id = state.process.as_ref().and_then(Process::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.ok_or_else(|| format!("{} does not run; restart it first", self.name))?;
        kill_process(id, signal).map_err(|error| format!("{} cannot be signalled: {error}", self.name))
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) async fn kill(&self) -> Result<(), String> {
        let process = {
            let mut state = self.state();
            state.expected = true;
            state.process.take()
        };
        let Some(mut process) = process else {
            return Err(format!("{} does not run; restart it first", self.name));
        };
        process.kill().await.map_err(|error| format!("{} cannot be killed: {error}", self.name))
    }

    /// SIGSTOP, and waits until the system says that it is stopped.
    pub(crate) async fn pause(&self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        self.state().stopped = true;
        for _ in 0..200 {
            if self.system_state().is_none_or(|state| state == 'T') {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("{} did not stop on SIGSTOP", self.name))
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) -> Result<(), String> {
        self.signal(Signal::CONT)?;
        self.state().stopped = false;
        Ok(())
    }

    /// The state of the process as Linux tells it (`T` is stopped); `None` where there is no such file.
    fn system_state(&self) -> Option<char> {
        let id = self.state().process.as_ref()?.id()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Whether it runs and is not stopped. A process whose threads are still ending runs: only when all of it is gone can it
    /// be started again.
    pub(crate) fn is_running(&self) -> bool {
        let alive = {
            let mut state = self.state();
            let stopped = state.stopped;
            state.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None))) && !stopped
        };
        alive && self.system_state().is_none_or(|state| state != 'T')
    }

    /// If it ended without having been killed: one line that says so, with the last line of its log.
    pub(crate) fn surprise(&self) -> Option<String> {
        let status = {
            let mut state = self.state();
            if state.expected {
                return None;
            }
            state.process.as_mut()?.try_wait().ok()??
        };
        Some(self.ended(status))
    }

    fn ended(&self, status: ExitStatus) -> String {
        let last = last_line(&self.log).unwrap_or_else(|| "it said nothing".to_owned());
        format!("{} ended by itself ({status}): {last}; log: {}", self.name, self.log.display())
    }

    /// The path of its log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// SIGTERM, then SIGKILL; returns when it is gone.
    pub(crate) async fn stop(&self) {
        let process = {
            let mut state = self.state();
            state.expected = true;
            state.process.take()
        };
        let Some(mut process) = process else { return };
        if let Some(id) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // A stopped process hears nothing; one that is gone needs nothing. Neither is an error here.
            let _ = kill_process(id, Signal::CONT);
            let _ = kill_process(id, Signal::TERM);
        }
        if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
            tracing::warn!(name = self.name, "did not end within {} s and is killed", GRACE.as_secs());
            let _ = process.kill().await;
        }
    }
}

/// The last line of a log that says something.
fn last_line(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(log).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(one_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "first\n  the   reason \n\n").unwrap();
        assert_eq!(last_line(&log).as_deref(), Some("the reason"));
        std::fs::write(&log, "").unwrap();
        assert_eq!(last_line(&log), None);
    }
}
