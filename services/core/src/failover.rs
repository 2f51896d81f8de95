//! Unplanned failover: from what the fenced regions have to the next regime. Pure and without memory: call
//! [`plan`] with what is known, do what it says, call it again with more.
//!
//! This is primary-backup replication under an external configuration (Lamport, Malkhi, Zhou, "Vertical Paxos and
//! Primary-Backup Replication", 2009): the new primary has everything **before** the regime that names it is proposed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Dot, Epoch, RegionId, Timeline};
use crate::operation::{Chain, TraceContext};
use crate::regime::{Change, ChangeKind, Durability, MemberState, Mode, Regime};
use crate::version::Version;

/// What a region has in its log, durably and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Per timeline: the last sequence number, and the rolling hash there.
    pub positions: BTreeMap<Timeline, (u64, Chain)>,
    /// The largest version in its log.
    pub max_version: Version,
}

/// A region that has promised, and what it has. The position must be read **after** the promise is durable and the
/// region refuses operations of older epochs, so that it cannot grow any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// What it promised.
    pub promised_epoch: Epoch,
    /// What it has.
    pub position: Position,
}

/// Everything that the plan depends on.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Every region that has promised, the old primary included if it was reached.
    pub fenced: BTreeMap<RegionId, Fenced>,
    /// Rank of regions by latency to the users, 0 is best; absent is worst.
    pub latency_rank: BTreeMap<RegionId, u32>,
    /// Hashes that regions told on request: what the chain of a region is at a dot.
    pub chains: BTreeMap<(RegionId, Dot), Chain>,
    /// The last head of the old primary that anybody heard, for the predicted loss.
    pub last_head: Option<u64>,
    /// The old primary was heard, and said that its log was set back: nothing is won by waiting for what it alone had.
    pub old_is_lost: bool,
    /// A person accepts that acknowledged writes may be lost.
    pub allow_data_loss: bool,
    /// A person wants this region; it is topped up if it is behind.
    pub prefer: Option<RegionId>,
    /// The identity of this failover.
    pub id: Uuid,
    /// Who proposes.
    pub by: RegionId,
    /// One line for people.
    pub reason: String,
    /// The trace of the failover.
    pub trace: Option<TraceContext>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask these regions for their rolling hash at these dots ([`Inputs::chains`]), then plan again.
    Verify(Vec<ChainQuery>),
    /// The candidate fetches these and takes them only while it has adopted no later regime than the one that this was
    /// planned from (a later one may have cut the timeline); then plan again with its new position. If a source is lost meanwhile, drop it from
    /// [`Inputs::fenced`] and plan again.
    TopUp {
        /// The next primary.
        candidate: RegionId,
        /// What it lacks.
        fetches: Vec<Fetch>,
    },
    /// Propose this regime.
    Flip(Box<Flip>),
}

/// A question for a region's rolling hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainQuery {
    /// Whom to ask.
    pub region: RegionId,
    /// Where.
    pub dot: Dot,
}

/// A piece of a timeline that the candidate lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fetch {
    /// Who has it.
    pub from: RegionId,
    /// The timeline.
    pub timeline: Timeline,
    /// The last sequence number that the candidate has.
    pub after: u64,
    /// The last one to fetch.
    pub up_to: u64,
}

/// The end of a failover's planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// To be proposed under the ballot that fenced.
    pub regime: Regime,
    /// Writes of the old primary that are known to lie beyond the cut; `None` if its head was never heard.
    pub predicted_loss: Option<u64>,
    /// What was given up because data loss was allowed; empty if nothing was.
    pub gave_up: Vec<FailoverRefusal>,
}

