//! Drives planned transitions at their coordinator.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{Mode, Regime};
use longhaul_core::register::Intent;
use longhaul_core::transition::{
    Command, HomeCopy, Observations, Origin, Plan, Refusal, Request, Seen, Step, TransitionDriver, plan,
};
use longhaul_http::wire::regime::ChangeState;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::RegimeRole;
use super::changes::Record;
use super::messages::{
    AWAIT_PATH, AwaitRequest, CLOSE_PATH, CloseRequest, MERGE_PATH, MergeRequest, SEEN_PATH, SeenView,
};
use super::participant::SharedRole;
use crate::failpoint::{FailPoint, reach};
use crate::writer::GateScope;

/// How long one call of a step may take at a region; the driver asks again.
const CALL: Duration = Duration::from_secs(4);
/// How long a region waits inside such a call.
const WAIT_MS: u64 = 2000;
/// How long writes that wait for followers may take before the lease is given back without them.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Pause before a region that did not say how far it is is asked once more.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Pause between two rounds that changed nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a transition does not start.
#[derive(Debug)]
pub(super) enum StartError {
    /// What stands in its way.
    Refused(Vec<Refusal>),
    /// Another region has to drive it.
    Elsewhere(RegionId),
    /// This region drives another change.
    Busy,
}

/// Starts a transition; the work goes on in a task of the region.
pub(super) async fn start(role: &SharedRole, request: Request) -> Result<Uuid, StartError> {
    let Ok(driving) = Arc::clone(&role.driving).try_lock_owned() else { return Err(StartError::Busy) };
    let region = &role.region;
    if region.regime().transition.is_some() {
        // It may have ended without this region having heard of it yet. Failing to find out is no reason to say more than
        // that it is under way.
        if let Err(error) = role.change(Intent::Read).await {
            tracing::info!(%error, "cannot find out whether the transition under way has ended");
        }
    }
    let regime = region.regime();
    let observations = observe(role, regime.members.keys().copied()).await;
    let plan = plan(&regime, &request, &observations).map_err(StartError::Refused)?;
    if plan.coordinator != region.id() {
        return Err(StartError::Elsewhere(plan.coordinator));
    }
    let trace = region.trace_ids.root();
    let origin = Origin {
        id: region.random_uuid(),
        reason: describe(role, &regime, &plan),
        trace: Some(trace),
        deadline_ms: region.config.timings.transition_deadline_ms,
    };
    let kind = match (regime.mode == plan.target.mode, regime.primary == plan.target.primary) {
        (false, _) => "mode_switch",
        (true, false) => "switchover",
        (true, true) => "durability",
    };
    let id = origin.id;
    let mut record = role.changes.begin(id, kind, origin.reason.clone(), Some(trace));
    record.expect(plan.target.primary, None);
    record.note(plan.costs.iter().map(|cost| format!("cost: {cost}")));
    let drive = drive(Arc::clone(role), driving, plan, origin, observations, record);
    region.tracker.spawn(drive);
    Ok(id)
}

fn describe(role: &RegimeRole, regime: &Regime, plan: &Plan) -> String {
    let state = |mode: Mode, primary: Option<RegionId>, durability: String| match primary {
        Some(primary) => format!("{mode} ({durability}, primary {})", role.region.config.name_of(primary)),
        None => mode.to_string(),
    };
    let before = state(regime.mode, regime.primary, regime.durability.to_string());
    let after = state(plan.target.mode, plan.target.primary, plan.target.durability.to_string());
    format!("planned: {before} to {after}")
}

/// What the regions say of themselves; those that do not answer in time are absent.
async fn observe(role: &SharedRole, regions: impl IntoIterator<Item = RegionId>) -> Observations {
    let calls = regions.into_iter().map(|peer| async move {
        if peer == role.region.id() {
            return (peer, role.seen().await.ok());
        }
        (peer, tokio::time::timeout(role.peers.deadline(), ask(role, peer)).await.ok())
    });
    let answers = join_all(calls).await;
    let regions = answers.into_iter().filter_map(|(peer, seen)| Some((peer, Seen::from(seen?)))).collect();
    Observations { regions, ..Observations::default() }
}

