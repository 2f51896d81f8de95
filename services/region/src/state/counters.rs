//! Plain counters of a region.

use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_http::metrics::Histogram;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        /// What a region counts since it started.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Counter,)* }

        impl Counters {
            /// Metric's name, meaning and value of each.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((concat!("longhaul.region.", stringify!($name)), concat!($($doc),+).trim_ascii(), self.$name.get())),*]
            }
        }
    };
}

counters! {
    /// Writes acknowledged.
    writes_acknowledged;
    /// Writes refused before they entered the log.
    writes_refused;
    /// Writes in the log whose client was told that the outcome is unknown.
    writes_unknown;
    /// Retries that were answered from memory.
    writes_repeated;
    /// Records read.
    reads;
    /// Transactions committed.
    commits;
    /// Operations of peers applied.
    operations_applied;
    /// Operations of peers that were held already.
    operations_skipped;
    /// Operations sent to peers.
    operations_sent;
    /// Bytes of replication frames sent.
    replication_bytes_sent;
    /// Bytes of replication frames received.
    replication_bytes_received;
    /// Batches of peers that were not admitted.
    batches_refused;
    /// Concurrent overwrites found.
    conflicts;
    /// Operations that had seen the record and still lost against it. Must be 0.
    born_dead;
    /// Two histories under one number, or digests that differ without a reason. Must be 0.
    divergence_alarms;
    /// Snapshots merged.
    snapshots_merged;
    /// Tombstones collected.
    tombstones_collected;
    /// Streams opened to peers.
    streams_opened;
    /// Operations put into quarantine.
    quarantined;
    /// Quarantined operations that were decided about.
    quarantine_decided;
}

/// How long things take, as distributions.
#[derive(Debug, Default)]
pub struct Timings {
    /// A transaction of the store.
    pub commit: Histogram,
    /// A read of the store that the cache did not answer.
    pub read: Histogram,
    /// From a write's commit until its client is told, where its durability needs followers.
    pub ack_wait: Histogram,
}