/// Why there is no failover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailoverRefusal {
    /// Only active-passive has a primary to replace.
    #[error("mode {0} has no primary; there is nothing to fail over")]
    NoPrimary(Mode),
    /// The register cannot be written.
    #[error("only {heard} of the {needed} voters that make a majority have promised; missing: regions {}", list(.missing))]
    NoMajority {
        /// Promised.
        heard: usize,
        /// Needed.
        needed: usize,
        /// Who did not promise.
        missing: BTreeSet<RegionId>,
    },
    /// A write may have been acknowledged by followers that were not heard.
    #[error("semi durability: {heard} of the {needed} followers were heard that are needed to know every acknowledged write; missing: regions {}; reach one of them, or allow data loss", list(.missing))]
    TooFewHeard {
        /// Active followers heard.
        heard: usize,
        /// Followers needed.
        needed: usize,
        /// Who was not heard, or has not caught up.
        missing: BTreeSet<RegionId>,
    },
    /// No member of the in-sync set was heard.
    #[error("sync durability: {}, or allow data loss", reach_in_sync(.in_sync))]
    NoInSync {
        /// The set.
        in_sync: BTreeSet<RegionId>,
    },
    /// Nobody may become primary.
    #[error("none of the fenced regions {} may become primary (active member other than the old primary)", list(.fenced))]
    NoCandidate {
        /// Who promised.
        fenced: BTreeSet<RegionId>,
    },
    /// A sealed part of history is with nobody who was heard.
    #[error("timeline {timeline} is sealed at {cut}, but the fenced regions have it only to {best}; reach region {}, or allow data loss", .timeline.region)]
    PrefixMissing {
        /// The timeline.
        timeline: Timeline,
        /// Its cut.
        cut: u64,
        /// The most that anybody heard has.
        best: u64,
    },
    /// Two regions have different histories under one number.
    #[error("regions {a} and {b} have different operations at {dot}; stop, keep both, and compare them")]
    Diverged {
        /// One.
        a: RegionId,
        /// The other.
        b: RegionId,
        /// Where.
        dot: Dot,
    },
}

fn reach_in_sync(in_sync: &BTreeSet<RegionId>) -> String {
    if in_sync.is_empty() {
        return "nobody is in the in-sync set, so that only the primary has what it acknowledged last; start it on its disk"
            .to_owned();
    }
    format!("no member of the in-sync set was heard; it is: regions {}; reach one of them", list(in_sync))
}

fn list(regions: &BTreeSet<RegionId>) -> String {
    regions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Plans the failover of the regime's primary.
pub fn plan(current: &Regime, inputs: &Inputs) -> Result<Decision, FailoverRefusal> {
    let (Mode::ActivePassive, Some(old)) = (current.mode, current.primary) else {
        return Err(FailoverRefusal::NoPrimary(current.mode));
    };
    let survey = Survey { current, inputs, old };
    survey.check_majority()?;
    let mut gave_up = survey.check_heard()?;
    let best = survey.best();
    gave_up.extend(survey.check_prefix(&best)?);
    let queries = survey.check_chains()?;
    if !queries.is_empty() {
        return Ok(Decision::Verify(queries));
    }
    let candidate = survey.choose()?;
    let fetches = survey.missing(candidate, &best);
    if !fetches.is_empty() {
        return Ok(Decision::TopUp { candidate, fetches });
    }
    Ok(Decision::Flip(Box::new(survey.flip(candidate, &best, gave_up))))
}

struct Survey<'a> {
    current: &'a Regime,
    inputs: &'a Inputs,
    old: RegionId,
}

