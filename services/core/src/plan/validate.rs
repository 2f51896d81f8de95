//! Whether a drill makes sense on a topology, judged before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::{Action, DrillPlan, Expectations, KeyDistribution, PlanError, Shape, Workload};
use crate::input_error::{InputError, list};
use crate::regime::{Durability, Mode};
use crate::topology::{LocationKind, Topology};

/// Bounds of a drill's length, seconds.
const DURATION_S: RangeInclusive<f64> = 1.0..=86_400.0;
/// Bounds of the rate of all users together, operations a second.
const RATE_PER_S: RangeInclusive<f64> = 0.1..=20_000.0;
/// Bounds of a value's size, bytes: it has to hold its own proof and to stay below the store's limit.
const VALUE_BYTES: RangeInclusive<f64> = 64.0..=60_000.0;
/// Largest clock offset that a drill may ask for, milliseconds: a day.
const CLOCK_OFFSET_MS_MAX: i64 = 86_400_000;

/// Names that stand for a region by its role at that moment.
const ROLES: [&str; 2] = ["primary", "secondary"];

impl DrillPlan {
    /// Checks the plan against a topology. `label` names the file in errors.
    ///
    /// # Errors
    /// The first thing that cannot be: one line that names the file, the key, the problem and the remedy.
    pub fn validate_as(&self, label: &str, topology: &Topology) -> Result<(), PlanError> {
        Judge { label, plan: self, topology }.judge()
    }

    /// Checks the plan against a topology, naming the plan `drill NAME` in errors.
    ///
    /// # Errors
    /// See [`DrillPlan::validate_as`].
    pub fn validate(&self, topology: &Topology) -> Result<(), PlanError> {
        self.validate_as(&format!("drill {}", self.name), topology)
    }
}

struct Judge<'a> {
    label: &'a str,
    plan: &'a DrillPlan,
    topology: &'a Topology,
}

/// What earlier steps have put out of service, by name, and the mode that they have led to.
struct Progress<'a> {
    mode: Mode,
    lost: BTreeSet<&'a str>,
    killed: BTreeSet<&'a str>,
    paused: BTreeSet<&'a str>,
}

type Judgement = Result<(), PlanError>;

