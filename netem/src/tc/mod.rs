//! The kernel driver: shapes what leaves a location's interface with `netem`, by the plan of [`crate::plan`].
//!
//! It acts on packets, so TCP itself repairs what is lost: a connection outlives a cut that is shorter than its patience.
//! Each location drives the links that begin there. A link that ends there it can only cut, by dropping what comes in:
//! so a cut holds although one end's agent is gone.

mod bytes;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile, LinkState};
use longhaul_http::wire::links::{LinkBytesView, LinkView};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use shell::{Ran, Shell, SystemShell, TcError};

use crate::plan::{Command, Destination, Plan, PlanLinkError};
use crate::relay::PatchLinkError;

impl From<TcError> for PatchLinkError {
    fn from(error: TcError) -> Self {
        Self::Driver(error.to_string())
    }
}

/// What to shape.
#[derive(Debug, Clone, PartialEq)]
pub struct TcConfig {
    /// The location.
    pub location: LocationName,
    /// Its interface towards the others.
    pub device: String,
    /// The network namespace of the interface by name (`ip netns`); the process's own if absent.
    pub namespace: Option<String>,
    /// Every other location with the link to it.
    pub destinations: Vec<Destination>,
    /// The links that end here, as declared.
    pub inbound: BTreeMap<LocationName, LinkProfile>,
}

/// Why the driver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartTcError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanLinkError),
    /// The kernel was not shaped.
    #[error(transparent)]
    Tc(#[from] TcError),
}

/// A shaped interface.
#[derive(Clone)]
pub struct Tc(Arc<Inner>);

