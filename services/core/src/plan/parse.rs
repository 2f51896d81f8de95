//! From a drill file to a [`DrillPlan`]. Its meaning is checked by `validate`, against a topology.

use serde::Deserialize;

use super::{Action, DrillPlan, Expectations, ModeExpectations, StartRegime, Step, Workload};
use crate::input_error::{InputError, list};
use crate::limits;

/// Why a drill file was refused: file, key, problem and remedy in one line.
pub type PlanError = InputError;

/// The file as it is read: steps and per-mode expectations are taken apart one by one, so that an unknown key in them
/// is refused and named with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlan {
    name: String,
    description: String,
    topology: String,
    #[serde(default = "super::seed")]
    seed: u64,
    duration_s: f64,
    #[serde(default = "super::warm_up")]
    warm_up_s: f64,
    #[serde(default = "super::settle")]
    settle_s: f64,
    regime: StartRegime,
    #[serde(default)]
    traffic: Workload,
    #[serde(default)]
    steps: Vec<toml::Table>,
    #[serde(default)]
    expect: Expectations,
    #[serde(default)]
    expect_in: Vec<toml::Table>,
}

impl DrillPlan {
    /// Reads a drill. `label` names the file in errors. The result is well formed; whether it makes sense on a topology
    /// is [`DrillPlan::validate`]'s question.
    ///
    /// # Errors
    /// One line that names the file, the key, the problem and the remedy.
    pub fn parse(label: &str, text: &str) -> Result<Self, PlanError> {
        let raw = toml::from_str(text).map_err(|error| InputError::toml(label, "", text, &error))?;
        Self::assemble(label, raw)
    }

    /// Reads a drill from JSON, as strictly as [`DrillPlan::parse`]; `null` counts as absent.
    ///
    /// # Errors
    /// One line that names the document, the key, the problem and the remedy.
    pub fn parse_json(label: &str, text: &str) -> Result<Self, PlanError> {
        let refuse = |problem: String| InputError::new(label, "the document", problem, "correct it");
        let mut value: serde_json::Value = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        drop_nulls(&mut value);
        let value = toml::Value::try_from(value).map_err(|error| refuse(error.to_string()))?;
        let raw = value.try_into().map_err(|error| InputError::toml(label, "the document", "", &error))?;
        Self::assemble(label, raw)
    }

    fn assemble(label: &str, raw: RawPlan) -> Result<Self, PlanError> {
        if raw.steps.len() > limits::DRILL_STEPS_MAX {
            let problem = format!("{} steps are more than {}", raw.steps.len(), limits::DRILL_STEPS_MAX);
            return Err(InputError::new(label, "steps", problem, "leave some out"));
        }
        let steps = raw
            .steps
            .into_iter()
            .enumerate()
            .map(|(index, table)| step(label, &format!("steps[{index}]"), table))
            .collect::<Result<_, _>>()?;
        let expect_in = raw
            .expect_in
            .into_iter()
            .enumerate()
            .map(|(index, table)| mode_expectations(label, &format!("expect_in[{index}]"), table))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: raw.name,
            description: raw.description,
            topology: raw.topology,
            seed: raw.seed,
            duration_s: raw.duration_s,
            warm_up_s: raw.warm_up_s,
            settle_s: raw.settle_s,
            regime: raw.regime,
            traffic: raw.traffic,
            steps,
            expect: raw.expect,
            expect_in,
        })
    }
}

fn step(label: &str, key: &str, mut table: toml::Table) -> Result<Step, PlanError> {
    let at_s = match table.remove("at_s") {
        Some(toml::Value::Float(seconds)) => seconds,
        Some(toml::Value::Integer(seconds)) => seconds as f64,
        Some(other) => {
            let problem = format!("{other} is no number of seconds");
            return Err(InputError::new(label, format!("{key}.at_s"), problem, "use a number of at least 0"));
        }
        None => {
            let key = format!("{key}.at_s");
            return Err(InputError::new(label, key, "a step needs a time", "add at_s = SECONDS"));
        }
    };
    // A step without settings is read without looking at what else is there.
    let others = list(table.keys().filter(|key| *key != "do"));
    let action: Action = table.try_into().map_err(|error| InputError::toml(label, key, "", &error))?;
    if action == Action::HealLinks && others != "none" {
        return Err(InputError::new(
            label,
            key,
            format!("heal-links takes nothing, but there is {others}"),
            "leave it out",
        ));
    }
    Ok(Step { at_s, action })
}

fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn mode_expectations(label: &str, key: &str, mut table: toml::Table) -> Result<ModeExpectations, PlanError> {
    let take = |table: &mut toml::Table, field: &str| table.remove(field);
    let mode = take(&mut table, "mode").ok_or_else(|| {
        let remedy = "add mode = \"active-passive\", \"active-active\" or \"regional-isolation\"";
        InputError::new(label, format!("{key}.mode"), "it does not say for which mode it is", remedy)
    })?;
    let mode = mode.try_into().map_err(|error| InputError::toml(label, &format!("{key}.mode"), "", &error))?;
    let durability = take(&mut table, "durability")
        .map(toml::Value::try_into)
        .transpose()
        .map_err(|error| InputError::toml(label, &format!("{key}.durability"), "", &error))?;
    let expect = table.try_into().map_err(|error| InputError::toml(label, key, "", &error))?;
    Ok(ModeExpectations { mode, durability, expect })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{LinkPatch, LinkState};
    use crate::regime::{Durability, Mode};

    const SMALL: &str = r#"
name = "small"
description = "Nothing much."
topology = "three-continents"
duration_s = 10
[regime]
mode = "active-passive"
durability = "semi(1)"
[traffic]
rate_per_s = 50
keys = { zipf = 1.1 }
shape = { spike = { at_s = 2, length_s = 1.5, factor = 3 } }
[[steps]]
at_s = 2
do = "link"
from = "us-east-1"
to = "eu-west-1"
both = true
change = { state = "cut", delay_ms = 200 }
[[steps]]
at_s = 4.5
do = "heal-links"
[expect]
converged = true
[[expect_in]]
mode = "active-passive"
durability = "sync"
rpo_writes_max = 0
"#;

    #[test]
    fn a_plan_is_read_as_written_and_defaults_fill_the_rest() {
        let plan = DrillPlan::parse("p.toml", SMALL).unwrap();
        assert_eq!((plan.seed, plan.duration_s, plan.warm_up_s), (42, 10.0, 3.0));
        assert_eq!(plan.regime.durability, Durability::Semi(1));
        assert_eq!((plan.traffic.rate_per_s, plan.traffic.read_share), (50.0, 0.5));
        let change = LinkPatch { state: Some(LinkState::Cut), delay_ms: Some(200.0), ..LinkPatch::default() };
        let action = Action::Link { from: "us-east-1".into(), to: "eu-west-1".into(), both: true, change };
        assert_eq!(plan.steps[0], Step { at_s: 2.0, action });
        assert_eq!(plan.steps[1], Step { at_s: 4.5, action: Action::HealLinks });
        assert_eq!(plan.expect.converged, Some(true));
        assert_eq!(
            (plan.expect_in[0].mode, plan.expect_in[0].durability),
            (Mode::ActivePassive, Some(Durability::Sync))
        );
        assert_eq!(plan.expect_in[0].expect.rpo_writes_max, Some(0));
    }

    #[test]
    fn a_plan_survives_json_as_it_travels_in_reports() {
        let plan = DrillPlan::parse("p.toml", SMALL).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<DrillPlan>(&text).unwrap(), plan);
        assert_eq!(DrillPlan::parse_json("body", &text).unwrap(), plan);
    }

    #[test]
    fn json_is_read_as_strictly_as_a_file() {
        let plan = serde_json::to_value(DrillPlan::parse("p.toml", SMALL).unwrap()).unwrap();
        let refused = |change: fn(&mut serde_json::Value)| {
            let mut plan = plan.clone();
            change(&mut plan);
            DrillPlan::parse_json("body", &plan.to_string()).unwrap_err()
        };
        assert_eq!(refused(|plan| plan["length"] = 3.into()).key, "the document");
        assert_eq!(refused(|plan| plan["steps"][0]["too"] = "x".into()).key, "steps[0]");
        assert_eq!(refused(|plan| plan["expect_in"][0]["rpo"] = 1.into()).key, "expect_in[0]");
        assert_eq!(DrillPlan::parse_json("body", "{").unwrap_err().key, "the document");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let cases = [
            ("duration_s = 10", "duration_s = 10\nlength = 3", "line 6", "unknown field `length`"),
            ("duration_s = 10", "", "the file", "missing field `duration_s`"),
            ("mode = \"active-passive\"\ndur", "mode = \"both\"\ndur", "line 7", "unknown variant `both`"),
            ("\"semi(1)\"", "\"semi(0)\"", "line 8", "semi(K) with K >= 1"),
            ("rate_per_s = 50", "rate = 50", "line 10", "unknown field `rate`"),
            ("do = \"link\"", "do = \"lnk\"", "steps[0]", "region-loss"),
            ("both = true", "bth = true", "steps[0]", "unknown field `bth`"),
            ("delay_ms = 200", "dely_ms = 200", "steps[0]", "unknown field `dely_ms`"),
            ("at_s = 4.5", "at_s = 4.5\nregion = \"a\"", "steps[1]", "leave it out"),
            ("at_s = 4.5", "", "steps[1].at_s", "add at_s"),
            ("at_s = 4.5", "at_s = \"soon\"", "steps[1].at_s", "number"),
            ("rpo_writes_max = 0", "rpo_write_max = 0", "expect_in[0]", "unknown field `rpo_write_max`"),
            ("durability = \"sync\"", "durability = \"full\"", "expect_in[0].durability", "not one of"),
            ("converged = true", "convergd = true", "line 24", "unknown field `convergd`"),
        ];
        for (from, to, key, hint) in cases {
            assert!(SMALL.contains(from), "{from}");
            let error = DrillPlan::parse("p.toml", &SMALL.replacen(from, to, 1)).unwrap_err();
            let line = error.to_string();
            assert_eq!(error.key, key, "{line}");
            assert!(line.starts_with("p.toml: ") && line.contains(hint) && !line.contains('\n'), "{line}");
        }
    }
}