/// Asks a region how far it is until it says so: one call that breaks at once does not make a region unreachable.
async fn ask(role: &SharedRole, peer: RegionId) -> SeenView {
    loop {
        match role.peers.get(peer, SEEN_PATH).await {
            Ok(seen) => return seen,
            Err(error) => {
                tracing::info!(region = role.region.config.name_of(peer), %error, "a region does not say how far it is");
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn drive(
    role: SharedRole,
    driving: OwnedMutexGuard<()>,
    plan: Plan,
    origin: Origin,
    mut observations: Observations,
    mut record: Record,
) {
    let region = Arc::clone(&role.region);
    let mut driver = TransitionDriver::new(plan, origin, region.clock.boot_ns());
    let mut at = driver.step().cloned();
    let end = loop {
        let before = observations.clone();
        let current = region.regime();
        let commands = driver.next(&current, &observations, region.clock.boot_ns());
        if driver.step() != at.as_ref() {
            if let Some(done) = &at {
                record.mark(milestone(done));
                may_die(done);
            }
            at = driver.step().cloned();
        }
        match commands.first() {
            None | Some(Command::Done) => break Ok(()),
            Some(Command::Abort(reason)) => break Err(reason.clone()),
            Some(_) => {}
        }
        let work = join_all(commands.into_iter().map(|command| obey(&role, &current, command)));
        tokio::select! {
            biased;
            () = region.shutdown.cancelled() => return,
            results = work => results.into_iter().for_each(|result| result.fold_into(&mut observations)),
        }
        if observations == before && region.regime().epoch == current.epoch {
            tokio::time::sleep(PAUSE).await;
        }
    };
    drop(driving);
    let epoch = region.regime().epoch;
    match end {
        Ok(()) => record.finish(ChangeState::Done, epoch, None),
        Err(reason) => {
            record.mark("aborted");
            record.note([reason.clone()]);
            record.finish(ChangeState::Aborted, epoch, Some(reason));
        }
    }
}

/// The moment that the end of a step is.
fn milestone(step: &Step) -> &'static str {
    match step {
        Step::Enter(_) => "announced",
        Step::Close(..) => "drained",
        Step::Converge(_) => "caught_up",
        Step::Certify(_) => "certified",
        Step::Merge(_) => "merged",
        Step::Flip => "flipped",
        Step::Purge(_) => "purged",
    }
}

/// Where a test can have the coordinator die.
fn may_die(done: &Step) {
    match done {
        Step::Enter(_) => reach(FailPoint::SwitchAnnounced),
        Step::Close(..) => reach(FailPoint::SwitchDrained),
        Step::Converge(_) => reach(FailPoint::SwitchCaughtUp),
        Step::Flip => reach(FailPoint::SwitchFlipped),
        Step::Certify(_) | Step::Merge(_) | Step::Purge(_) => {}
    }
}

/// What a command brought.
enum Brought {
    Nothing,
    Seen(RegionId, Box<SeenView>),
    Copies(Vec<((RegionId, RegionId), HomeCopy)>),
}

impl Brought {
    fn fold_into(self, observations: &mut Observations) {
        match self {
            Self::Nothing => {}
            Self::Seen(region, seen) => {
                observations.regions.insert(region, Seen::from(*seen));
            }
            Self::Copies(copies) => observations.copies.extend(copies),
        }
    }
}

/// Does what the driver asked for when `current` was the regime.
async fn obey(role: &SharedRole, current: &Regime, command: Command) -> Brought {
    match command {
        Command::Propose { regime, release } => {
            propose(role, current, *regime, release).await;
            Brought::Nothing
        }
        Command::CloseGate { region, scope, .. } => {
            let regime = role.region.regime();
            let request = CloseRequest { regime: (*regime).clone(), scope };
            seen(role, region, role.close(&regime, scope), CLOSE_PATH, &request).await
        }
        Command::AwaitBarrier { region, vector } => {
            let request = AwaitRequest { vector: vector.clone(), wait_ms: WAIT_MS };
            let here = role.await_applied(&vector, Duration::from_millis(WAIT_MS));
            seen(role, region, here, AWAIT_PATH, &request).await
        }
        Command::MergeHomes { region, homes, generation } => {
            let regime = role.region.regime();
            let request =
                MergeRequest { regime: (*regime).clone(), homes: homes.clone(), generation, wait_ms: WAIT_MS };
            let here = role.merge_homes(&regime, homes, generation, Duration::from_millis(WAIT_MS));
            seen(role, region, here, MERGE_PATH, &request).await
        }
        Command::Purge { region, .. } => {
            // Each region purges by itself when it adopts the regime; the coordinator only watches.
            let here = role.seen();
            if region == role.region.id() {
                return here.await.map_or(Brought::Nothing, |view| Brought::Seen(region, Box::new(view)));
            }
            let view = role.peers.get::<SeenView>(region, SEEN_PATH).await;
            view.map_or(Brought::Nothing, |view| Brought::Seen(region, Box::new(view)))
        }
        Command::Certify { home, holder } => {
            // The holder goes on writing records of its own home: its copy first, then the home's once the home has
            // applied everything that the holder had. Taken at one moment, the home would always be a link's delay behind.
            let Some(held) = copy(role, home, holder).await else { return Brought::Nothing };
            let request = AwaitRequest { vector: held.vector.clone(), wait_ms: WAIT_MS };
            let here = role.await_applied(&held.vector, Duration::from_millis(WAIT_MS));
            seen(role, home, here, AWAIT_PATH, &request).await;
            let Some(original) = copy(role, home, home).await else { return Brought::Nothing };
            Brought::Copies(vec![((home, holder), held), ((home, home), original)])
        }
        Command::Done | Command::Abort(_) => Brought::Nothing,
    }
}

/// Proposes the successor that was computed from `current`; if the regime has moved on meanwhile, it dies.
async fn propose(role: &SharedRole, current: &Regime, next: Regime, release: bool) {
    let release = if release {
        // Whoever still waits for followers is answered first: without the lease its outcome would be unknown. The gate opens
        // again with whatever regime comes next; until then nothing is written under this one.
        let answered = role.region.writer.gate(GateScope::All);
        if !matches!(tokio::time::timeout(LAST_ANSWERS, answered).await, Ok(Ok(()))) {
            tracing::info!("writes that wait for followers are not waited for any longer");
        }
        role.release_lease().await
    } else {
        None
    };
    if let Err(error) = role.replace(next, current.epoch, release).await {
        // The driver looks at the regime that is in force by now and goes on, or ends.
        tracing::info!(%error, "a step of the transition was not written");
    }
}

async fn seen<B: serde::Serialize + Sync>(
    role: &SharedRole,
    at: RegionId,
    here: impl Future<Output = Result<SeenView, super::participant::PartError>>,
    path: &str,
    request: &B,
) -> Brought {
    let view = if at == role.region.id() {
        match tokio::time::timeout(CALL, here).await {
            Ok(view) => view.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not done within {} s", CALL.as_secs())),
        }
    } else {
        role.peers.send(Method::POST, at, path, request, CALL).await.map_err(|error| error.to_string())
    };
    match view {
        Ok(view) => Brought::Seen(at, Box::new(view)),
        Err(error) => {
            tracing::info!(region = role.region.config.name_of(at), %error, "a region has not done its part yet");
            Brought::Nothing
        }
    }
}

async fn copy(role: &SharedRole, home: RegionId, at: RegionId) -> Option<HomeCopy> {
    if at == role.region.id() {
        return role.home_copy(home).await.ok();
    }
    role.peers.get(at, &format!("/internal/v1/transition/copy/{home}")).await.ok()
}