impl Survey<'_> {
    fn old_timeline(&self) -> Timeline {
        Timeline { region: self.old, incarnation: self.current.members[&self.old].incarnation }
    }

    /// The timelines of history: every sealed one, and the old primary's.
    fn timelines(&self) -> BTreeSet<Timeline> {
        self.current.cuts.iter().map(|(timeline, _)| timeline).chain([self.old_timeline()]).collect()
    }

    /// How much of a timeline a region has that belongs to history. Beyond a cut nothing counts.
    fn has(&self, region: RegionId, timeline: Timeline) -> u64 {
        let seq = self.inputs.fenced[&region].position.positions.get(&timeline).map_or(0, |(seq, _)| *seq);
        if timeline == self.old_timeline() || !self.sealed(timeline) {
            return seq;
        }
        seq.min(self.current.cuts.get(timeline))
    }

    fn sealed(&self, timeline: Timeline) -> bool {
        self.current.cuts.iter().any(|(sealed, _)| sealed == timeline)
    }

    fn fenced(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.inputs.fenced.keys().copied().filter(|region| self.current.members.contains_key(region))
    }

    /// Followers that were heard and are known to have kept what they acknowledged.
    fn heard_followers(&self) -> BTreeSet<RegionId> {
        self.fenced().filter(|region| *region != self.old && self.current.is_active(*region)).collect()
    }

    fn check_majority(&self) -> Result<(), FailoverRefusal> {
        let heard = self.fenced().count();
        let needed = self.current.majority();
        if heard >= needed {
            return Ok(());
        }
        let missing =
            self.current.members.keys().copied().filter(|region| !self.inputs.fenced.contains_key(region)).collect();
        Err(FailoverRefusal::NoMajority { heard, needed, missing })
    }

    /// Whether the old primary was heard and has all that it ever wrote, as far as can be told: unless its disk was set
    /// back since, nobody else has more.
    fn old_primary_is_whole(&self) -> bool {
        let timeline = self.old_timeline();
        self.inputs.fenced.contains_key(&self.old)
            && self.fenced().all(|region| self.has(region, timeline) <= self.has(self.old, timeline))
    }

    /// Whether every acknowledged write is with somebody who was heard. The old primary itself has them all.
    fn check_heard(&self) -> Result<Vec<FailoverRefusal>, FailoverRefusal> {
        if self.old_primary_is_whole() {
            return Ok(Vec::new());
        }
        let heard = self.heard_followers();
        let refusal = match self.current.durability {
            Durability::Local => None,
            Durability::Semi(k) => {
                // k followers of F acknowledged; any F-k+1 of them contain one of those k.
                let followers: BTreeSet<RegionId> = self.current.followers().collect();
                let needed = (followers.len() + 1).saturating_sub(usize::from(k)).max(1);
                (heard.len() < needed).then(|| FailoverRefusal::TooFewHeard {
                    heard: heard.len(),
                    needed,
                    missing: followers.difference(&heard).copied().collect(),
                })
            }
            Durability::Sync => (heard.is_disjoint(&self.current.in_sync) && !self.nothing_is_won_by_waiting())
                .then(|| FailoverRefusal::NoInSync { in_sync: self.current.in_sync.clone() }),
        };
        self.unless_allowed(refusal)
    }

    /// Whether nothing is won by waiting although nobody is in the in-sync set. The primary was alone then, and acknowledged
    /// what it wrote as local. Whatever was acknowledged as more than that before the set shrank is with some region; so
    /// either the old primary was heard and is whole, or its log is known to be lost and everybody else was heard.
    fn nothing_is_won_by_waiting(&self) -> bool {
        let mut others = self.current.members.keys().filter(|region| **region != self.old);
        let alone = self.current.in_sync.iter().all(|region| *region == self.old);
        let lost = self.inputs.old_is_lost && others.all(|region| self.inputs.fenced.contains_key(region));
        alone && (lost || self.old_primary_is_whole())
    }

    fn unless_allowed(&self, refusal: Option<FailoverRefusal>) -> Result<Vec<FailoverRefusal>, FailoverRefusal> {
        match refusal {
            Some(refusal) if !self.inputs.allow_data_loss => Err(refusal),
            other => Ok(other.into_iter().collect()),
        }
    }

    /// Per timeline of history the most that any fenced region has.
    fn best(&self) -> BTreeMap<Timeline, u64> {
        self.timelines()
            .into_iter()
            .map(|timeline| (timeline, self.fenced().map(|region| self.has(region, timeline)).max().unwrap_or(0)))
            .collect()
    }

    fn check_prefix(&self, best: &BTreeMap<Timeline, u64>) -> Result<Vec<FailoverRefusal>, FailoverRefusal> {
        let mut gave_up = Vec::new();
        for (timeline, cut) in self.current.cuts.iter() {
            let best = best.get(&timeline).copied().unwrap_or(0);
            let hole = (best < cut).then_some(FailoverRefusal::PrefixMissing { timeline, cut, best });
            gave_up.extend(self.unless_allowed(hole)?);
        }
        Ok(gave_up)
    }

    /// Compares rolling hashes along the old primary's timeline, each region with the next longer one, and says which
    /// hashes are still unknown.
    fn check_chains(&self) -> Result<Vec<ChainQuery>, FailoverRefusal> {
        let timeline = self.old_timeline();
        let position = |region: RegionId| self.inputs.fenced[&region].position.positions.get(&timeline).copied();
        let mut known: Vec<(u64, Chain, RegionId)> = self
            .fenced()
            .filter_map(|region| position(region).map(|(seq, chain)| (seq, chain, region)))
            .filter(|(seq, _, _)| *seq > 0)
            .collect();
        known.sort_unstable();
        let mut queries = Vec::new();
        for pair in known.windows(2) {
            let [(short, short_chain, a), (long, long_chain, b)] = [pair[0], pair[1]];
            let dot = Dot { timeline, seq: short };
            let there = if short == long { Some(long_chain) } else { self.inputs.chains.get(&(b, dot)).copied() };
            match there {
                None => queries.push(ChainQuery { region: b, dot }),
                Some(chain) if chain != short_chain => {
                    return Err(FailoverRefusal::Diverged { a, b, dot });
                }
                Some(_) => {}
            }
        }
        Ok(queries)
    }

    /// The region with the most history; ties go to the best placed for users.
    fn choose(&self) -> Result<RegionId, FailoverRefusal> {
        let eligible = |region: &RegionId| match self.current.durability {
            Durability::Sync if !self.inputs.allow_data_loss => {
                self.current.in_sync.contains(region) || self.nothing_is_won_by_waiting()
            }
            _ => true,
        };
        let candidates: BTreeSet<RegionId> = self.heard_followers().into_iter().filter(eligible).collect();
        if let Some(wanted) = self.inputs.prefer.filter(|region| candidates.contains(region)) {
            return Ok(wanted);
        }
        let sealed = |region: RegionId| -> u64 { self.current.cuts.iter().map(|(t, _)| self.has(region, t)).sum() };
        let rank = |region: RegionId| self.inputs.latency_rank.get(&region).copied().unwrap_or(u32::MAX);
        candidates
            .iter()
            .copied()
            .max_by_key(|region| {
                let newest = self.has(*region, self.old_timeline());
                (newest, sealed(*region), std::cmp::Reverse(rank(*region)), std::cmp::Reverse(*region))
            })
            .ok_or_else(|| FailoverRefusal::NoCandidate { fenced: self.fenced().collect() })
    }

    fn missing(&self, candidate: RegionId, best: &BTreeMap<Timeline, u64>) -> Vec<Fetch> {
        let mut fetches = Vec::new();
        for (timeline, up_to) in best {
            let after = self.has(candidate, *timeline);
            let source = self.fenced().find(|region| self.has(*region, *timeline) == *up_to);
            if let (true, Some(from)) = (after < *up_to, source) {
                fetches.push(Fetch { from, timeline: *timeline, after, up_to: *up_to });
            }
        }
        fetches
    }

    fn flip(&self, candidate: RegionId, best: &BTreeMap<Timeline, u64>, gave_up: Vec<FailoverRefusal>) -> Flip {
        let inputs = self.inputs;
        let mut regime = self.current.clone();
        let promised = inputs.fenced.values().map(|fenced| fenced.promised_epoch).max().unwrap_or_default();
        regime.epoch = self.current.epoch.next().max(promised);
        regime.primary = Some(candidate);
        regime.cuts = best.iter().map(|(timeline, seq)| (*timeline, *seq)).collect();
        for region in [self.old, candidate] {
            if let Some(member) = regime.members.get_mut(&region) {
                member.incarnation = member.incarnation.next();
            }
        }
        let newest = inputs.fenced.values().map(|fenced| fenced.position.max_version.time_ns).max().unwrap_or(0);
        regime.hlc_floor_ns = regime.hlc_floor_ns.max(newest.saturating_add(1));
        regime.in_sync = if regime.durability == Durability::Sync {
            self.heard_followers().into_iter().filter(|region| *region != candidate).collect()
        } else {
            BTreeSet::new()
        };
        regime.transition = None;
        regime.change = Change {
            kind: ChangeKind::Failover,
            id: inputs.id,
            by: inputs.by,
            reason: inputs.reason.clone(),
            trace: inputs.trace,
        };
        let cut = best.get(&self.old_timeline()).copied().unwrap_or(0);
        let predicted_loss = inputs.last_head.map(|head| head.saturating_sub(cut));
        debug_assert!(regime.members.get(&candidate).is_some_and(|member| member.state == MemberState::Active));
        Flip { regime, predicted_loss, gave_up }
    }
}

#[cfg(test)]
#[path = "failover_tests.rs"]
mod tests;
