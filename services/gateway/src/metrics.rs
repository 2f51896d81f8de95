//! What a gateway tells about itself in figures. Labels name places, never a record.

use longhaul_http::metrics::{Page, Source};
use longhaul_http::wire::gateway::{BreakerState, RegionReach};

use crate::gateway::Gateway;

/// A figure about a region: name, meaning, unit, and how it is read.
type Figure = (&'static str, &'static str, &'static str, fn(&RegionReach) -> f64);

const PER_REGION: [Figure; 5] = [
    ("longhaul.gateway.region_healthy", "Whether the region answers.", "{region}", |region| {
        f64::from(u8::from(region.healthy))
    }),
    ("longhaul.gateway.region_latency", "Round trip to the region, moving average.", "s", |region| {
        region.latency_ms / 1e3
    }),
    ("longhaul.gateway.region_in_flight", "Attempts under way at the region.", "{request}", |region| {
        region.in_flight as f64
    }),
    (
        "longhaul.gateway.region_concurrency_limit",
        "Most attempts that may be under way at the region.",
        "{request}",
        |region| region.concurrency_limit as f64,
    ),
    (
        "longhaul.gateway.region_breaker_open",
        "Circuit breaker of the region: 0 closed, 0.5 half open, 1 open.",
        "{breaker}",
        |region| match region.breaker {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 0.5,
            BreakerState::Open => 1.0,
        },
    ),
];

impl Source for Gateway {
    fn collect(&self, page: &mut Page) {
        let status = self.status();
        page.label([("edge", status.edge.clone())]);
        for (name, help, value) in self.counters.all() {
            page.counter(name, help, "{request}", &[], value);
        }
        let epoch = status.epoch as f64;
        page.gauge("longhaul.gateway.epoch", "Epoch of the regime that the gateway routes by.", "{epoch}", &[], epoch);
        let in_flight = status.in_flight as f64;
        page.gauge("longhaul.gateway.requests_in_flight", "Requests under way.", "{request}", &[], in_flight);
        let help = "Requests that wait for a newer regime or a region.";
        page.gauge("longhaul.gateway.requests_holding", help, "{request}", &[], status.holding as f64);
        for region in &status.regions {
            for (name, help, unit, read) in PER_REGION {
                page.gauge(name, help, unit, &[("region", &region.name)], read(region));
            }
        }
        for region in self.regions.values() {
            let help = "Times that the region's circuit breaker opened.";
            let labels = [("region", region.name.as_str())];
            page.counter("longhaul.gateway.breaker_openings", help, "{event}", &labels, region.breaker_openings());
            page.histogram(
                "http.client.request.duration",
                "Duration of attempts at the region.",
                "s",
                &labels,
                region.durations.counts(),
            );
        }
    }
}
