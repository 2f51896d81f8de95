//! Who runs a chaotic run from beside it: starts the users, injects and heals faults, demands liveness, and asks for
//! the judgement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderMap, Method, Request};
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkState};
use longhaul_core::plan::Workload;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::topology::{Location, LocationKind, Topology};
use longhaul_http::client::{CallError, HttpClient};
use longhaul_http::clock::Clock;
use longhaul_http::wire::control::{CONTROL_FAILOVERS_PATH, CONTROL_REGIME_PATH, FailoverCommand, RegimeChange};
use longhaul_http::wire::records::record_path;
use longhaul_http::wire::regime::{CHANGES_PATH, ChangeState, ChangeStatus, REGIME_PATH};
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH};
use longhaul_http::wire::traffic::{
    EdgeTarget, Findings, JudgeRequest, ModeSpan, RUNS_PATH, RegionTarget, RunProgress, RunRequest, RunStarted,
    RunState, run_judge_path, run_path,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::length_s;
use crate::clock::SimTime;
use crate::invariants::Watch;
use crate::judge::Seen;
use crate::links::HostIndex;
use crate::machine::{CONTROL, Machine, USERS};
use crate::net::address;
use crate::overlap;
use crate::schedule::{Fault, Planned, Schedule};

/// Deadline of one question.
const ASK: Duration = Duration::from_secs(2);
/// Deadline of asking control for a change.
const CHANGE: Duration = Duration::from_secs(5);
/// How often to look.
const LOOK: Duration = Duration::from_millis(250);
/// How long the world may take to serve at the start.
const READY: Duration = Duration::from_secs(30);
/// How long a kill in the next commit waits for one: an idle region writes once a second.
const COMMIT_COMES: Duration = Duration::from_millis(1_100);
/// How long each demand of liveness may take once everything has healed.
const LIVENESS: Duration = Duration::from_secs(60);
/// How long the regions may take to hold the same.
const SETTLE_S: f64 = 60.0;

/// The operator of a run.
pub(crate) struct Operator {
    pub(crate) topology: Topology,
    pub(crate) schedule: Schedule,
    pub(crate) machine: Arc<Machine>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) client: HttpClient,
    pub(crate) seed: u64,
    pub(crate) seen: Seen,
    /// Faults that have begun and not ended.
    pub(crate) active: RefCell<Vec<Fault>>,
}

impl Operator {
    /// The whole run.
    pub(crate) async fn run(&mut self) {
        if let Err(reason) = self.try_run().await {
            self.seen.unmet.push(reason);
        }
    }

    async fn try_run(&mut self) -> Result<(), String> {
        self.await_within(READY, "the world serves at the start", async |this| this.not_ready().await).await?;
        let started = self.start_users().await?;
        let start = Instant::now() + Duration::from_nanos(started.start_boot_ns.saturating_sub(self.boot_ns()));
        self.tell("the measured run starts");
        self.break_things(start).await;
        self.heal().await;
        self.tell("everything has healed");
        self.await_stable().await?;
        self.await_within(LIVENESS, "users write through every edge", async |this| this.not_writing().await).await?;
        let path = run_path(&started.id);
        self.await_within(LIVENESS, "every operation has its outcome", async |this| this.still_sending(&path).await)
            .await?;
        // A change that was asked for while no majority was there may be completed by whoever reads the register next.
        self.await_stable().await?;
        let forgotten = "every delete is forgotten: the stability frontier moves";
        self.await_within(LIVENESS, forgotten, async |this| this.tombstones().await).await?;
        self.tell("the oracle judges");
        let changes = self.changes().await;
        self.seen.running = changes
            .iter()
            .filter(|change| change.state == ChangeState::Running)
            .map(|change| format!("I13: {} {} ({}) never ended", change.region, change.kind, change.reason))
            .collect();
        let findings: Findings = self
            .ask(
                Method::POST,
                &address(USERS),
                &run_judge_path(&started.id),
                Some(&self.circumstances(changes)),
                LIVENESS * 5,
            )
            .await
            .map_err(|error| format!("the run cannot be judged: {error}"))?;
        self.seen.findings = Some(findings);
        Ok(())
    }

    fn tell(&self, text: &str) {
        self.machine.timeline.add("operator", text);
    }

    fn boot_ns(&self) -> u64 {
        self.machine.clocks[self.host(USERS)].boot_ns()
    }