struct Inner {
    location: LocationName,
    namespace: Option<String>,
    shell: Arc<dyn Shell>,
    state: Mutex<State>,
    /// Held while commands run: what is waiting meanwhile runs in one go.
    running: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct State {
    plan: Plan,
    outbound: BTreeMap<LocationName, Directed>,
    inbound: BTreeMap<LocationName, Directed>,
    /// Links that the kernel does not have as they are here: the other location, and whether the link begins here.
    waiting: BTreeSet<(LocationName, bool)>,
    /// How many changes were made, and how many of them are in force.
    changed: u64,
    in_force: u64,
}

struct Directed {
    declared: LinkProfile,
    current: LinkProfile,
    flap: Option<(u64, CancellationToken)>,
}

impl Directed {
    fn new(declared: LinkProfile) -> Self {
        Self { current: declared.clone(), declared, flap: None }
    }
}

/// The interface on the way to an address, in the process's own network namespace.
pub async fn device_towards(shell: &dyn Shell, address: IpAddr) -> Result<String, TcError> {
    let arguments = ["-json", "route", "get", &address.to_string()].map(str::to_owned);
    let ran = shell::run(shell, "ip", &arguments, "").await?;
    let lost = |reason: &str| TcError::NoDevice { address: address.to_string(), reason: reason.trim().to_owned() };
    if !ran.success {
        return Err(lost(&ran.complaint));
    }
    let routes: serde_json::Value = serde_json::from_str(&ran.output).map_err(|error| lost(&error.to_string()))?;
    let device = routes[0]["dev"].as_str().ok_or_else(|| lost("the route names no interface"))?;
    if routes[0]["gateway"].is_string() {
        return Err(lost("it is behind a gateway, and shaping there would shape everything else, too"));
    }
    Ok(device.to_owned())
}

impl Tc {
    /// Shapes the interface as declared, whatever was there before. Until `shutdown`; [`Tc::join`] then takes all away.
    pub async fn start(
        shell: Arc<dyn Shell>,
        config: TcConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, StartTcError> {
        let outbound = config
            .destinations
            .iter()
            .map(|destination| (destination.name.clone(), Directed::new(destination.profile.clone())))
            .collect();
        let inbound = config.inbound.into_iter().map(|(from, profile)| (from, Directed::new(profile))).collect();
        let plan = Plan::new(&config.device, config.destinations)?;
        let (undo, install) = (plan.undo(), plan.install());
        let state = State { plan, outbound, inbound, waiting: BTreeSet::new(), changed: 0, in_force: 0 };
        let tc = Self(Arc::new(Inner {
            location: config.location,
            namespace: config.namespace,
            shell,
            state: Mutex::new(state),
            running: tokio::sync::Mutex::new(()),
            tasks: TaskTracker::new(),
            shutdown,
        }));
        tc.run_all(&undo).await?;
        if let Err(error) = tc.run_all(&install).await {
            // A half-installed plan must not stay.
            tc.run_all(&undo).await?;
            return Err(error.into());
        }
        Ok(tc)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every link that begins here, as it is now.
    pub fn links(&self) -> Vec<LinkView> {
        self.state().outbound.iter().map(|(to, link)| view(&self.0.location, to, link)).collect()
    }

    /// One directed link that begins or ends here, as it is now.
    pub fn link(&self, from: &str, to: &str) -> Result<LinkView, PatchLinkError> {
        self.state().find(&self.0.location, from, to).map(|(other, outbound, link)| {
            if outbound { view(&self.0.location, &other, link) } else { view(&other, &self.0.location, link) }
        })
    }

    /// Changes a directed link, connections that are open included; in force when it returns. A link that ends here is only
    /// cut or let through. A change that the kernel refuses is taken back.
    pub async fn patch(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, PatchLinkError> {
        patch.validate().map_err(PatchLinkError::OutOfBounds)?;
        let (other, outbound, before, flap) = {
            let mut state = self.state();
            let (other, outbound, link) = state.find(&self.0.location, from, to)?;
            let mut next = link.current.patched(patch);
            let flap = patch.flap_ms.filter(|_| outbound);
            let mut flap_ended = false;
            if (flap.is_some() || patch.state.is_some())
                && let Some((_, stop)) = link.flap.take()
            {
                stop.cancel();
                flap_ended = true;
                // What the flap left is not what was asked for.
                next.state = patch.state.unwrap_or(link.declared.state);
            }
            let stop = self.0.shutdown.child_token();
            let flap = flap.filter(|half_period_ms| *half_period_ms > 0);
            link.flap = flap.map(|half_period_ms| (half_period_ms, stop.clone()));
            let mut before = std::mem::replace(&mut link.current, next.clone());
            // Of a link that ends here only the state is driven.
            let driven = if outbound { before != next } else { before.state != next.state };
            if flap_ended {
                before.state = link.declared.state;
            }
            if driven {
                state.put(&other, outbound);
            }
            (other, outbound, before, flap.map(|half_period_ms| (half_period_ms, stop)))
        };
        if let Err(error) = self.put_in_force().await {
            return Err(self.take_back(&other, outbound, before, &error).await);
        }
        if let Some((half_period_ms, stop)) = flap {
            let flap = self.clone().flap(other.clone(), Duration::from_millis(half_period_ms), stop);
            self.0.tasks.spawn(flap);
        }
        if patch.reset {
            self.reset_connections(&other).await?;
        }
        tracing::info!(%from, %to, ?patch, "a link was changed");
        self.link(from, to)
    }

    /// Puts every link back to its declared profile.
    pub async fn reset_to_declared(&self) -> Result<Vec<LinkView>, PatchLinkError> {
        {
            let mut state = self.state();
            let State { outbound, inbound, .. } = &mut *state;
            let mut changed = Vec::new();
            for (links, is_outbound) in [(outbound, true), (inbound, false)] {
                for (other, link) in links {
                    if let Some((_, stop)) = link.flap.take() {
                        stop.cancel();
                    }
                    link.current = link.declared.clone();
                    changed.push((other.clone(), is_outbound));
                }
            }
            for (other, outbound) in changed {
                state.put(&other, outbound);
            }
        }
        self.put_in_force().await?;
        Ok(self.links())
    }

    /// What left over each link since the start, headers included. The kernel does not see what the bytes are for.
    pub async fn bytes(&self) -> Result<Vec<LinkBytesView>, TcError> {
        let device = self.state().plan.device().to_owned();
        let arguments = self.arguments(["-s", "class", "show", "dev", &device]);
        let ran = shell::run(self.0.shell.as_ref(), "tc", &arguments, "").await?;
        let by_class = bytes::by_class(&ran.output);
        let state = self.state();
        let view = |destination: &Destination| {
            let class = state.plan.class_of(&destination.name).unwrap_or_default();
            let bytes = by_class.get(&class).copied().unwrap_or(0);
            let (from, to) = (self.0.location.to_string(), destination.name.to_string());
            LinkBytesView { from, to, bytes: [("all".to_owned(), bytes)].into() }
        };
        Ok(state.plan.destinations().iter().map(view).collect())
    }

    /// Takes all shaping away, after `shutdown`.
    pub async fn join(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let undo = self.state().plan.undo();
        if let Err(error) = self.run_all(&undo).await {
            tracing::warn!(%error, "the shaping could not be taken away");
        }
    }

    async fn flap(self, to: LocationName, half_period: Duration, stop: CancellationToken) {
        let mut next = LinkState::Cut;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(half_period) => {}
            }
            {
                let mut state = self.state();
                // Checked under the lock: whoever ends a flap says what comes after it.
                if stop.is_cancelled() {
                    return;
                }
                let Some(link) = state.outbound.get_mut(&to) else { return };
                link.current.state = next;
                state.put(&to, true);
            }
            if let Err(error) = self.put_in_force().await {
                tracing::warn!(%error, %to, "a flapping link cannot be changed");
            }
            next = if next == LinkState::Up { LinkState::Cut } else { LinkState::Up };
        }
    }

    /// Makes the kernel's links those of the state. Changes that come meanwhile wait for the next turn and run in one go.
    /// What fails stays waiting, so whoever waited behind it tries again and hears of it, too.
    async fn put_in_force(&self) -> Result<(), PatchLinkError> {
        let mine = self.state().changed;
        let _turn = self.0.running.lock().await;
        let (links, commands, changed) = {
            let mut state = self.state();
            if state.in_force >= mine {
                return Ok(());
            }
            let commands = state.commands()?;
            (std::mem::take(&mut state.waiting), commands, state.changed)
        };
        if let Err(error) = self.run_all(&commands).await {
            self.state().waiting.extend(links);
            return Err(error.into());
        }
        self.state().in_force = changed;
        Ok(())
    }

    /// Puts a link back to what it was before a change that failed; the error says which state is in force.
    async fn take_back(
        &self,
        other: &LocationName,
        outbound: bool,
        before: LinkProfile,
        failure: &PatchLinkError,
    ) -> PatchLinkError {
        {
            let mut state = self.state();
            let links = if outbound { &mut state.outbound } else { &mut state.inbound };
            if let Some(link) = links.get_mut(other) {
                if let Some((_, stop)) = link.flap.take() {
                    stop.cancel();
                }
                link.current = before;
            }
            state.put(other, outbound);
        }
        let here = &self.0.location;
        let link = if outbound { format!("{here} to {other}") } else { format!("{other} to {here}") };
        PatchLinkError::Driver(match self.put_in_force().await {
            Ok(()) => format!("the link from {link} is as it was: {failure}"),
            Err(again) => {
                format!("the link from {link} may be half changed (restore all links): {failure}; then: {again}")
            }
        })
    }

    /// Runs commands in order: those that may fail each by itself, the others in batches.
    async fn run_all(&self, commands: &[Command]) -> Result<(), TcError> {
        for chunk in commands.chunk_by(|a, b| a.may_fail == b.may_fail) {
            if chunk[0].may_fail {
                for command in chunk {
                    let arguments = self.arguments(command.arguments.iter().map(String::as_str));
                    let ran = shell::run(self.0.shell.as_ref(), "tc", &arguments, "").await?;
                    tracing::debug!(ok = ran.success, ?arguments, "tc");
                }
                continue;
            }
            let batch: String = chunk.iter().map(|command| command.arguments.join(" ") + "\n").collect();
            let ran = shell::run(self.0.shell.as_ref(), "tc", &self.arguments(["-batch", "-"]), &batch).await?;
            if !ran.success {
                let line = shell::failed_line(&ran.complaint).and_then(|number| batch.lines().nth(number - 1));
                return Err(shell::explain("tc", line.unwrap_or("-batch"), &ran.complaint));
            }
        }
        Ok(())
    }

    /// Resets every TCP connection with a location, at this end; the other end hears of it over the link.
    async fn reset_connections(&self, other: &LocationName) -> Result<(), TcError> {
        let subnets: Vec<String> = {
            let state = self.state();
            let here = state.plan.destinations().iter().filter(|destination| destination.name == *other);
            here.flat_map(|destination| destination.subnets.iter().map(ToString::to_string)).collect()
        };
        let ss = async |options: &[&str]| {
            let namespace = self.0.namespace.iter().flat_map(|name| ["--net".to_owned(), name.clone()]);
            let mut arguments: Vec<String> = namespace.chain(options.iter().map(|word| (*word).to_owned())).collect();
            for (place, subnet) in subnets.iter().enumerate() {
                let or = (place > 0).then(|| "or".to_owned());
                arguments.extend(or.into_iter().chain(["dst".to_owned(), subnet.clone()]));
            }
            let ran = shell::run(self.0.shell.as_ref(), "ss", &arguments, "").await?;
            if ran.success { Ok(ran.output) } else { Err(shell::explain("ss", &arguments.join(" "), &ran.complaint)) }
        };
        ss(&["--kill", "--tcp", "--no-header"]).await?;
        // A kernel that cannot kill sockets says nothing at all.
        let left = ss(&["--tcp", "--no-header", "state", "established"]).await?;
        if left.trim().is_empty() { Ok(()) } else { Err(TcError::NoReset) }
    }

    fn arguments<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let namespace = self.0.namespace.iter().flat_map(|name| ["-netns".to_owned(), name.clone()]);
        namespace.chain(words.into_iter().map(str::to_owned)).collect()
    }
}

impl State {
    /// A link by its ends: the other location, whether it begins here, the link.
    fn find(
        &mut self,
        here: &LocationName,
        from: &str,
        to: &str,
    ) -> Result<(LocationName, bool, &mut Directed), PatchLinkError> {
        let unknown = || PatchLinkError::Unknown { from: from.to_owned(), to: to.to_owned() };
        let outbound = here.as_str() == from;
        if !outbound && here.as_str() != to {
            return Err(unknown());
        }
        let (links, other) = if outbound { (&mut self.outbound, to) } else { (&mut self.inbound, from) };
        let found = links.iter_mut().find(|(name, _)| name.as_str() == other);
        found.map(|(name, link)| (name.clone(), outbound, link)).ok_or_else(unknown)
    }

