//! What the gateway counts. Labels name locations only, never a record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $($(#[doc = $doc])+ pub(crate) $name: Counter,)* }

        impl Counters {
            /// All of them by name.
            pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name.get()),)*])
            }
        }

        impl Counters {
            /// Metric's name, meaning and value of each.
            pub(crate) fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((concat!("longhaul.gateway.", stringify!($name)), concat!($($doc),+).trim_ascii(), self.$name.get())),*]
            }
        }
    };
}

counters! {
    /// Requests for records.
    requests,
    /// Requests that a region served.
    served,
    /// Requests that ended with a definite error.
    refused,
    /// Writes whose outcome the gateway does not know.
    unknown,
    /// Attempts sent to regions, hedges included.
    attempts,
    /// Attempts after the first that the budget paid for.
    retries,
    /// Requests that ended because the retry budget was empty.
    retries_denied,
    /// Requests that waited for a newer regime or for a region to come back.
    held,
    /// Writes given up because their region stopped answering or another one took over.
    abandoned,
    /// Second requests of hedged reads.
    hedges,
    /// Hedged reads that the second region answered first.
    hedge_wins,
    /// Attempts refused because a region had as many as it copes with.
    shed,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Its value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that are there now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one until the guard is dropped.
    pub(crate) fn enter(&self) -> GaugeGuard<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(self)
    }

    /// Its value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of the things that a [`Gauge`] counts.
#[derive(Debug)]
pub(crate) struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
