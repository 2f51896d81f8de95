//! The machinery under the hosts: links, clocks, disks, and the processes that can be killed and started.
//!
//! Hosts ask for a crash or a start while turmoil runs them; it happens between two ticks, when nobody runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::HostClock;
use crate::disk::Disk;
use crate::links::{HostIndex, Links};
use crate::timeline::Timeline;

/// The host of control.
pub(crate) const CONTROL: &str = "control";
/// The host of the users and of the links' agent: out of band, never broken.
pub(crate) const USERS: &str = "users";

/// What is to be done between two ticks.
pub(crate) enum Order {
    /// Kill the process of a host.
    Crash(HostIndex, oneshot::Sender<()>),
    /// Start it (again).
    Start(HostIndex, oneshot::Sender<()>),
}

/// Links, clocks, disks and processes.
pub(crate) struct Machine {
    pub(crate) links: Arc<Links>,
    pub(crate) timeline: Timeline,
    pub(crate) clocks: Vec<Arc<HostClock>>,
    /// By the host of the region.
    pub(crate) disks: BTreeMap<HostIndex, Arc<Disk>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    frozen: BTreeSet<HostIndex>,
}

impl Machine {
    pub(crate) fn new(
        links: Arc<Links>,
        timeline: Timeline,
        clocks: Vec<Arc<HostClock>>,
        disks: BTreeMap<HostIndex, Arc<Disk>>,
    ) -> Arc<Self> {
        Arc::new(Self { links, timeline, clocks, disks, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, carried_out) = oneshot::channel();
        self.lock().orders.push_back(order(done));
        // The sender is gone only when the whole simulation ends.
        let _ = carried_out.await;
    }

    /// SIGKILL: returns once nothing of the process is left.
    pub(crate) async fn crash(&self, host: HostIndex) {
        self.order(|done| Order::Crash(host, done)).await;
        self.links.set_dying(host, false);
        if let Some(disk) = self.disks.get(&host) {
            disk.disarm();
        }
    }

    /// SIGKILL in the next commit of a region, just before it becomes durable or just after; at `within` from now at the
    /// latest.
    pub(crate) async fn crash_in_commit(&self, host: HostIndex, durable: bool, within: Duration) {
        if let Some(disk) = self.disks.get(&host) {
            let (sprung, died) = oneshot::channel();
            let links = self.links.clone();
            disk.die_in_next_commit(durable, move || {
                links.set_dying(host, true);
                // Nobody waits any more if it took too long.
                let _ = sprung.send(());
            });
            if tokio::time::timeout(within, died).await.is_ok() {
                let moment = if durable { "after" } else { "before" };
                self.timeline.add(self.links.name(host), format!("dies in a commit, {moment} that is durable"));
            }
        }
        self.crash(host).await;
    }

    /// Starts the process of a host, on the disk that it left.
    pub(crate) async fn start(&self, host: HostIndex) {
        self.order(|done| Order::Start(host, done)).await;
    }

    /// The next thing to do.
    pub(crate) fn next_order(&self) -> Option<Order> {
        self.lock().orders.pop_front()
    }

    /// SIGSTOP, as others see it: nothing comes out of the host and nothing gets in, and its disk does nothing; and
    /// SIGCONT. What its process computes meanwhile cannot take effect before it goes on.
    pub(crate) fn freeze(&self, host: HostIndex, frozen: bool) {
        let changed = if frozen { self.lock().frozen.insert(host) } else { self.lock().frozen.remove(&host) };
        if !changed {
            return;
        }
        self.links.freeze(host, frozen);
        if let Some(disk) = self.disks.get(&host) {
            disk.stop(frozen);
        }
    }

    /// Whether a host's process runs and is not stopped.
    pub(crate) fn is_running(&self, host: HostIndex) -> bool {
        self.links.is_up(host) && !self.lock().frozen.contains(&host)
    }

    /// A process ended by itself.
    pub(crate) fn exited(&self, host: HostIndex, reason: &str) {
        self.links.set_up(host, false);
        let name = self.links.name(host);
        let text = format!("the process ended: {reason}");
        if !self.disks.get(&host).is_some_and(|disk| disk.has_refused()) {
            self.timeline.alarm(format!("{name}: {text}"));
        }
        self.timeline.add(name, text);
    }
}
