//! Unplanned failover: fence, positions, choice, top-up, cut. Any surviving region may drive it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::failover::{ChainQuery, Decision, Fenced, Fetch, Flip, Inputs, Position, plan};
use longhaul_core::ids::{Dot, Epoch, RegionId};
use longhaul_core::operation::Chain;
use longhaul_core::regime::Regime;
use longhaul_core::register::{Ballot, Intent, Outcome, Progress};
#[cfg(doc)]
use longhaul_core::suspicion::SuspicionReport;
use longhaul_core::version::Version;
use longhaul_http::wire::regime::ChangeState;
use uuid::Uuid;

use super::RegimeRole;
use super::attempt::{Attempt, ChangeError};
use super::changes::Record;
use super::messages::{CHAIN_PATH, ChainAnswer, ChainRequest, POSITION_PATH, TOP_UP_PATH, TopUpRequest};
use crate::failpoint::{FailPoint, reach};
use crate::state::peers::PeerReport;

/// How long a fenced majority waits for the promises of further regions that are not suspected: they may know more.
const STRAGGLERS: Duration = Duration::from_millis(400);
/// How long the candidate may take to complete the old primary's timeline.
const TOP_UP_DEADLINE: Duration = Duration::from_secs(5);
/// How often the fence is tried against others who propose at the same time.
const FENCE_TRIES: u32 = 6;
/// How long a whole failover may take before it is given up.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// One line for people.
    pub reason: String,
    /// When this region began to suspect the primary, boot nanoseconds.
    pub suspected_boot_ns: Option<u64>,
    /// The wanted primary.
    pub prefer: Option<RegionId>,
    /// Acknowledged writes may be lost.
    pub allow_data_loss: bool,
    /// The identity of the failover.
    pub id: Uuid,
}

