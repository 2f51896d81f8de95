//! A location's agent on the wire: the processes of its location, as the operating system sees them, and what may be
//! done to them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET`: [`LocationView`].
pub const PROCESSES_PATH: &str = "/v1/processes";
/// `POST`: SIGKILL; answers [`LocationView`] once the processes are gone. They stay away until [`RESTART_PATH`].
pub const KILL_PATH: &str = "/v1/processes/kill";
/// `POST`: lets killed processes come back; answers [`LocationView`] once one of them was admitted.
pub const RESTART_PATH: &str = "/v1/processes/restart";
/// `POST`: SIGSTOP; answers [`LocationView`] once the system says that they are stopped.
pub const PAUSE_PATH: &str = "/v1/processes/pause";
/// `POST`: SIGCONT; answers [`LocationView`].
pub const RESUME_PATH: &str = "/v1/processes/resume";
/// `POST` an [`Admission`]: a process of the location asks whether it may begin. `204` if it may; `not_ready` (503) while
/// the location is held down, after waiting for at most ten seconds. It then asks again.
pub const ADMISSION_PATH: &str = "/v1/admission";

/// A process asks to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Its role: `region` or `gateway`.
    pub role: String,
    /// Its number in the location's process namespace.
    pub pid: u32,
}

/// What the operating system says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It is stopped (SIGSTOP).
    Stopped,
    /// It is gone.
    Gone,
}

/// A process that was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessView {
    /// Its role.
    pub role: String,
    /// Its number in the location's process namespace.
    pub pid: u32,
    /// What the operating system says.
    pub state: ProcessState,
}

/// The processes of a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocationView {
    /// The location.
    pub location: String,
    /// Whether it is held down: killed on purpose, and nothing of it begins until it is told to.
    pub held: bool,
    /// Every process that was admitted last.
    pub processes: Vec<ProcessView>,
}

impl LocationView {
    /// Whether some process runs and none is stopped.
    pub fn is_running(&self) -> bool {
        let any = |state| self.processes.iter().any(|process| process.state == state);
        any(ProcessState::Running) && !any(ProcessState::Stopped)
    }
}
