//! The userspace driver: relays that delay, lose, limit and cut what passes, without any privilege.
//!
//! Each ordered pair of locations has a relay address. Whoever is at `from` dials that address instead of `to`; the relay dials
//! the target and carries the bytes: those towards the target over the link `from -> to`, those back over
//! `to -> from`. Every chunk is stamped when it is taken and given out when its delay is over, so that many
//! chunks are on their way at once and a long link is not a slow one.
//!
//! Below TCP nothing can be changed from here, so a lost packet shows as what it costs: the connection stalls for a
//! retransmission timeout. A cut link swallows what is in flight and what is sent; a connection that lost bytes so is
//! dead, and is reset once the link is up again. A connection that had nothing to say during a cut outlives it.

mod cause;
mod connection;
mod lane;
mod link;
mod timer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::ids::LocationName;
use longhaul_core::limits;
use longhaul_core::link::{LinkError, LinkPatch, LinkProfile, LinkState};
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{Listener, SharedNet};
use longhaul_http::wire::links::{LinkBytesView, LinkView};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use cause::Cause;
use connection::Route;
use link::{DirectedLink, FlapChange};
use timer::Timer;

/// A directed link to drive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// From which location.
    pub from: LocationName,
    /// To which location.
    pub to: LocationName,
    /// As declared.
    pub profile: LinkProfile,
}

/// A relay address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Where the dialer is.
    pub from: LocationName,
    /// Where the target is.
    pub to: LocationName,
    /// Where the relay listens for the dialer, `host:port`; port 0 takes any free one.
    pub listen: String,
    /// Whom it dials, `host:port`.
    pub target: String,
}

/// What the relay drives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Seed of jitter and loss.
    pub seed: u64,
    /// Every directed link.
    pub links: Vec<LinkConfig>,
    /// Every relay address. A pair may have several (one per process at the target).
    pub routes: Vec<RouteConfig>,
}

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartRelayError {
    /// A profile is out of bounds.
    #[error("link {from} to {to}: {error}; correct the topology")]
    Profile {
        /// From which location.
        from: LocationName,
        /// To which location.
        to: LocationName,
        /// What is out of bounds.
        error: LinkError,
    },
    /// A link is there twice.
    #[error("link {from} to {to} is configured twice; leave one out")]
    Duplicate {
        /// From which location.
        from: LocationName,
        /// To which location.
        to: LocationName,
    },
    /// A route has no link in one of its directions.
    #[error("route {from} to {to} at {listen} has no link from {from} to {to} or back; configure both directions")]
    NoLink {
        /// From which location.
        from: LocationName,
        /// To which location.
        to: LocationName,
        /// Where it was to listen.
        listen: String,
    },
    /// A relay address cannot be taken.
    #[error("route {from} to {to}: {error}")]
    Listen {
        /// From which location.
        from: LocationName,
        /// To which location.
        to: LocationName,
        /// Why.
        error: io::Error,
    },
    /// The timer thread cannot be started.
    #[error("cannot start the timer of the links: {0}; check the limit of threads")]
    Timer(io::Error),
}

/// Why a link was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PatchLinkError {
    /// There is no such link.
    #[error("there is no link from {from:?} to {to:?}; GET /v1/links lists them")]
    Unknown {
        /// From which location.
        from: String,
        /// To which location.
        to: String,
    },
    /// A figure is out of bounds.
    #[error("{0}")]
    OutOfBounds(LinkError),
    /// The driver could not do it.
    #[error("{0}")]
    Driver(String),
}

