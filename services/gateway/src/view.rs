//! The gateway's own view of the regime: the highest epoch that anybody told it, and when it learned of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::ids::{Epoch, LocationName, RegionId};
use longhaul_core::limits::GATEWAY_ADOPTED_MAX;
use longhaul_core::regime::Regime;
use longhaul_http::clock::SharedClock;
use longhaul_http::watch;
use longhaul_http::wire::gateway::AdoptedRegime;

/// The view. Whoever waits for something to change, a newer regime or a region that fell ill or recovered, watches it.
pub struct View {
    clock: SharedClock,
    names: BTreeMap<RegionId, LocationName>,
    regime: Mutex<Option<Arc<Regime>>>,
    adopted: Mutex<VecDeque<AdoptedRegime>>,
    changes: watch::Sender<u64>,
}

impl View {
    /// A view that knows no regime yet.
    pub fn new(clock: SharedClock, names: BTreeMap<RegionId, LocationName>) -> Self {
        Self {
            clock,
            names,
            regime: Mutex::new(None),
            adopted: Mutex::new(VecDeque::new()),
            changes: watch::Sender::new(0),
        }
    }

    /// The regime by which requests are routed.
    pub fn current(&self) -> Option<Arc<Regime>> {
        self.regime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its epoch; 0 while none is known.
    pub fn epoch(&self) -> Epoch {
        self.regime.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Epoch(0), |regime| regime.epoch)
    }

    /// Adopts a regime if its epoch is higher; tells whether it was.
    pub fn offer(&self, regime: Regime) -> bool {
        let adopted = AdoptedRegime {
            epoch: regime.epoch.0,
            boot_ns: self.clock.boot_ns(),
            mode: regime.mode.to_string(),
            primary: regime.primary.map(|region| self.name(region)),
        };
        {
            let mut current = self.regime.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|current| current.epoch >= regime.epoch) {
                return false;
            }
            *current = Some(Arc::new(regime));
            // Inside the lock, so that the history is in the order of adoption.
            let mut history = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            if history.len() == GATEWAY_ADOPTED_MAX {
                history.pop_front();
            }
            tracing::info!(epoch = adopted.epoch, mode = adopted.mode, primary = ?adopted.primary, "adopted a regime");
            history.push_back(adopted);
        }
        self.changed();
        true
    }

    /// Says that something changed by which requests are routed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A watch over everything by which requests are routed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// When each regime was adopted, oldest first.
    pub fn adopted(&self) -> Vec<AdoptedRegime> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// A region's name, for people.
    pub fn name(&self, region: RegionId) -> String {
        self.names.get(&region).map_or_else(|| format!("region {region}"), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::regime::{Durability, Mode};
    use longhaul_http::clock::SystemClock;

    use super::*;

    fn regime(epoch: u64, primary: u16) -> Regime {
        let regions = (1..=3).map(RegionId);
        let genesis = Regime::genesis(regions, Mode::ActivePassive, Some(RegionId(primary)), Durability::Local);
        Regime { epoch: Epoch(epoch), ..genesis }
    }

    fn view() -> View {
        let names = (1..=3).map(|id| (RegionId(id), LocationName::new(format!("region-{id}")).unwrap())).collect();
        View::new(Arc::new(SystemClock::default()), names)
    }

    #[test]
    fn the_highest_epoch_wins_whatever_the_order() {
        let view = view();
        let taken: Vec<_> =
            [(2, 1), (1, 3), (2, 3), (5, 2), (4, 1)].map(|(epoch, primary)| view.offer(regime(epoch, primary))).into();
        assert_eq!(taken, [true, false, false, true, false]);
        assert_eq!(view.current().unwrap().primary, Some(RegionId(2)));
        let adopted: Vec<_> = view.adopted().into_iter().map(|entry| (entry.epoch, entry.primary.unwrap())).collect();
        assert_eq!(adopted, [(2, "region-1".to_owned()), (5, "region-2".to_owned())]);
    }

    #[test]
    fn the_history_is_bounded() {
        let view = view();
        for epoch in 1..=GATEWAY_ADOPTED_MAX as u64 + 5 {
            view.offer(regime(epoch, 1));
        }
        let adopted = view.adopted();
        assert_eq!((adopted.len(), adopted[0].epoch), (GATEWAY_ADOPTED_MAX, 6));
    }

    #[test]
    fn only_a_newer_regime_wakes_those_who_wait() {
        let view = view();
        let mut changes = view.watch();
        view.offer(regime(3, 1));
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();
        view.offer(regime(3, 2));
        assert!(!changes.has_changed().unwrap());
    }
}