impl<'a> Judge<'a> {
    fn refuse<T>(
        &self,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<T, PlanError> {
        Err(InputError::new(self.label, key, problem, remedy))
    }

    fn within(&self, key: &str, value: f64, bounds: &RangeInclusive<f64>, unit: &str) -> Judgement {
        if bounds.contains(&value) {
            return Ok(());
        }
        let remedy = format!("use {} to {}{unit}", bounds.start(), bounds.end());
        self.refuse(key, format!("{value} is out of bounds"), remedy)
    }

    fn judge(&self) -> Judgement {
        let plan = self.plan;
        if plan.name.trim().is_empty() || plan.name.len() > 80 || plan.name.contains(char::is_control) {
            return self.refuse("name", "it must have 1 to 80 printable characters", "give the drill a short name");
        }
        if plan.description.trim().is_empty() || plan.description.len() > 1000 {
            return self.refuse("description", "it must have 1 to 1000 characters", "say what the drill shows");
        }
        self.within("duration_s", plan.duration_s, &DURATION_S, " seconds")?;
        self.within("warm_up_s", plan.warm_up_s, &(0.0..=600.0), " seconds")?;
        self.within("settle_s", plan.settle_s, &(0.0..=3600.0), " seconds")?;
        if self.topology.edges().next().is_none() {
            let problem = format!("topology {} has no edge, so nobody sends", self.topology.name);
            return self.refuse("topology", problem, "add an [[edge]] to the topology");
        }
        self.regime()?;
        self.traffic(&plan.traffic)?;
        let end = self.steps()?;
        self.expectations("expect", &plan.expect, &end)?;
        for (index, special) in plan.expect_in.iter().enumerate() {
            let key = format!("expect_in[{index}]");
            self.durability(&format!("{key}.durability"), special.mode, special.durability)?;
            self.expectations(&key, &special.expect, &end)?;
        }
        Ok(())
    }

    fn regime(&self) -> Judgement {
        let start = &self.plan.regime;
        self.durability("regime.durability", start.mode, Some(start.durability))?;
        let Some(primary) = &start.primary else { return Ok(()) };
        if start.mode != Mode::ActivePassive {
            return self.refuse("regime.primary", format!("{} has no primary", start.mode), "leave it out");
        }
        self.region("regime.primary", primary, false)
    }

    fn durability(&self, key: &str, mode: Mode, durability: Option<Durability>) -> Judgement {
        let regions = self.topology.regions().count();
        match durability {
            Some(durability) if mode != Mode::ActivePassive && durability != Durability::Local => {
                self.refuse(key, format!("{mode} has no durability {durability}"), "leave it out")
            }
            Some(Durability::Semi(k)) if usize::from(k) >= regions => {
                let problem = format!("semi({k}) needs {k} followers, and the topology has {}", regions - 1);
                self.refuse(key, problem, "ask for fewer followers, or add regions")
            }
            _ => Ok(()),
        }
    }

    fn region(&self, key: &str, name: &str, roles: bool) -> Judgement {
        if self.topology.region_id(name).is_some() || (roles && ROLES.contains(&name)) {
            return Ok(());
        }
        let known = list(self.topology.regions().map(|(_, name)| name));
        let problem = if ROLES.contains(&name) {
            format!("{name:?} may be another region by then")
        } else {
            format!("{name:?} is no region of topology {}", self.topology.name)
        };
        self.refuse(key, problem, format!("use one of {known}{}", if roles { ", primary, secondary" } else { "" }))
    }

    /// A location, or one of `others`.
    fn location(&self, key: &str, name: &str, others: &[&str]) -> Judgement {
        if others.contains(&name) || self.topology.location(name).is_some() {
            return Ok(());
        }
        let known = self.topology.locations.iter().map(|location| location.name.as_str());
        let remedy = format!("use one of {}", list(known.chain(others.iter().copied())));
        self.refuse(key, format!("{name:?} is no location of topology {}", self.topology.name), remedy)
    }

    fn traffic(&self, traffic: &Workload) -> Judgement {
        self.within("traffic.rate_per_s", traffic.rate_per_s, &RATE_PER_S, " operations a second")?;
        let shares = BTreeMap::from([
            ("read_share", traffic.read_share),
            ("delete_share", traffic.delete_share),
            ("append_share", traffic.append_share),
            ("insert_share", traffic.insert_share),
            ("foreign_share", traffic.foreign_share),
        ]);
        for (name, share) in shares {
            self.within(&format!("traffic.{name}"), share, &(0.0..=1.0), "")?;
        }
        let special = traffic.delete_share + traffic.append_share + traffic.insert_share;
        if special > 1.0 + 1e-9 {
            let problem = format!("deletes, appends and inserts make {special} of the writes");
            return self.refuse("traffic.insert_share", problem, "lower the shares: together they are at most 1");
        }
        self.within("traffic.keys_per_home", traffic.keys_per_home.into(), &(1.0..=1_000_000.0), "")?;
        self.within("traffic.append_keys_per_home", traffic.append_keys_per_home.into(), &(1.0..=10_000.0), "")?;
        self.within("traffic.value_bytes", traffic.value_bytes.into(), &VALUE_BYTES, " bytes")?;
        self.within("traffic.sessions_per_edge", traffic.sessions_per_edge.into(), &(1.0..=10_000.0), "")?;
        self.within("traffic.deadline_ms", traffic.deadline_ms as f64, &(10.0..=60_000.0), " milliseconds")?;
        if !["eventual", "session", "primary"].contains(&traffic.consistency.as_str()) {
            let problem = format!("{:?} is no consistency", traffic.consistency);
            return self.refuse("traffic.consistency", problem, "use eventual, session or primary");
        }
        if let KeyDistribution::Zipf(exponent) = traffic.keys
            && !(exponent > 0.0 && exponent <= 5.0)
        {
            return self.refuse("traffic.keys", format!("exponent {exponent} is out of bounds"), "use 0 < s <= 5");
        }
        self.shape(traffic)
    }

    fn shape(&self, traffic: &Workload) -> Judgement {
        let within_run = 0.0..=self.plan.duration_s;
        let factor = match traffic.shape {
            Shape::Constant => return Ok(()),
            Shape::FollowTheSun { period_s } => {
                return self.within("traffic.shape.follow_the_sun.period_s", period_s, &DURATION_S, " seconds");
            }
            Shape::Step { at_s, factor } => {
                self.within("traffic.shape.step.at_s", at_s, &within_run, " seconds")?;
                factor
            }
            Shape::Spike { at_s, length_s, factor } => {
                self.within("traffic.shape.spike.at_s", at_s, &within_run, " seconds")?;
                self.within("traffic.shape.spike.length_s", length_s, &within_run, " seconds")?;
                factor
            }
        };
        if !(factor.is_finite() && factor >= 0.0) {
            return self.refuse("traffic.shape", format!("factor {factor} is out of bounds"), "use at least 0");
        }
        let peak = traffic.rate_per_s * factor;
        if peak > *RATE_PER_S.end() {
            let problem = format!("its peak of {peak} operations a second is out of bounds");
            return self.refuse("traffic.shape", problem, format!("stay at or below {}", RATE_PER_S.end()));
        }
        Ok(())
    }

    fn steps(&self) -> Result<Progress<'a>, PlanError> {
        let mut progress = Progress {
            mode: self.plan.regime.mode,
            lost: BTreeSet::new(),
            killed: BTreeSet::new(),
            paused: BTreeSet::new(),
        };
        let mut earlier = 0.0;
        for (index, step) in self.plan.steps.iter().enumerate() {
            let key = format!("steps[{index}]");
            self.within(&format!("{key}.at_s"), step.at_s, &(0.0..=self.plan.duration_s), " seconds (the duration)")?;
            if step.at_s < earlier {
                let problem = format!("{} s is before the step above it ({earlier} s)", step.at_s);
                return self.refuse(format!("{key}.at_s"), problem, "put the steps in order of time");
            }
            earlier = step.at_s;
            self.action(&key, &step.action, &mut progress)?;
        }
        Ok(progress)
    }