    /// Makes a link wait to be put in force as it is.
    fn put(&mut self, other: &LocationName, outbound: bool) {
        self.waiting.insert((other.clone(), outbound));
        self.changed += 1;
    }

    /// What makes every waiting link as it is here.
    fn commands(&mut self) -> Result<Vec<Command>, PatchLinkError> {
        let mut commands = Vec::new();
        for (other, outbound) in &self.waiting {
            let links = if *outbound { &self.outbound } else { &self.inbound };
            let Some(link) = links.get(other) else { continue };
            let planned = if *outbound {
                self.plan.change(other, link.current.clone()).map(|command| vec![command])
            } else {
                self.plan.admit(other, link.current.state == LinkState::Up)
            };
            commands.extend(planned.map_err(|error| PatchLinkError::Driver(error.to_string()))?);
        }
        Ok(commands)
    }
}

fn view(from: &LocationName, to: &LocationName, link: &Directed) -> LinkView {
    LinkView {
        from: from.to_string(),
        to: to.to_string(),
        declared: link.declared.clone(),
        current: link.current.clone(),
        flap_ms: link.flap.as_ref().map(|(half_period_ms, _)| *half_period_ms),
        // The kernel driver knows packets, not connections.
        connections: 0,
        dead_connections: 0,
    }
}

#[cfg(test)]
mod tests;
