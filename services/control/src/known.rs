//! The newest regime that control has seen.

use std::sync::{Mutex, PoisonError};

use longhaul_core::regime::Regime;

/// The newest regime that any region has told. A region that is lost may be the only one that had adopted it: without
/// this, what people read would go back in time until another region has heard of it.
#[derive(Debug, Default)]
pub(crate) struct KnownRegime(Mutex<Option<Regime>>);

impl KnownRegime {
    /// What is known.
    pub(crate) fn get(&self) -> Option<Regime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in the newest regime that regions tell now, and answers the newest that is known. What every region tells
    /// (`by_all`) is taken even if it is older: then history has begun anew, on empty stores.
    pub(crate) fn learn(&self, told: Regime, by_all: bool) -> Regime {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(known) if known.epoch > told.epoch && !by_all => known.clone(),
            _ => known.insert(told).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::ids::{Epoch, RegionId};
    use longhaul_core::regime::{Durability, Mode};

    use super::*;

    fn at(epoch: u64) -> Regime {
        let genesis = Regime::genesis([RegionId(1)], Mode::ActivePassive, Some(RegionId(1)), Durability::Local);
        Regime { epoch: Epoch(epoch), ..genesis }
    }

    #[test]
    fn what_one_lost_region_had_adopted_stays_known() {
        let known = KnownRegime::default();
        assert_eq!(known.get(), None);
        assert_eq!(known.learn(at(4), true).epoch, Epoch(4));
        assert_eq!(known.learn(at(5), true).epoch, Epoch(5));
        assert_eq!(known.learn(at(4), false).epoch, Epoch(5));
        assert_eq!(known.learn(at(6), false).epoch, Epoch(6));
        assert_eq!(known.get(), Some(at(6)));
    }

    #[test]
    fn a_history_that_begins_anew_is_believed_once_every_region_tells_it() {
        let known = KnownRegime::default();
        known.learn(at(9), true);
        assert_eq!(known.learn(at(1), false).epoch, Epoch(9));
        assert_eq!(known.learn(at(1), true).epoch, Epoch(1));
    }
}