    fn action(&self, key: &str, action: &'a Action, progress: &mut Progress<'a>) -> Judgement {
        let at = |field: &str| format!("{key}.{field}");
        match action {
            Action::RegionLoss { region } => {
                self.region(&at("region"), region, true)?;
                self.takes(&at("region"), region, &mut progress.lost, "lost")
            }
            Action::RegionReturn { region } => {
                self.region(&at("region"), region, false)?;
                self.gives(&at("region"), region, &mut progress.lost, "lost", "region-loss")
            }
            Action::Kill { target } => {
                self.location(&at("target"), target, &["primary", "secondary", "control", "link"])?;
                self.takes(&at("target"), target, &mut progress.killed, "killed")
            }
            Action::Restart { target } => {
                self.location(&at("target"), target, &["control", "link"])?;
                self.gives(&at("target"), target, &mut progress.killed, "killed", "kill")
            }
            Action::Pause { target } => {
                self.location(&at("target"), target, &ROLES)?;
                self.takes(&at("target"), target, &mut progress.paused, "paused")
            }
            Action::Resume { target } => {
                self.location(&at("target"), target, &[])?;
                self.gives(&at("target"), target, &mut progress.paused, "paused", "pause")
            }
            Action::Link { from, to, change, .. } => {
                self.location(&at("from"), from, &ROLES)?;
                self.location(&at("to"), to, &ROLES)?;
                if from == to {
                    return self.refuse(at("to"), format!("{from} has no link to itself"), "name two locations");
                }
                if change.is_empty() {
                    let remedy = "name state, delay_ms, jitter_ms, loss, rate_kbit, flap_ms or reset";
                    return self.refuse(at("change"), "it changes nothing", remedy);
                }
                change.validate().or_else(|error| {
                    let key = format!("{key}.change.{}", error.field);
                    self.refuse(key, error.to_string(), "use a figure within the bounds")
                })
            }
            Action::HealLinks => Ok(()),
            Action::ClockSkew { region, offset_ms } => {
                self.region(&at("region"), region, true)?;
                self.within(
                    &at("offset_ms"),
                    *offset_ms as f64,
                    &(-CLOCK_OFFSET_MS_MAX as f64..=CLOCK_OFFSET_MS_MAX as f64),
                    " milliseconds",
                )
            }
            Action::Decide { region, .. } => self.region(&at("region"), region, true),
            Action::Switchover { to } => {
                self.region(&at("to"), to, true)?;
                if to == "primary" {
                    return self.refuse(at("to"), "the primary is the primary already", "name another region");
                }
                self.has_primary(&at("do"), progress.mode)
            }
            Action::Failover { to, .. } => {
                to.as_ref().map_or(Ok(()), |to| self.region(&at("to"), to, true))?;
                self.has_primary(&at("do"), progress.mode)
            }
            Action::Switch { mode, durability, primary, .. } => {
                self.durability(&at("durability"), *mode, Some(*durability))?;
                if let Some(primary) = primary {
                    self.region(&at("primary"), primary, true)?;
                    self.has_primary(&at("primary"), *mode)?;
                }
                progress.mode = *mode;
                Ok(())
            }
        }
    }

