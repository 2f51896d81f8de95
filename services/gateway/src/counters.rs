//! What the gateway counts. Labels name locations only, never a record.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_http::wire::gateway::{BreakerState, GatewayStatus, RegionReach};

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

        const DESCRIPTIONS: &[(&str, &[&str])] = &[$((stringify!($name), &[$($doc),+]),)*];
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

/// A figure about a region.
type Figure = fn(&RegionReach) -> f64;

/// The status in Prometheus' text format.
pub(crate) fn exposition(status: &GatewayStatus, breaker_openings: &BTreeMap<String, u64>) -> String {
    let mut text = String::with_capacity(4096);
    let edge = &status.edge;
    for (name, description) in DESCRIPTIONS {
        let value = status.counters.get(*name).copied().unwrap_or(0);
        let help = description.join(" ");
        let _ = write!(
            text,
            "# HELP longhaul_gateway_{name}_total{help}\n# TYPE longhaul_gateway_{name}_total counter\n\
             longhaul_gateway_{name}_total{{edge=\"{edge}\"}} {value}\n"
        );
    }
    let gauges = [
        ("epoch", "Epoch of the regime that the gateway routes by.", status.epoch),
        ("requests_in_flight", "Requests under way.", status.in_flight),
        ("requests_holding", "Requests that wait for a newer regime or a region.", status.holding),
    ];
    for (name, help, value) in gauges {
        let _ = write!(
            text,
            "# HELP longhaul_gateway_{name} {help}\n# TYPE longhaul_gateway_{name} gauge\n\
             longhaul_gateway_{name}{{edge=\"{edge}\"}} {value}\n"
        );
    }
    let per_region: [(&str, &str, Figure); 5] = [
        ("region_healthy", "Whether the region answers.", |region| f64::from(u8::from(region.healthy))),
        ("region_latency_seconds", "Round trip to the region, moving average.", |region| region.latency_ms / 1e3),
        ("region_in_flight", "Attempts under way at the region.", |region| region.in_flight as f64),
        ("region_concurrency_limit", "Most attempts that may be under way.", |region| region.concurrency_limit as f64),
        ("region_breaker_open", "Circuit breaker: 0 closed, 0.5 half open, 1 open.", |region| match region.breaker {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 0.5,
            BreakerState::Open => 1.0,
        }),
    ];
    for (name, help, value) in per_region {
        let _ = write!(text, "# HELP longhaul_gateway_{name} {help}\n# TYPE longhaul_gateway_{name} gauge\n");
        for region in &status.regions {
            let _ = writeln!(
                text,
                "longhaul_gateway_{name}{{edge=\"{edge}\",region=\"{}\"}} {}",
                region.name,
                value(region)
            );
        }
    }
    let _ = write!(
        text,
        "# HELP longhaul_gateway_breaker_openings_total Times that a circuit breaker opened.\n\
         # TYPE longhaul_gateway_breaker_openings_total counter\n"
    );
    for (region, openings) in breaker_openings {
        let _ =
            writeln!(text, "longhaul_gateway_breaker_openings_total{{edge=\"{edge}\",region=\"{region}\"}} {openings}");
    }
    text
}
