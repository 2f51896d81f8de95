//! What an action is, in a word and in a line.

use longhaul_core::link::{JitterDistribution, LinkPatch, LinkState};
use longhaul_core::plan::Action;

/// The name of the action, as plans spell it.
pub(crate) const fn kind(action: &Action) -> &'static str {
    match action {
        Action::RegionLoss { .. } => "region-loss",
        Action::RegionReturn { .. } => "region-return",
        Action::Kill { .. } => "kill",
        Action::Restart { .. } => "restart",
        Action::Pause { .. } => "pause",
        Action::Resume { .. } => "resume",
        Action::Link { .. } => "link",
        Action::HealLinks => "heal-links",
        Action::ClockSkew { .. } => "clock-skew",
        Action::Decide { .. } => "decide",
        Action::Switchover { .. } => "switchover",
        Action::Failover { .. } => "failover",
        Action::Switch { .. } => "switch",
    }
}

/// Whether it heals.
pub(crate) const fn heals(action: &Action) -> bool {
    matches!(
        action,
        Action::RegionReturn { .. }
            | Action::Restart { .. }
            | Action::Resume { .. }
            | Action::HealLinks
            | Action::Decide { .. }
            | Action::ClockSkew { offset_ms: 0, .. }
    )
}

/// Whether it asks the regions for another regime.
pub(crate) const fn changes_regime(action: &Action) -> bool {
    matches!(action, Action::Switchover { .. } | Action::Failover { .. } | Action::Switch { .. })
}

/// The location that it strikes, if it is one.
pub(crate) fn place(action: &Action) -> Option<&str> {
    match action {
        Action::RegionLoss { region }
        | Action::RegionReturn { region }
        | Action::ClockSkew { region, .. }
        | Action::Decide { region, .. } => Some(region),
        Action::Kill { target } | Action::Restart { target } | Action::Pause { target } | Action::Resume { target } => {
            Some(target)
        }
        _ => None,
    }
}

/// One line for people.
pub(crate) fn describe(action: &Action) -> String {
    match action {
        Action::RegionLoss { region } => format!("{region} is lost: its process is killed, every link of it is black"),
        Action::RegionReturn { region } => format!("{region} returns on the data that it left"),
        Action::Kill { target } => format!("{target} is killed"),
        Action::Restart { target } => format!("{target} is started again"),
        Action::Pause { target } => format!("{target} is stopped (SIGSTOP)"),
        Action::Resume { target } => format!("{target} goes on (SIGCONT)"),
        Action::Link { from, to, both, change } => {
            let arrow = if *both { "↔" } else { "→" };
            format!("link {from} {arrow} {to}: {}", patch(change))
        }
        Action::HealLinks => "every link is as declared again".to_owned(),
        Action::ClockSkew { region, offset_ms } => format!("the clock of {region} is off by {offset_ms} ms"),
        Action::Decide { region, decision } => format!("{region} is to {decision} what it has quarantined"),
        Action::Switchover { to } => format!("planned switchover to {to}"),
        Action::Failover { to: Some(to), .. } => format!("failover to {to} by command"),
        Action::Failover { to: None, .. } => "failover by command".to_owned(),
        Action::Switch { mode, durability, primary, force } => {
            let mut text = format!("switch to {mode}");
            if let Some(primary) = primary {
                text.push_str(&format!(" {durability}, primary {primary}"));
            }
            if *force {
                text.push_str(", by force");
            }
            text
        }
    }
}

fn patch(patch: &LinkPatch) -> String {
    let mut parts = Vec::new();
    match patch.state {
        Some(LinkState::Cut) => parts.push("cut".to_owned()),
        Some(LinkState::Up) => parts.push("up".to_owned()),
        None => {}
    }
    parts.extend(patch.delay_ms.map(|value| format!("{value} ms one way")));
    parts.extend(patch.jitter_ms.map(|value| format!("jitter {value} ms")));
    parts.extend(patch.jitter_distribution.map(|value| match value {
        JitterDistribution::Normal => "jitter spread normally".to_owned(),
        JitterDistribution::Pareto => "jitter spread by Pareto".to_owned(),
    }));
    parts.extend(patch.jitter_correlation.map(|value| format!("jitter correlated {value}")));
    parts.extend(patch.reorder.map(|value| format!("reordering {:.2} %", value * 100.0)));
    parts.extend(patch.loss.map(|value| format!("loss {:.2} %", value * 100.0)));
    parts.extend(patch.rate_kbit.map(|value| match value {
        0 => "unlimited rate".to_owned(),
        value => format!("{value} kbit/s"),
    }));
    parts.extend(patch.flap_ms.map(|value| match value {
        0 => "no flap".to_owned(),
        value => format!("flapping every {value} ms"),
    }));
    if patch.reset {
        parts.push("connections reset".to_owned());
    }
    if parts.is_empty() { "unchanged".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use longhaul_core::quarantine::Decision;

    use super::*;

    #[test]
    fn the_kind_is_what_a_plan_writes() {
        let actions = [
            Action::RegionLoss { region: "a".into() },
            Action::HealLinks,
            Action::ClockSkew { region: "a".into(), offset_ms: 3 },
            Action::Decide { region: "a".into(), decision: Decision::Discard },
            Action::Failover { to: None, allow_data_loss: false },
        ];
        for action in actions {
            assert_eq!(serde_json::to_value(&action).unwrap()["do"], kind(&action));
        }
    }

    #[test]
    fn a_link_change_says_every_figure_it_names() {
        let change = LinkPatch { delay_ms: Some(200.0), loss: Some(0.01), rate_kbit: Some(0), ..LinkPatch::default() };
        let action = Action::Link { from: "a".into(), to: "b".into(), both: true, change };
        assert_eq!(describe(&action), "link a ↔ b: 200 ms one way, loss 1.00 %, unlimited rate");
    }
}