    fn takes(&self, key: &str, name: &'a str, out: &mut BTreeSet<&'a str>, state: &str) -> Judgement {
        // A role names whoever has it then, so the same word may well mean another region the second time.
        if out.insert(name) || ROLES.contains(&name) {
            return Ok(());
        }
        self.refuse(key, format!("{name} is {state} already"), "leave the step out, or bring it back before")
    }

    fn gives(&self, key: &str, name: &str, out: &mut BTreeSet<&'a str>, state: &str, step: &str) -> Judgement {
        // What was taken by its role may be given back by its name; which one it was is known only in the run.
        if out.remove(name) || ROLES.iter().any(|role| out.remove(role)) {
            return Ok(());
        }
        self.refuse(key, format!("{name} is not {state} then"), format!("put a {step} of {name} before it"))
    }

    fn has_primary(&self, key: &str, mode: Mode) -> Judgement {
        if mode == Mode::ActivePassive {
            return Ok(());
        }
        self.refuse(key, format!("{mode} has no primary"), "switch to active-passive before, or leave it out")
    }

    fn expectations(&self, key: &str, expect: &Expectations, end: &Progress<'_>) -> Judgement {
        let at = |field: &str| format!("{key}.{field}");
        let figures = [
            ("rpo_seconds_max", expect.rpo_seconds_max, f64::MAX),
            ("rto_write_ms_max", expect.rto_write_ms_max, f64::MAX),
            ("rto_read_ms_max", expect.rto_read_ms_max, f64::MAX),
            ("availability_min", expect.availability_min, 1.0),
        ];
        for (field, figure, largest) in figures {
            if let Some(figure) = figure
                && !(figure.is_finite() && (0.0..=largest).contains(&figure))
            {
                let bounds =
                    if largest.to_bits() == 1.0f64.to_bits() { "use a share from 0 to 1" } else { "use at least 0" };
                return self.refuse(at(field), format!("nothing can be {figure}"), bounds);
            }
        }
        if expect.converged == Some(true) {
            let is_region = |name: &str| {
                ROLES.contains(&name)
                    || self
                        .topology
                        .locations
                        .iter()
                        .any(|location| location.kind == LocationKind::Region && location.name.as_str() == name)
            };
            let gone = end.lost.iter().chain(&end.killed).chain(&end.paused).find(|name| is_region(name));
            if let Some(name) = gone {
                let problem = format!("{name} does not come back, so it cannot converge");
                return self.refuse(at("converged"), problem, "bring the region back in a later step, or leave it out");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
