//! The state of a gateway, shared by its handlers and pollers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::ids::RegionId;
use longhaul_core::routing::Reach;
use longhaul_http::client::HttpClient;
use longhaul_http::clock::SharedClock;
use longhaul_http::trace::TraceIds;
use longhaul_http::wire::gateway::GatewayStatus;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::time::Instant;

use crate::config::GatewayConfig;
use crate::counters::{Counters, Gauge};
use crate::region::{Region, Turn};
use crate::retry::Budget;
use crate::view::View;

/// One gateway.
pub(crate) struct Gateway {
    /// What it was told.
    pub(crate) config: GatewayConfig,
    /// How it calls regions.
    pub(crate) client: HttpClient,
    /// Its view of the regime.
    pub(crate) view: View,
    /// The regions.
    pub(crate) regions: BTreeMap<RegionId, Arc<Region>>,
    /// Trace and span ids.
    pub(crate) ids: TraceIds,
    /// Retries that it can afford.
    pub(crate) budget: Budget,
    /// What it counts.
    pub(crate) counters: Counters,
    /// Requests under way.
    pub(crate) in_flight: Gauge,
    /// Requests that wait.
    pub(crate) holding: Gauge,
    rng: Mutex<SmallRng>,
}

impl Gateway {
    /// A gateway that has asked nobody yet.
    pub(crate) fn new(config: GatewayConfig, client: HttpClient, clock: SharedClock) -> Self {
        Self {
            client,
            view: View::new(clock, config.names()),
            regions: config
                .regions
                .iter()
                .map(|target| (target.id, Arc::new(Region::new(target, config.concurrency))))
                .collect(),
            // Two generators of one seed would draw the same numbers for different things.
            ids: TraceIds::new(config.seed ^ 0x7261_6365),
            budget: Budget::new(config.retries),
            counters: Counters::default(),
            in_flight: Gauge::default(),
            holding: Gauge::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(config.seed)),
            config,
        }
    }

    /// A fresh random number.
    pub(crate) fn random(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// Fresh random bytes.
    pub(crate) fn random_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }

    /// What routing is told about the regions.
    pub(crate) fn reach(&self, now: Instant) -> BTreeMap<RegionId, Reach> {
        self.regions.iter().map(|(id, region)| (*id, region.reach(now))).collect()
    }

    /// A region by name.
    pub(crate) fn region_named(&self, name: &str) -> Option<RegionId> {
        self.regions.values().find(|region| region.name == name).map(|region| region.id)
    }

    /// Takes note that an instance of a region fell ill or recovered, and tells those who wait.
    pub(crate) fn turned(&self, region: &Region, turn: Turn) {
        match turn {
            Turn::Same => return,
            Turn::Down => tracing::warn!(region = region.name, "an instance of the region stopped answering"),
            Turn::Up => tracing::info!(region = region.name, "an instance of the region answers again"),
        }
        self.view.changed();
    }

    /// Takes note of the epoch under which a region answered: a higher one than our own is fetched at once.
    pub(crate) fn learn(&self, region: &Region, epoch: u64) {
        if epoch > self.view.epoch().0 {
            for instance in &region.instances {
                instance.nudge.notify_one();
            }
        }
    }

    /// What it says about itself.
    pub(crate) fn status(&self) -> GatewayStatus {
        let now = Instant::now();
        GatewayStatus {
            edge: self.config.edge.to_string(),
            home: self.view.name(self.config.home),
            epoch: self.view.epoch().0,
            adopted: self.view.adopted(),
            regions: self.regions.values().map(|region| region.status(now)).collect(),
            in_flight: self.in_flight.get(),
            holding: self.holding.get(),
            counters: self.counters.snapshot(),
        }
    }
}
