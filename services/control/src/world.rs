//! The seam to whatever carries the testbed: processes that can be killed, addresses out of band, links that can be
//! measured.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use longhaul_core::ids::LocationName;
use longhaul_core::report::LinkCheck;

/// A future of the seam.
pub type WorldFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, WorldError>> + Send + 'a>>;

/// Why the world could not do something: one line that names the thing, the reason and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(pub String);

/// A traffic role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Player {
    /// `host:port`, out of band.
    pub address: String,
    /// The edges whose users it plays; all if absent.
    pub edges: Option<Vec<LocationName>>,
}

/// What carries the testbed.
///
/// A `target` is the name of a location (its region's or gateway's process), `control`, `link` or `traffic`.
pub trait World: Send + Sync + 'static {
    /// `embedded`, `containers` or `simulated`.
    fn kind(&self) -> &'static str;

    /// SIGKILL. Returns once the process is gone.
    fn kill<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()>;

    /// Starts a killed process again, on the data and the port that it left. Returns once it has been started; whether
    /// it is ready is its own business.
    fn restart<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()>;

    /// SIGSTOP.
    fn pause<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()>;

    /// SIGCONT.
    fn resume<'a>(&'a self, target: &'a str) -> WorldFuture<'a, ()>;

    /// Whether the operating system has a process for it that is not stopped.
    fn is_running(&self, target: &str) -> bool;

    /// `host:port` of a region itself, out of band.
    fn region_address(&self, region: &LocationName) -> Option<String>;

    /// `host:port` of an edge's gateway, out of band.
    fn gateway_address(&self, edge: &LocationName) -> Option<String>;

    /// The roles that play users. At least one, and every edge is played by one of them; the first one judges.
    fn players(&self) -> Vec<Player>;

    /// `host:port` of every agent that drives a directed link. The first one tells how it is, and a change goes to all.
    /// Empty if there is no such link.
    fn link_agents_of(&self, from: &LocationName, to: &LocationName) -> Vec<String>;

    /// Every distinct agent of links.
    fn link_agents(&self) -> Vec<String>;

    /// Sends one round-trip probe from a location to another over their links, milliseconds; `None` if it did not come
    /// back within the deadline. The error says why there was no probe.
    fn probe<'a>(&'a self, from: &'a str, to: &'a str, deadline: Duration) -> WorldFuture<'a, Option<f64>>;

    /// Measures every pair of locations whose processes run, and judges it against the declared round trip.
    fn measure_links(&self) -> WorldFuture<'_, Vec<LinkCheck>>;

    /// Where traces can be looked at, if a collector is configured.
    fn traces_url(&self) -> Option<String> {
        None
    }
}