/// Why there was no failover.
#[derive(Debug, thiserror::Error)]
pub(super) enum FailoverError {
    #[error("another failover or transition of this region is under way; wait for it")]
    Busy,
    #[error(transparent)]
    Refused(#[from] longhaul_core::failover::FailoverRefusal),
    #[error(transparent)]
    Register(#[from] ChangeError),
    #[error("the candidate could not fetch what it lacks; reach the region that has it, or allow data loss")]
    TopUp,
    #[error("it took longer than {} s; heal links or start regions, and try again", FAILOVER_DEADLINE.as_secs())]
    Deadline,
}

/// Fails over from the present primary.
pub(super) async fn fail_over(role: &Arc<RegimeRole>, command: Command) -> Result<Regime, FailoverError> {
    let Ok(_driving) = role.driving.try_lock() else { return Err(FailoverError::Busy) };
    let trace = role.region.trace_ids.root();
    let mut record = role.changes.begin(command.id, "failover", command.reason.clone(), Some(trace));
    if let Some(suspected) = command.suspected_boot_ns {
        record.mark_at("suspected", suspected);
    }
    record.mark("decided");
    let drive = drive(role, &command, &mut record, trace);
    let result = match tokio::time::timeout(FAILOVER_DEADLINE, drive).await {
        Ok(result) => result,
        Err(_) => Err(FailoverError::Deadline),
    };
    // Others may have completed what this attempt had sent, and this region may have adopted it: then it has happened.
    let in_force = role.region.regime();
    let result = match result {
        Err(_) if in_force.change.id == command.id => Ok((*in_force).clone()),
        result => result,
    };
    match &result {
        Ok(regime) => {
            record.expect(regime.primary, None);
            record.finish(ChangeState::Done, regime.epoch, None);
        }
        Err(error) => {
            let epoch = role.region.regime().epoch;
            record.note([error.to_string()]);
            record.finish(ChangeState::Aborted, epoch, Some(error.to_string()));
        }
    }
    result
}

async fn drive(
    role: &Arc<RegimeRole>,
    command: &Command,
    record: &mut Record,
    trace: longhaul_core::operation::TraceContext,
) -> Result<Regime, FailoverError> {
    let current = role.region.regime();
    let promised =
        role.region.peers.states().values().filter_map(|peer| peer.report.as_ref().map(|r| r.promised)).max();
    let fence = current.epoch.next().max(role.region.promised()).max(promised.unwrap_or_default());
    let mut attempt = fenced_attempt(role, current.epoch, fence).await?;
    await_stragglers(role, &mut attempt, &current).await;
    record.mark("fenced");
    reach(FailPoint::Fenced);

    let promised = attempt.proposer().promises().keys().copied().collect();
    let mut inputs = Inputs {
        fenced: positions(role, promised).await,
        latency_rank: BTreeMap::new(),
        chains: BTreeMap::new(),
        last_head: last_head(role, &current),
        old_is_lost: says_that_it_is_lost(role, &current),
        allow_data_loss: command.allow_data_loss,
        prefer: command.prefer,
        id: command.id,
        by: role.region.id(),
        reason: command.reason.clone(),
        trace: Some(trace),
    };
    let flip = decide(role, &current, &mut inputs).await?;
    record.mark("chosen");
    reach(FailPoint::Chosen);
    record.expect(flip.regime.primary, flip.predicted_loss);
    record.note(flip.gave_up.iter().map(|gave_up| format!("given up: {gave_up}")));

    let mut progress = attempt.complete(flip.regime.clone());
    loop {
        match progress {
            Some(Progress::Done(Outcome::Chosen(regime))) => {
                reach(FailPoint::Flipped);
                role.adopt_and_tell(&regime).await.map_err(ChangeError::from)?;
                record.mark("promoted");
                return Ok(*regime);
            }
            Some(Progress::Done(outcome)) => {
                let error = lost(role, outcome).await;
                return settle(role, command, record, error).await;
            }
            _ => {}
        }
        match attempt.next().await {
            None => return settle(role, command, record, ChangeError::NoMajority).await,
            next => progress = next,
        }
    }
}

/// The regime was sent to the voters, but what became of it is unknown: some may have accepted it too late, or another
/// attempt may have completed it. Reading the register finds out, and makes it final either way.
async fn settle(
    role: &Arc<RegimeRole>,
    command: &Command,
    record: &mut Record,
    error: ChangeError,
) -> Result<Regime, FailoverError> {
    match role.change(Intent::Read).await? {
        Outcome::Chosen(regime) | Outcome::Stale { current: regime } if regime.change.id == command.id => {
            record.mark("promoted");
            Ok(*regime)
        }
        _ => Err(error.into()),
    }
}

/// An attempt whose fence stands. A voter that has promised a higher ballot to somebody (a read of the register is
/// enough) names it, and the next attempt goes above it: a failover must not end because a region has just started.
async fn fenced_attempt(role: &Arc<RegimeRole>, expected: Epoch, fence: Epoch) -> Result<Attempt, FailoverError> {
    let intent = Intent::Fence { expected, fence };
    let mut above = Ballot::GENESIS;
    for attempt_number in 1..=FENCE_TRIES {
        let mut attempt = Attempt::begin(role, above, intent.clone()).await.map_err(ChangeError::from)?;
        let mut regimes = role.region.watch_regime();
        let next = tokio::select! {
            biased;
            // Voters that keep a lease unexpired say "later", so that an attempt on an epoch that is over would wait for
            // as long as the new primary renews its own.
            Ok(regime) = regimes.wait_for(|regime| regime.epoch > expected) => {
                let (epoch, reason) = (regime.epoch.0, regime.change.reason.clone());
                return Err(ChangeError::Overtaken { epoch, reason }.into());
            }
            next = attempt.next() => next,
        };
        match next {
            Some(Progress::Fenced) => return Ok(attempt),
            Some(Progress::Done(Outcome::Preempted { by })) => above = by,
            Some(Progress::Done(outcome)) => return Err(lost(role, outcome).await.into()),
            _ => return Err(ChangeError::NoMajority.into()),
        }
        // Two regions that try at the same time must not preempt each other for ever.
        let most = 50 * u64::from(attempt_number);
        tokio::time::sleep(Duration::from_millis(role.region.random_below(most))).await;
    }
    Err(ChangeError::Contended.into())
}

/// What the end of an attempt that did not win means.
async fn lost(role: &Arc<RegimeRole>, outcome: Outcome) -> ChangeError {
    match outcome {
        Outcome::Chosen(regime) | Outcome::Stale { current: regime } => {
            if let Err(gone) = role.adopt_and_tell(&regime).await {
                return gone.into();
            }
            ChangeError::Overtaken { epoch: regime.epoch.0, reason: regime.change.reason }
        }
        Outcome::Unlawful(reason) => ChangeError::Unlawful(reason.to_string()),
        Outcome::Preempted { .. } => ChangeError::Contended,
    }
}

/// Waits a little for the promises of the regions that this one hears.
async fn await_stragglers(role: &Arc<RegimeRole>, attempt: &mut Attempt, current: &Regime) {
    let expected = |peer: &RegionId| Some(*peer) != current.primary && heard(role, *peer).is_some();
    let mut missing: Vec<RegionId> = role.peers.others().into_iter().filter(expected).collect();
    let wait = async {
        loop {
            missing.retain(|peer| !attempt.proposer().promises().contains_key(peer));
            if missing.is_empty() || attempt.next().await.is_none() {
                return;
            }
        }
    };
    // Beyond the wait the failover goes on with those that have promised.
    let _ = tokio::time::timeout(STRAGGLERS, wait).await;
}

/// What every region that has promised has. One that does not answer counts as not heard.
async fn positions(role: &Arc<RegimeRole>, promised: Vec<RegionId>) -> BTreeMap<RegionId, Fenced> {
    let calls = promised.into_iter().map(|peer| async move { (peer, position(role, peer).await) });
    let answers = futures::future::join_all(calls).await;
    answers.into_iter().filter_map(|(peer, answer)| Some((peer, answer?))).collect()
}

async fn position(role: &Arc<RegimeRole>, peer: RegionId) -> Option<Fenced> {
    if peer == role.region.id() {
        return Some(role.fenced_position());
    }
    role.peers.get(peer, POSITION_PATH).await.ok()
}

/// The last head of the primary that this region heard.
fn last_head(role: &RegimeRole, current: &Regime) -> Option<u64> {
    let primary = current.primary?;
    let timeline = current.timeline_of(primary)?;
    let report = role.region.peers.report(primary)?;
    report.positions.get(&timeline).map(|position| position.seq)
}

/// Whether the primary is heard and says that its log was set back (see [`SuspicionReport::suspects`]): what it alone had is
/// gone.
fn says_that_it_is_lost(role: &RegimeRole, current: &Regime) -> bool {
    let report = current.primary.and_then(|primary| Some((primary, heard(role, primary)?)));
    report.is_some_and(|(primary, report)| {
        report.suspicion.epoch == current.epoch && report.suspicion.suspects.contains(&primary)
    })
}

/// What a region said last, if it has not been silent for so long that it is suspected.
fn heard(role: &RegimeRole, peer: RegionId) -> Option<PeerReport> {
    let silence_ns = role.region.config.timings.suspect_after_ms.saturating_mul(1_000_000);
    let now_ns = role.region.clock.boot_ns();
    role.region.peers.report(peer).filter(|report| now_ns.saturating_sub(report.heard_boot_ns) < silence_ns)
}

/// Asks the planner, does what it says, until it proposes a regime.
async fn decide(role: &Arc<RegimeRole>, current: &Regime, inputs: &mut Inputs) -> Result<Box<Flip>, FailoverError> {
    loop {
        match plan(current, inputs)? {
            Decision::Flip(flip) => return Ok(flip),
            Decision::Verify(queries) => verify(role, inputs, &queries).await,
            Decision::TopUp { candidate, fetches } => {
                for fetch in fetches {
                    if top_up(role, candidate, fetch).await.is_none() {
                        // The source may be lost by now; without it less may be enough.
                        if inputs.fenced.remove(&fetch.from).is_none() || fetch.from == candidate {
                            return Err(FailoverError::TopUp);
                        }
                    }
                }
                let fenced = position(role, candidate).await.ok_or(FailoverError::TopUp)?;
                inputs.fenced.insert(candidate, fenced);
            }
        }
    }
}

/// Asks everybody who is to prove its history, all at the same time: among many regions, as far from each other as they are,
/// one after the other would take longer than the others leave this failover alone.
async fn verify(role: &Arc<RegimeRole>, inputs: &mut Inputs, queries: &[ChainQuery]) {
    let asks = queries.iter().map(|query| async move { (query, chain(role, query).await) });
    for (query, chain) in futures::future::join_all(asks).await {
        match chain {
            Some(chain) => {
                inputs.chains.insert((query.region, query.dot), chain);
            }
            // It cannot prove that its history is the same one: go on without it.
            None => {
                inputs.fenced.remove(&query.region);
            }
        }
    }
}

async fn chain(role: &Arc<RegimeRole>, query: &ChainQuery) -> Option<Chain> {
    if query.region == role.region.id() {
        return role.chain_at(query.dot).await;
    }
    let request = ChainRequest { dot: query.dot };
    let answer: ChainAnswer = role.peers.post(query.region, CHAIN_PATH, &request).await.ok()?;
    answer.chain
}

async fn top_up(role: &Arc<RegimeRole>, candidate: RegionId, fetch: Fetch) -> Option<Fenced> {
    let request = TopUpRequest { from: fetch.from, timeline: fetch.timeline, up_to: fetch.up_to };
    if candidate == role.region.id() {
        return role.complete_timeline(request).await.ok();
    }
    role.peers.send(http::Method::POST, candidate, TOP_UP_PATH, &request, TOP_UP_DEADLINE).await.ok()
}

impl RegimeRole {
    /// What this region has, for a failover.
    pub(super) fn fenced_position(&self) -> Fenced {
        let positions = self.region.positions();
        let max_version = positions.values().map(|position| position.version).max().unwrap_or(Version::ZERO);
        Fenced {
            promised_epoch: self.region.promised(),
            position: Position {
                positions: positions.iter().map(|(timeline, at)| (*timeline, (at.seq, at.chain))).collect(),
                max_version,
            },
        }
    }

    /// The rolling hash at a dot of this region's log.
    pub(super) async fn chain_at(&self, dot: Dot) -> Option<Chain> {
        let position = self.region.position(dot.timeline);
        if position.seq == dot.seq {
            return Some(position.chain);
        }
        self.region.store.operation(dot).await.ok()?.map(|operation| operation.chain)
    }
}
