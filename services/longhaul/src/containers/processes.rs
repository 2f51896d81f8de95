//! The processes of a location, as its agent handles them: admitted, killed, held down, stopped, resumed.
//!
//! The agent shares its location's process namespace, so a signal reaches the other containers' processes directly.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhaul_http::watch;
use longhaul_http::wire::location::{Admission, LocationView, ProcessState, ProcessView};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// How long a signal may take to show in the state of a process.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(10);
/// How often to look.
const LOOK: Duration = Duration::from_millis(5);
/// How long a restart waits for a process that asks to begin: the engine starts a container again after a pause that
/// doubles with each start.
const RESTART_DEADLINE: Duration = Duration::from_secs(30);
/// The name of the database server's processes. They are of the region, and die and stop with it.
const DATABASE: &str = "postgres";

/// The processes of a location.
pub(crate) struct Processes {
    location: String,
    admitted: Mutex<Vec<Admitted>>,
    held: watch::Sender<bool>,
}

/// A process that began.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Admitted {
    admission: Admission,
    /// Ticks after boot at which it started: a number that is used again belongs to another process.
    started: u64,
}

/// What `/proc` says about a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    started: u64,
}

impl Processes {
    /// The processes of a location; none yet.
    pub(crate) fn new(location: &str) -> Self {
        Self { location: location.to_owned(), admitted: Mutex::default(), held: watch::Sender::new(false) }
    }

    fn admitted(&self) -> MutexGuard<'_, Vec<Admitted>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a process begin, at once or when the location is no longer held down; `false` after `wait`.
    pub(crate) async fn admit(&self, admission: Admission, wait: Duration) -> bool {
        let mut held = self.held.subscribe();
        if !matches!(tokio::time::timeout(wait, held.wait_for(|held| !held)).await, Ok(Ok(_))) {
            return false;
        }
        let started = stat(admission.pid).map_or(0, |stat| stat.started);
        let mut admitted = self.admitted();
        admitted.retain(|known| known.admission.pid != admission.pid && known.state() != ProcessState::Gone);
        tracing::info!(role = admission.role, pid = admission.pid, "a process begins");
        admitted.push(Admitted { admission, started });
        true
    }

    /// As the operating system sees them.
    pub(crate) fn view(&self) -> LocationView {
        let view = |process: &Admitted| ProcessView {
            role: process.admission.role.clone(),
            pid: process.admission.pid,
            state: process.state(),
        };
        let processes = self.admitted().iter().map(view).collect();
        LocationView { location: self.location.clone(), held: *self.held.borrow(), processes }
    }

    /// SIGKILL to everything of the location, which is held down from then on. Returns once all is gone.
    pub(crate) async fn kill(&self) -> Result<LocationView, String> {
        if self.view().processes.iter().all(|process| process.state == ProcessState::Gone) {
            return Err(format!("{} does not run; restart it first", self.location));
        }
        self.held.send_replace(true);
        self.signal(Signal::KILL)?;
        let roles = self.reach(|state| state == ProcessState::Gone).await;
        // The database's processes are children of one that is gone; those that are left get the signal again.
        self.signal(Signal::KILL)?;
        if roles { Ok(self.view()) } else { Err(format!("{} does not die of SIGKILL; see its host", self.location)) }
    }

    /// Lets the location's processes begin again. Returns once one has.
    pub(crate) async fn restart(&self) -> Result<LocationView, String> {
        if self.view().is_running() {
            return Err(format!("{} runs already; kill it first", self.location));
        }
        self.held.send_replace(false);
        let back = async {
            while !self.view().is_running() {
                tokio::time::sleep(LOOK * 4).await;
            }
        };
        match tokio::time::timeout(RESTART_DEADLINE, back).await {
            Ok(()) => Ok(self.view()),
            Err(_) => Err(format!(
                "no process of {} asked to begin within {} s; is its container up? (docker compose up -d)",
                self.location,
                RESTART_DEADLINE.as_secs()
            )),
        }
    }

