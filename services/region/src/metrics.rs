//! What a region tells about itself in figures. Labels are names of regions, nothing of a record.

use longhaul_http::metrics::{Page, Source};

use crate::handlers::{lag, role};
use crate::state::Region;

/// Every role that a region may have, for the gauge that says which.
const ROLES: [&str; 8] = ["primary", "fenced", "follower", "active", "home", "joining", "starting", "degraded"];

impl Source for Region {
    fn collect(&self, page: &mut Page) {
        page.label([("region", self.config.name().to_owned())]);
        for (name, help, value) in self.counters.all() {
            page.counter(name, help, "{event}", &[], value);
        }
        self.collect_regime(page);
        self.collect_replication(page);
        let timings = &self.timings;
        let store = [("db_system_name", self.store.system())];
        for (operation, histogram) in [("COMMIT", &timings.commit), ("SELECT", &timings.read)] {
            let labels = [store[0], ("db_operation_name", operation)];
            page.histogram(
                "db.client.operation.duration",
                "Duration of the store's operations.",
                "s",
                &labels,
                histogram.counts(),
            );
        }
        page.histogram(
            "longhaul.region.ack_wait",
            "From a write's acceptance until its client is told, where its durability needs followers.",
            "s",
            &[],
            timings.ack_wait.counts(),
        );
        page.gauge(
            "longhaul.region.write_queue",
            "Writes that wait for the writer.",
            "{write}",
            &[],
            self.writer.queued() as f64,
        );
        let open = self.counters.quarantined.get().saturating_sub(self.counters.quarantine_decided.get());
        page.gauge(
            "longhaul.region.quarantine",
            "Operations in quarantine of which nobody has decided, since the process started.",
            "{operation}",
            &[],
            open as f64,
        );
    }
}

impl Region {
    fn collect_regime(&self, page: &mut Page) {
        let regime = self.regime();
        let flag = |yes: bool| f64::from(u8::from(yes));
        let mode = regime.mode.to_string();
        page.gauge("longhaul.region.epoch", "Epoch of the adopted regime.", "{epoch}", &[], regime.epoch.0 as f64);
        page.gauge("longhaul.region.mode", "1 for the adopted regime's mode.", "{mode}", &[("mode", &mode)], 1.0);
        let now = role(self);
        for known in ROLES {
            let is = flag(known == now);
            page.gauge("longhaul.region.role", "1 for the role that the region has.", "{role}", &[("role", known)], is);
        }
        page.gauge("longhaul.region.ready", "Whether the region serves.", "{region}", &[], flag(self.is_ready()));
        let lease_ns = self.lease_until() as i64 - self.clock.boot_ns() as i64;
        page.gauge(
            "longhaul.region.lease_remaining",
            "How long the primary's lease still runs; 0 without one.",
            "s",
            &[],
            lease_ns.max(0) as f64 / 1e9,
        );
        let skew_s = self.clock.skew_ms() as f64 / 1e3;
        page.gauge("longhaul.region.clock_skew", "Injected skew of the wall clock.", "s", &[], skew_s);
    }

    fn collect_replication(&self, page: &mut Page) {
        let now_ns = self.clock.boot_ns();
        for (peer, state) in self.peers.states() {
            let name = self.config.name_of(peer);
            // What is not here yet of a peer's own log: the peer is the origin.
            let labels = [("origin", name)];
            if !self.is_isolated() {
                let lag = lag(self, &state, peer, now_ns);
                let help =
                    "Age of the oldest operation of the origin that is not here; of the knowledge, if that is older.";
                page.gauge("longhaul.replication.lag", help, "s", &labels, lag.ms / 1e3);
                let help = "Operations that the origin is known to have and this region has not.";
                page.gauge("longhaul.replication.behind", help, "{operation}", &labels, lag.operations as f64);
                let help = "Age of the last word of the origin about its log.";
                page.gauge("longhaul.replication.head_age", help, "s", &labels, lag.knowledge_age_ms / 1e3);
            }
            let labels = [("peer", name)];
            let connected = f64::from(u8::from(state.connected));
            page.gauge(
                "longhaul.replication.connected",
                "Whether the peer's stream is open.",
                "{stream}",
                &labels,
                connected,
            );
            if let Some(round_trip_ns) = state.round_trip_ns {
                let seconds = round_trip_ns as f64 / 1e9;
                page.gauge("longhaul.region.peer_round_trip", "Round trip to the peer.", "s", &labels, seconds);
            }
            if let Some(offset_ns) = state.clock_offset_ns {
                let seconds = offset_ns as f64 / 1e9;
                let help = "Estimated offset of the peer's wall clock against this one.";
                page.gauge("longhaul.region.clock_offset", help, "s", &labels, seconds);
            }
        }
    }
}
