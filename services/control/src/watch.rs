//! The watch: looks at every region again and again, and turns what changed into events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_core::limits::WATCH_INTERVAL;
use longhaul_core::regime::Regime;
use longhaul_http::client::CallError;
use longhaul_http::wire::control::{EventKind, RegimeView};
use longhaul_http::wire::regime::{ChangeState, REGIME_PATH};
use longhaul_http::wire::status::{RegionStatus, STATUS_PATH};
use tokio::time::MissedTickBehavior;

use crate::spans::trace_change;
use crate::state::Control;

/// Looks at the records of changes after each new epoch: the one that brought it ends a little later.
const CHANGE_LOOKS: u32 = 12;
/// Most changes that are remembered as traced (regions keep fewer).
const CHANGES_TRACED_MAX: usize = 2048;

/// What was seen last.
#[derive(Default)]
struct Seen {
    epoch: u64,
    /// Looks that are left to find the record of the change that brought the last epoch.
    looks: u32,
    /// Changes whose traces have their roots.
    traced: BTreeSet<String>,
    roles: BTreeMap<String, Option<String>>,
}

/// Watches until control closes.
pub(crate) async fn watch(control: Arc<Control>) {
    let mut seen = Seen::default();
    let mut tick = tokio::time::interval(WATCH_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = control.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let (statuses, regime) = tokio::select! {
            biased;
            () = control.stop.cancelled() => return,
            looked = look(&control, seen.epoch) => looked,
        };
        let roles =
            statuses.into_iter().map(|(region, answer)| (region, answer.ok().map(|status| status.role))).collect();
        for (kind, region, text) in seen.roles(roles) {
            control.events.record(kind, Some(&region), text);
        }
        if let Some(regime) = regime
            && let Some(text) = seen.regime(&RegimeView::new(&regime, &control.config.topology))
        {
            control.events.record(EventKind::Regime, None, text);
            control.known.learn(regime, false);
            seen.looks = CHANGE_LOOKS;
        }
        if seen.looks > 0 {
            seen.looks -= 1;
            seen.trace(&control).await;
        }
    }
}

/// How every region is, and the regime of the one that is furthest ahead if that is newer than what is known.
async fn look(
    control: &Control,
    known_epoch: u64,
) -> (BTreeMap<String, Result<RegionStatus, CallError>>, Option<Regime>) {
    let statuses = control.ask_all::<RegionStatus>(STATUS_PATH).await;
    let epochs = statuses.iter().filter_map(|(region, answer)| Some((answer.as_ref().ok()?.epoch, region)));
    let regime = match epochs.max() {
        Some((epoch, region)) if epoch > known_epoch => control.ask_region(region, REGIME_PATH).await.ok(),
        _ => None,
    };
    (statuses, regime)
}

impl Seen {
    /// Records the roots of changes that have ended. During a drill that is the drill's, which knows what users saw.
    async fn trace(&mut self, control: &Control) {
        let during_drill = control.drills.is_running();
        for change in control.changes().await {
            let over = change.state != ChangeState::Running;
            if over && change.kind != "membership" && self.traced.insert(change.id.clone()) && !during_drill {
                trace_change(&change, None);
            }
        }
        while self.traced.len() > CHANGES_TRACED_MAX {
            self.traced.pop_first();
        }
    }

    fn roles(&mut self, now: BTreeMap<String, Option<String>>) -> Vec<(EventKind, String, String)> {
        let mut events = Vec::new();
        for (region, role) in &now {
            let event = match (self.roles.get(region), role) {
                (Some(before), now) if before == now => continue,
                (None | Some(None), Some(role)) => (EventKind::Region, format!("{region} answers, as {role}")),
                (Some(Some(before)), Some(role)) => (EventKind::Role, format!("{region} is {role}, was {before}")),
                (Some(Some(before)), None) => (EventKind::Region, format!("{region} does not answer, was {before}")),
                (None | Some(None), None) => continue,
            };
            events.push((event.0, region.clone(), event.1));
        }
        self.roles = now;
        events
    }

    fn regime(&mut self, view: &RegimeView) -> Option<String> {
        if view.epoch <= self.epoch {
            return None;
        }
        self.epoch = view.epoch;
        let mut text = format!("epoch {}: {}", view.epoch, view.mode);
        if let Some(primary) = &view.primary {
            text.push_str(&format!(" {}, primary {primary}", view.durability));
        }
        if let Some(transition) = &view.transition {
            text.push_str(&format!(", on the way to {} ({:?})", transition.mode, transition.stage));
        }
        Some(format!("{text}: {}", view.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(roles: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        roles.iter().map(|(region, role)| ((*region).to_owned(), role.map(str::to_owned))).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut seen = Seen::default();
        assert_eq!(seen.roles(roles(&[("a", Some("primary")), ("b", None)])).len(), 1);
        assert_eq!(seen.roles(roles(&[("a", Some("primary")), ("b", None)])), []);
        let events = seen.roles(roles(&[("a", Some("fenced")), ("b", Some("follower"))]));
        assert_eq!(events[0], (EventKind::Role, "a".into(), "a is fenced, was primary".into()));
        assert_eq!(events[1].0, EventKind::Region);
        assert_eq!(seen.roles(roles(&[("a", None), ("b", Some("follower"))]))[0].0, EventKind::Region);
    }
}