/// The running relays.
pub struct Relay {
    links: BTreeMap<(LocationName, LocationName), Arc<DirectedLink>>,
    addresses: Vec<(RouteConfig, String)>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Relay {
    /// Listens on every relay address and carries connections until `shutdown`. All addresses are taken before the first
    /// connection is accepted, so that no byte ever passes undelayed.
    pub async fn start(
        net: SharedNet,
        clock: SharedClock,
        config: RelayConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, StartRelayError> {
        let links = build_links(config.seed, config.links)?;
        let timer = Arc::new(Timer::start(clock).map_err(StartRelayError::Timer)?);
        let mut routes = Vec::with_capacity(config.routes.len());
        let mut addresses = Vec::with_capacity(config.routes.len());
        for route in config.routes {
            let (there, here) = ((route.from.clone(), route.to.clone()), (route.to.clone(), route.from.clone()));
            let (Some(out), Some(back)) = (links.get(&there), links.get(&here)) else {
                return Err(StartRelayError::NoLink { from: route.from, to: route.to, listen: route.listen });
            };
            let failed = |error| StartRelayError::Listen { from: route.from.clone(), to: route.to.clone(), error };
            let listener = net.bind(&route.listen).await.map_err(failed)?;
            let address = listener.address().map_err(failed)?.to_string();
            let target = route.target.as_str().into();
            let (out, back) = (out.clone(), back.clone());
            routes.push((listener, Route { out, back, target, net: net.clone(), timer: timer.clone() }));
            addresses.push((route, address));
        }
        let relay = Self { links, addresses, tasks: TaskTracker::new(), shutdown };
        let open = Arc::new(Semaphore::new(limits::RELAY_CONNECTIONS_MAX));
        for (listener, route) in routes {
            let (tasks, shutdown) = (relay.tasks.clone(), relay.shutdown.clone());
            relay.tasks.spawn(accept(listener, route, open.clone(), tasks, shutdown));
        }
        Ok(relay)
    }

    /// Every route and the address at which its relay really listens.
    pub fn addresses(&self) -> &[(RouteConfig, String)] {
        &self.addresses
    }

    /// Every directed link as it is now.
    pub fn links(&self) -> Vec<LinkView> {
        self.links.values().map(|link| link.view()).collect()
    }

    /// One directed link as it is now.
    pub fn link(&self, from: &str, to: &str) -> Result<LinkView, PatchLinkError> {
        self.find(from, to).map(|link| link.view())
    }

    fn find(&self, from: &str, to: &str) -> Result<&Arc<DirectedLink>, PatchLinkError> {
        self.links
            .values()
            .find(|link| link.from.as_str() == from && link.to.as_str() == to)
            .ok_or_else(|| PatchLinkError::Unknown { from: from.to_owned(), to: to.to_owned() })
    }

    /// Changes a directed link, connections that are open included.
    pub fn patch(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, PatchLinkError> {
        patch.validate_for_streams().map_err(PatchLinkError::OutOfBounds)?;
        let link = self.find(from, to)?;
        if let FlapChange::Start(half_period_ms, stop) = link.patch(patch) {
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(flap(link.clone(), Duration::from_millis(half_period_ms), stop, shutdown));
        }
        tracing::info!(%from, %to, ?patch, "a link was changed");
        Ok(link.view())
    }

    /// Puts every link back to its declared profile.
    pub fn reset_to_declared(&self) -> Vec<LinkView> {
        for link in self.links.values() {
            link.heal();
        }
        self.links()
    }

    /// What crossed each link.
    pub fn bytes(&self) -> Vec<LinkBytesView> {
        self.links.values().map(|link| link.bytes()).collect()
    }

    /// Waits, after `shutdown`, until every connection is closed.
    pub async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

type Links = BTreeMap<(LocationName, LocationName), Arc<DirectedLink>>;

fn build_links(seed: u64, configs: Vec<LinkConfig>) -> Result<Links, StartRelayError> {
    let pairs: BTreeSet<_> = configs.iter().map(|link| (link.from.clone(), link.to.clone())).collect();
    let mut links = BTreeMap::new();
    for LinkConfig { from, to, profile } in configs {
        if let Err(error) = profile.validate_for_streams() {
            return Err(StartRelayError::Profile { from, to, error });
        }
        let pair = (from.clone(), to.clone());
        // The draws of a link depend on its place among the names, not on the order of the configuration.
        let place = pairs.range(..&pair).count() as u64;
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(place);
        let link = Arc::new(DirectedLink::new(from.clone(), to.clone(), profile, seed));
        if links.insert(pair, link).is_some() {
            return Err(StartRelayError::Duplicate { from, to });
        }
    }
    Ok(links)
}

async fn accept(
    mut listener: Listener,
    route: Route,
    open: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = async {
                let permit = open.clone().acquire_owned().await;
                (permit, listener.accept_io().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((dialer, _))) => {
                let (route, shutdown) = (route.clone(), shutdown.clone());
                tasks.spawn(async move {
                    route.carry(dialer, shutdown).await;
                    drop(permit);
                });
            }
            (Err(_), _) => return,
            (_, Err(error)) => {
                tracing::warn!(from = %route.out.from, to = %route.out.to, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn flap(link: Arc<DirectedLink>, half_period: Duration, stop: CancellationToken, shutdown: CancellationToken) {
    let mut next = LinkState::Up;
    while link.flap_to(next, &stop) {
        next = if next == LinkState::Up { LinkState::Cut } else { LinkState::Up };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = stop.cancelled() => return,
            () = tokio::time::sleep(half_period) => {}
        }
    }
}
