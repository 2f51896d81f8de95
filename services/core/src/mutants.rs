//! Rules that a test may break on purpose, one at a time, to show that its checks would notice.
//!
//! [`is_broken`] is `false` at compile time unless the feature `mutants` is on, and no crate of the program turns it on
//! (a contract test holds that). With the feature, `break_rule` breaks one rule for the calling **thread** only: a
//! simulation is one thread, so that several can run side by side with different rules broken.

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was accepted is acknowledged only if epoch and lease still allow it at that moment. Broken: once accepted,
    /// always acknowledged.
    FenceAtAcknowledgement,
    /// A voter's state is durable before it answers. Broken: it is kept in memory only.
    DurablePromise,
    /// What lies beyond a cut leaves history when the regime with the cut is adopted. Broken: it stays.
    Cut,
    /// Regimes and leases need a majority of the voters. Broken: one voter fewer is enough.
    Majority,
    /// Tombstones go once **every** member has everything up to them. Broken: once the most advanced member has.
    Frontier,
    /// A snapshot is merged with what the receiver has. Broken: it replaces it.
    SnapshotMerge,
    /// A restarted region stamps above everything that it stored. Broken: its clock starts from the wall clock alone.
    RestoredClock,
    /// The puller gives credit back for what it has taken. Broken: it never does.
    Credit,
    /// A session is served once **each** timeline has reached what its token names. Broken: once any version as great as
    /// the token's greatest has arrived, of whatever timeline.
    VectorToken,
    /// An operation's id is remembered in the transaction of its write. Broken: in one of its own, afterwards.
    IdempotencyWithWrite,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::FenceAtAcknowledgement,
        Self::DurablePromise,
        Self::Cut,
        Self::Majority,
        Self::Frontier,
        Self::SnapshotMerge,
        Self::RestoredClock,
        Self::Credit,
        Self::VectorToken,
        Self::IdempotencyWithWrite,
    ];
}

#[cfg(not(feature = "mutants"))]
mod switch {
    /// Whether a rule is broken in this thread: never, without the feature `mutants`.
    #[inline]
    #[must_use]
    pub const fn is_broken(_rule: super::Rule) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether a rule is broken in this thread.
    #[must_use]
    pub fn is_broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }

    /// Keeps a rule broken in its thread; dropped, what was before holds again.
    #[derive(Debug)]
    #[must_use = "the rule holds again as soon as this is dropped"]
    pub struct Broken {
        before: Option<Rule>,
        /// It belongs to its thread.
        _thread: std::marker::PhantomData<*const ()>,
    }

    impl Drop for Broken {
        fn drop(&mut self) {
            BROKEN.set(self.before);
        }
    }

    /// Breaks one rule in this thread, in place of any other.
    pub fn break_rule(rule: Rule) -> Broken {
        Broken { before: BROKEN.replace(Some(rule)), _thread: std::marker::PhantomData }
    }
}

pub use switch::is_broken;
#[cfg(feature = "mutants")]
pub use switch::{Broken, break_rule};

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_every_rule_holds() {
        assert!(Rule::ALL.into_iter().all(|rule| !is_broken(rule)));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_rule_is_broken_in_its_thread_and_only_as_long_as_somebody_wants_that() {
        let broken = break_rule(Rule::Cut);
        assert!(is_broken(Rule::Cut) && !is_broken(Rule::Majority));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_broken(Rule::Cut)));
        });
        let other = break_rule(Rule::Majority);
        assert!(is_broken(Rule::Majority) && !is_broken(Rule::Cut));
        drop(other);
        assert!(is_broken(Rule::Cut));
        drop(broken);
        assert!(Rule::ALL.into_iter().all(|rule| !is_broken(rule)));
    }
}