    /// SIGSTOP.
    pub(crate) async fn pause(&self) -> Result<LocationView, String> {
        if !self.view().is_running() {
            return Err(format!("{} does not run; restart it first", self.location));
        }
        self.signal(Signal::STOP)?;
        self.reached(|state| state != ProcessState::Running, "stop on SIGSTOP").await
    }

    /// SIGCONT.
    pub(crate) async fn resume(&self) -> Result<LocationView, String> {
        self.signal(Signal::CONT)?;
        self.reached(|state| state != ProcessState::Stopped, "go on after SIGCONT").await
    }

    async fn reached(&self, holds: impl Fn(ProcessState) -> bool, what: &str) -> Result<LocationView, String> {
        if self.reach(holds).await { Ok(self.view()) } else { Err(format!("{} did not {what}", self.location)) }
    }

    async fn reach(&self, holds: impl Fn(ProcessState) -> bool) -> bool {
        let all = async {
            while !self.view().processes.iter().all(|process| holds(process.state)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(SIGNAL_DEADLINE, all).await.is_ok()
    }

    /// Signals every admitted process that is still there, and the database's.
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let roles: Vec<u32> = self
            .admitted()
            .iter()
            .filter(|process| process.state() != ProcessState::Gone)
            .map(|process| process.admission.pid)
            .collect();
        for pid in roles.into_iter().chain(named(DATABASE)) {
            let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            match kill_process(target, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    let location = &self.location;
                    return Err(format!("process {pid} of {location} cannot be signalled: {error}; add cap_add: KILL"));
                }
            }
        }
        Ok(())
    }
}

impl Admitted {
    fn state(&self) -> ProcessState {
        match stat(self.admission.pid) {
            Some(stat) if stat.started == self.started && !matches!(stat.state, 'Z' | 'X') => match stat.state {
                'T' | 't' => ProcessState::Stopped,
                _ => ProcessState::Running,
            },
            _ => ProcessState::Gone,
        }
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat` (proc(5)): the name in parentheses, which may itself hold parentheses, then the state; the start is
/// field 22.
fn parse(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { name: name.to_owned(), state, started })
}

/// Every process of that name in this namespace.
fn named(name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.name == name && !matches!(stat.state, 'Z' | 'X'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse_the_state() {
        let line = "4242 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20";
        let read = parse(line).unwrap();
        assert_eq!((read.name.as_str(), read.state, read.started), ("a) b (c", 'S', 987_654));
        assert_eq!(parse("nonsense"), None);
    }

    /// A process of our own that stands for a region.
    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn admission(child: &std::process::Child) -> Admission {
        Admission { role: "region".to_owned(), pid: child.id() }
    }

    #[tokio::test]
    async fn a_killed_location_stays_down_until_it_is_told_to_come_back() {
        let processes = Processes::new("eu-west-1");
        assert!(processes.kill().await.unwrap_err().contains("does not run"));
        let mut first = sleeper();
        assert!(processes.admit(admission(&first), Duration::from_secs(5)).await);
        assert!(processes.view().is_running());
        let view = processes.kill().await.unwrap();
        assert!(view.held && !view.is_running());
        assert!(!first.wait().unwrap().success());

        // The engine has started the container again; its process has to wait.
        let mut second = sleeper();
        assert!(!processes.admit(admission(&second), Duration::from_millis(30)).await);
        assert!(!processes.view().is_running());
        let asks = processes.admit(admission(&second), Duration::from_secs(5));
        let (admitted, view) = tokio::join!(asks, processes.restart());
        assert!(admitted && view.unwrap().is_running());
        assert!(processes.restart().await.unwrap_err().contains("runs already"));
        second.kill().unwrap();
        second.wait().unwrap();
        assert!(!processes.view().is_running());
    }

    #[tokio::test]
    async fn a_paused_location_is_stopped_in_the_systems_eyes() {
        let processes = Processes::new("paris");
        let mut child = sleeper();
        assert!(processes.admit(admission(&child), Duration::from_secs(5)).await);
        let view = processes.pause().await.unwrap();
        assert_eq!(view.processes[0].state, ProcessState::Stopped);
        assert!(!view.is_running());
        assert!(processes.resume().await.unwrap().is_running());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