    fn host(&self, name: &str) -> HostIndex {
        self.machine.links.host(name).unwrap_or_default()
    }

    fn regions(&self) -> impl Iterator<Item = String> + '_ {
        self.topology.regions().map(|(_, name)| name.to_string())
    }

    async fn ask<B: serde::Serialize + Sync, A: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.client.json(method, address, path, HeaderMap::new(), body, deadline).await
    }

    /// Waits until a question is answered with nothing that is missing.
    async fn await_within(
        &self,
        limit: Duration,
        what: &str,
        missing: impl AsyncFn(&Self) -> Vec<String>,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let lines = missing(self).await;
            if lines.is_empty() {
                self.tell(&format!("{what}: yes"));
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("not within {} s: {what}: {}", limit.as_secs(), lines.join("; ")));
            }
            sleep(LOOK).await;
        }
    }

    /// Every change has ended, and isolation keeps what it promises.
    async fn await_stable(&self) -> Result<(), String> {
        let stable = "every region serves and no transition is under way";
        self.await_within(LIVENESS, stable, async |this| this.not_stable().await).await?;
        let at_home = "in isolation nothing of other homes is left anywhere";
        self.await_within(LIVENESS, at_home, async |this| this.foreign().await).await
    }

    async fn statuses(&self) -> BTreeMap<String, Result<RegionStatus, CallError>> {
        let asks = self.regions().map(|region| async {
            let status = self.client.get::<RegionStatus>(&address(&region), STATUS_PATH, ASK).await;
            (region, status)
        });
        futures::future::join_all(asks).await.into_iter().collect()
    }

    async fn not_ready(&self) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for (region, status) in self.statuses().await {
            match status {
                Ok(status) if status.ready && status.trouble.is_none() => {}
                Ok(status) => {
                    missing.push(format!("{region} is {}: {}", status.role, status.trouble.unwrap_or_default()));
                }
                Err(error) => missing.push(error.to_string()),
            }
        }
        for location in &self.topology.locations {
            if location.kind == LocationKind::Edge {
                let mut request = Request::new(Bytes::new());
                *request.uri_mut() = http::Uri::from_static("/readyz");
                match self.client.send(&address(location.name.as_str()), request, ASK).await {
                    Ok(answer) if answer.status().is_success() => {}
                    Ok(answer) => missing.push(format!("gateway {} answers {}", location.name, answer.status())),
                    Err(error) => missing.push(error.to_string()),
                }
            }
        }
        missing
    }

    /// Every region serves, in one regime, with no transition under way.
    async fn not_stable(&self) -> Vec<String> {
        self.start_what_a_full_disk_ended().await;
        let mut missing = self.not_ready().await;
        let mut epochs = BTreeMap::new();
        for region in self.regions() {
            match self.client.get::<Regime>(&address(&region), REGIME_PATH, ASK).await {
                Ok(regime) => {
                    if let Some(transition) = &regime.transition {
                        missing.push(format!("{region} is on the way to {}", transition.target.mode));
                    }
                    epochs.insert(region, regime.epoch);
                }
                Err(error) => missing.push(error.to_string()),
            }
        }
        if epochs.values().collect::<std::collections::BTreeSet<_>>().len() > 1 {
            missing.push(format!("epochs differ: {epochs:?}"));
        }
        missing
    }

    /// Regions that still hold timelines of others although they are to hold what is theirs alone.
    async fn foreign(&self) -> Vec<String> {
        let mut foreign = Vec::new();
        for (id, region) in self.topology.regions() {
            let at = address(region.as_str());
            let regime = self.client.get::<Regime>(&at, REGIME_PATH, ASK).await;
            let status = self.client.get::<RegionStatus>(&at, STATUS_PATH, ASK).await;
            match (regime, status) {
                (Ok(regime), Ok(status)) if regime.mode == Mode::RegionalIsolation => {
                    let own = format!("{id}.");
                    let others = status.positions.into_keys().filter(|timeline| !timeline.starts_with(&own));
                    foreign.extend(others.map(|timeline| format!("{region} holds timeline {timeline}")));
                }
                (Ok(_), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => foreign.push(error.to_string()),
            }
        }
        foreign
    }

    /// A write through every edge, to a record of its own home.
    async fn not_writing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (n, location) in self.topology.edges().enumerate() {
            let home = location.home.and_then(|home| self.topology.region_name(home));
            let Some(home) = home else { continue };
            let mut request = Request::new(Bytes::from_static(b"\"alive\""));
            *request.method_mut() = Method::PUT;
            let path = record_path(home.as_str(), &format!("probe-{n}"));
            *request.uri_mut() = path.parse().unwrap_or_default();
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            match self.client.send(&address(location.name.as_str()), request, CHANGE).await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => {
                    let body = String::from_utf8_lossy(answer.body()).into_owned();
                    missing.push(format!("{}: {}: {body}", location.name, answer.status()));
                }
                Err(error) => missing.push(error.to_string()),
            }
        }
        missing
    }

    /// Tombstones that are left once nobody writes any more. In isolation there is no frontier; and what a lost disk alone
    /// had of a sealed timeline keeps the frontier where it is.
    async fn tombstones(&self) -> Vec<String> {
        if self.watch.is_isolated() || self.schedule.loses_a_disk() {
            return Vec::new();
        }
        let statuses = self.statuses().await.into_iter();
        let kept = statuses.filter_map(|(region, status)| match status {
            Ok(status) if status.tombstones == 0 => None,
            Ok(status) => Some(format!("{region} keeps {} tombstones", status.tombstones)),
            Err(error) => Some(error.to_string()),
        });
        kept.collect()
    }

    async fn still_sending(&self, path: &str) -> Vec<String> {
        match self.client.get::<RunProgress>(&address(USERS), path, ASK).await {
            Ok(progress) if matches!(progress.state, RunState::Warming | RunState::Running) => {
                vec![format!("the run is {:?} after {:.1} s", progress.state, progress.elapsed_s)]
            }
            Ok(_) => Vec::new(),
            Err(error) => vec![error.to_string()],
        }
    }

    async fn start_users(&self) -> Result<RunStarted, String> {
        let schedule = &self.schedule;
        let workload = schedule.workload.clone();
        let request = run_request(&self.topology, workload, schedule.mode, self.seed, 1.0, length_s(schedule));
        self.ask(Method::POST, &address(USERS), RUNS_PATH, Some(&request), ASK)
            .await
            .map_err(|error| format!("the users cannot start: {error}"))
    }

    async fn changes(&self) -> Vec<ChangeStatus> {
        let mut changes = Vec::new();
        for region in self.regions() {
            if let Ok(some) = self.client.get::<Vec<ChangeStatus>>(&address(&region), CHANGES_PATH, ASK).await {
                changes.extend(some);
            }
        }
        changes
    }

    fn circumstances(&self, changes: Vec<ChangeStatus>) -> JudgeRequest {
        let regimes = self.watch.regimes();
        let stable = regimes.iter().filter(|(_, regime)| regime.transition.is_none());
        let mut modes: Vec<ModeSpan> =
            stable.map(|(at_ns, regime)| ModeSpan { boot_ns: SimTime::boot_ns(*at_ns), mode: regime.mode }).collect();
        modes.dedup_by_key(|span| span.mode);
        // The first is the start.
        modes.drain(..modes.len().min(1));
        JudgeRequest {
            faults: Vec::new(),
            changes,
            gateway_adoptions: Vec::new(),
            start_mode: self.schedule.mode,
            durability: self.schedule.durability,
            modes,
            settle_s: SETTLE_S,
            regions_expected_down: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Injects every fault at its time and takes it back at its end. Requests to control do not hold others up.
    async fn break_things(&self, start: Instant) {
        let mut moments: Vec<(u64, bool, &Planned)> = Vec::new();
        for planned in &self.schedule.faults {
            moments.push((planned.at_ms, true, planned));
            if planned.fault.lasts() {
                moments.push((planned.until_ms, false, planned));
            }
        }
        moments.sort_by_key(|(at_ms, begins, _)| (*at_ms, *begins));
        let mut requests = FuturesUnordered::new();
        for (at_ms, begins, planned) in moments {
            let due = sleep_until(start + Duration::from_millis(at_ms));
            let mut due = std::pin::pin!(due);
            loop {
                tokio::select! {
                    biased;
                    () = &mut due => break,
                    Some(()) = requests.next() => {}
                }
            }
            let verb = if begins { "" } else { "end of: " };
            self.tell(&format!("{verb}{}", planned.fault));
            if planned.fault.lasts() {
                self.take_turn(&planned.fault, begins).await;
            } else {
                requests.push(self.request(&planned.fault));
            }
        }
        let heal = sleep_until(start + Duration::from_millis(self.schedule.heal_ms));
        let mut heal = std::pin::pin!(heal);
        loop {
            tokio::select! {
                biased;
                () = &mut heal => break,
                Some(()) = requests.next() => {}
            }
        }
    }

    async fn request(&self, fault: &Fault) {
        let control = address(CONTROL);
        let change = |change: RegimeChange| async move {
            self.ask::<_, serde_json::Value>(Method::PUT, &address(CONTROL), CONTROL_REGIME_PATH, Some(&change), CHANGE)
                .await
        };
        let answer = match fault {
            Fault::Switchover { to } => {
                change(RegimeChange { primary: Some(to.clone()), ..RegimeChange::default() }).await
            }
            Fault::Switch { mode, durability, force } => {
                let durability = (*mode == Mode::ActivePassive).then_some(*durability);
                let switch = RegimeChange { mode: Some(*mode), durability, force: *force, ..RegimeChange::default() };
                change(switch).await
            }
            Fault::Failover { to, allow_data_loss } => {
                let command = FailoverCommand { to: to.clone(), allow_data_loss: *allow_data_loss, planned: false };
                self.ask(Method::POST, &control, CONTROL_FAILOVERS_PATH, Some(&command), CHANGE).await
            }
            _ => return,
        };
        match answer {
            Ok(_) => self.tell(&format!("asked for: {fault}")),
            Err(error) => self.tell(&format!("refused: {fault}: {error}")),
        }
    }

    fn cut(&self, from: &str, to: &str, cut: bool) {
        let between_regions = [from, to].iter().all(|name| self.topology.region_id(name).is_some());
        let stays_cut = |fault: &Fault| overlap::cuts(fault, (from, to), between_regions);
        if !cut && self.active.borrow().iter().any(stays_cut) {
            return;
        }
        let state = if cut { LinkState::Cut } else { LinkState::Up };
        let patch = LinkPatch { state: Some(state), ..LinkPatch::default() };
        if let Err(error) = self.machine.links.patch(from, to, &patch) {
            self.tell(&format!("not done: {error}"));
        }
    }

    fn cut_all(&self, region: &str, cut: bool, edges_too: bool) {
        for location in &self.topology.locations {
            let name = location.name.as_str();
            if name != region && (edges_too || location.kind == LocationKind::Region) {
                self.cut(region, name, cut);
                self.cut(name, region, cut);
            }
        }
    }

    /// A fault begins or ends; whatever else is in force stays so.
    async fn take_turn(&self, fault: &Fault, begins: bool) {
        if begins {
            self.active.borrow_mut().push(fault.clone());
            self.apply(fault, true).await;
            return;
        }
        let others = {
            let mut active = self.active.borrow_mut();
            if let Some(place) = active.iter().position(|other| other == fault) {
                active.remove(place);
            }
            active.clone()
        };
        self.apply(fault, false).await;
        for other in others.iter().filter(|other| overlap::undoes(fault, other)) {
            self.apply(other, true).await;
        }
    }

    /// Starts a process, unless a fault keeps it from running.
    async fn start(&self, host: &str) {
        let is_down = self.active.borrow().iter().any(|fault| overlap::holds_down(fault, host));
        if !is_down {
            self.machine.start(self.host(host)).await;
        }
    }

    async fn apply(&self, fault: &Fault, begins: bool) {
        let machine = &self.machine;
        match fault {
            Fault::CrashInCommit { region, durable } if begins => {
                machine.crash_in_commit(self.host(region), *durable, COMMIT_COMES).await;
            }
            Fault::CrashInCommit { region, .. } => self.start(region).await,
            Fault::Crash { host } | Fault::DiskLoss { region: host } => {
                let index = self.host(host);
                if !begins {
                    self.start(host).await;
                    return;
                }
                machine.crash(index).await;
                if let (Fault::DiskLoss { .. }, Some(disk)) = (fault, machine.disks.get(&index)) {
                    disk.lose();
                }
            }
            Fault::ControlGone if begins => machine.crash(self.host(CONTROL)).await,
            Fault::ControlGone => machine.start(self.host(CONTROL)).await,
            Fault::DiskFull { region } => {
                let index = self.host(region);
                match machine.disks.get(&index) {
                    Some(disk) if begins => disk.fill(),
                    Some(disk) => {
                        disk.make_room();
                        self.start(region).await;
                    }
                    None => {}
                }
            }
            Fault::SlowDisk { region, flush_ms } => {
                if let Some(disk) = machine.disks.get(&self.host(region)) {
                    disk.set_flush(begins.then(|| Duration::from_millis(*flush_ms)));
                }
            }
            Fault::Cut { a, b } => {
                self.cut(a, b, begins);
                self.cut(b, a, begins);
            }
            Fault::CutOneWay { from, to } => self.cut(from, to, begins),
            Fault::Partition { region } => self.cut_all(region, begins, false),
            Fault::Isolate { region } => self.cut_all(region, begins, true),
            Fault::Hold { from, to } => machine.links.hold(self.host(from), self.host(to), begins),
            Fault::Freeze { host } => {
                machine.freeze(self.host(host), begins);
                if begins {
                    // Also if it stood still already and something else has just let go of its links.
                    machine.links.freeze(self.host(host), true);
                }
            }
            Fault::Bad { a, b, .. } | Fault::Flap { a, b, .. } => {
                for (from, to) in [(a, b), (b, a)] {
                    let patch = if begins { bad(fault) } else { self.declared(from, to) };
                    if let Err(error) = machine.links.patch(from, to, &patch) {
                        self.tell(&format!("not done: {error}"));
                    }
                }
            }
            Fault::ClockStep { region, by_ms } => match machine.clocks.get(self.host(region)) {
                Some(clock) if begins => clock.step(*by_ms),
                Some(clock) => clock.correct(),
                None => {}
            },
            Fault::ClockDrift { region, ppm } => match machine.clocks.get(self.host(region)) {
                Some(clock) if begins => clock.drift(*ppm),
                Some(clock) => clock.correct(),
                None => {}
            },
            Fault::Switchover { .. } | Fault::Failover { .. } | Fault::Switch { .. } => {}
        }
    }

    fn declared(&self, from: &str, to: &str) -> LinkPatch {
        let found = self.topology.links.iter().find(|((a, b), _)| a.as_str() == from && b.as_str() == to);
        found.map_or_else(LinkPatch::default, |(_, link)| LinkPatch { state: None, ..link.profile.as_patch() })
    }

    /// Takes back whatever is still broken.
    async fn heal(&self) {
        self.machine.links.restore_all();
        for clock in &self.machine.clocks {
            clock.correct();
        }
        for (host, disk) in &self.machine.disks {
            disk.set_flush(None);
            disk.make_room();
            self.machine.freeze(*host, false);
        }
        for host in 0..self.machine.links.names().len() {
            self.machine.start(host).await;
        }
    }

    /// A region whose disk was full lets what is under way end before it ends itself, which may be after there is room again.
    async fn start_what_a_full_disk_ended(&self) {
        for planned in &self.schedule.faults {
            if let Fault::DiskFull { region } = &planned.fault
                && !self.machine.links.is_up(self.host(region))
            {
                self.machine.start(self.host(region)).await;
            }
        }
    }
}

/// What the users of every edge are asked to do.
pub(crate) fn run_request(
    topology: &Topology,
    workload: Workload,
    mode: Mode,
    seed: u64,
    warm_up_s: f64,
    duration_s: f64,
) -> RunRequest {
    let edge = |location: &Location| {
        let home = location.home.and_then(|home| topology.region_name(home))?;
        let name = location.name.to_string();
        Some(EdgeTarget { gateway: address(&name), name, home: home.to_string() })
    };
    let region = |name: &LocationName| RegionTarget { address: address(name.as_str()), name: name.to_string() };
    RunRequest {
        workload,
        edges: topology.edges().filter_map(edge).collect(),
        regions: topology.regions().map(|(_, name)| region(name)).collect(),
        seed,
        warm_up_s,
        duration_s,
        mode,
        run_key: format!("seed {seed}"),
        part: None,
    }
}

fn bad(fault: &Fault) -> LinkPatch {
    match fault {
        Fault::Bad { delay_ms, jitter_ms, loss_percent, .. } => LinkPatch {
            delay_ms: Some(f64::from(*delay_ms)),
            jitter_ms: Some(f64::from(*jitter_ms)),
            loss: Some(f64::from(*loss_percent) / 100.0),
            ..LinkPatch::default()
        },
        Fault::Flap { half_ms, .. } => LinkPatch { flap_ms: Some(*half_ms), ..LinkPatch::default() },
        _ => LinkPatch::default(),
    }
}
