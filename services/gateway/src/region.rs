//! A region as the gateway sees it: its instances, whether they answer, how fast, and what may be sent there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhaul_core::ids::RegionId;
use longhaul_core::routing::Reach;
use longhaul_http::metrics::Histogram;
use longhaul_http::wire::gateway::{BreakerState, RegionReach};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::balance::{Balancing, Choice, Draw};
use crate::breaker::Breaker;
use crate::config::RegionTarget;
use crate::latency::{Ewma, Window};
use crate::shed::Limiter;

/// Failures in a row, of polls and requests together, after which an instance counts as down. One success undoes them.
pub(crate) const DOWN_AFTER: u32 = 2;
/// Shortest deadline of an attempt to read.
pub(crate) const ATTEMPT_MIN: Duration = Duration::from_millis(250);
/// An attempt to read may take this many measured round trips.
pub(crate) const ATTEMPT_ROUND_TRIPS: u32 = 4;

/// One API instance.
pub(crate) struct Instance {
    /// Where it is dialled.
    pub(crate) address: String,
    /// Asks its poller to poll at once.
    pub(crate) nudge: Notify,
    in_flight: AtomicU64,
    health: Mutex<Health>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug)]
struct Health {
    up: bool,
    failures: u32,
    latency: Ewma,
}

/// What changed about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It answers again.
    Up,
    /// It no longer answers.
    Down,
    /// Nothing.
    Same,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    fn new(address: String, declared: Duration) -> Self {
        // Up until proven otherwise: a gateway that has just started must not refuse what would work.
        let health = Health { up: true, failures: 0, latency: Ewma::declared(declared) };
        let breaker = Mutex::default();
        Self { address, nudge: Notify::new(), in_flight: AtomicU64::new(0), health: Mutex::new(health), breaker }
    }

    /// It answered a poll; with the round trip if the connection was open already.
    pub(crate) fn polled(&self, round_trip: Option<Duration>) -> Turn {
        if let Some(round_trip) = round_trip {
            locked(&self.health).latency.observe(round_trip);
        }
        self.answered()
    }

    /// It gave a sign of life.
    pub(crate) fn answered(&self) -> Turn {
        let mut health = locked(&self.health);
        health.failures = 0;
        if std::mem::replace(&mut health.up, true) { Turn::Same } else { Turn::Up }
    }

    /// It could not be reached, broke off or did not answer a poll.
    pub(crate) fn failed(&self) -> Turn {
        let mut health = locked(&self.health);
        health.failures = health.failures.saturating_add(1);
        if health.up && health.failures >= DOWN_AFTER {
            health.up = false;
            return Turn::Down;
        }
        Turn::Same
    }

    /// Whether it answers.
    pub(crate) fn is_up(&self) -> bool {
        locked(&self.health).up
    }

    /// Whether its circuit breaker would let a request through now.
    fn would_admit(&self, now: Instant) -> bool {
        locked(&self.breaker).would_admit(now)
    }

    /// Its round trip, moving average.
    pub(crate) fn latency(&self) -> Duration {
        locked(&self.health).latency.get()
    }
}

#[derive(Debug)]
struct Flow {
    limiter: Limiter,
    reads: Window,
    turn: u64,
}

/// A region.
pub(crate) struct Region {
    /// Its number.
    pub(crate) id: RegionId,
    /// Its name.
    pub(crate) name: String,
    /// Its API instances; at least one.
    pub(crate) instances: Vec<Arc<Instance>>,
    /// How long attempts took.
    pub(crate) durations: Histogram,
    flow: Mutex<Flow>,
}

/// Why a region takes no attempt now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The circuit breakers of all its instances are open.
    Broken,
    /// As many attempts as it copes with are under way.
    Busy,
}

impl Region {
    /// A region about which only the configuration is known.
    pub(crate) fn new(target: &RegionTarget, concurrency: u32) -> Self {
        let declared = Duration::from_secs_f64(target.rtt_ms / 1e3);
        Self {
            id: target.id,
            name: target.name.to_string(),
            durations: Histogram::default(),
            instances: target
                .addresses
                .iter()
                .map(|address| Arc::new(Instance::new(address.clone(), declared)))
                .collect(),
            flow: Mutex::new(Flow { limiter: Limiter::new(concurrency), reads: Window::default(), turn: 0 }),
        }
    }

    /// Whether any instance answers.
    pub(crate) fn is_up(&self) -> bool {
        self.instances.iter().any(|instance| instance.is_up())
    }

    /// Round trip to the nearest instance that answers (if none does: to the nearest one).
    pub(crate) fn latency(&self) -> Duration {
        let nearest = |up: bool| {
            self.instances.iter().filter(|instance| !up || instance.is_up()).map(|instance| instance.latency()).min()
        };
        nearest(true).or_else(|| nearest(false)).unwrap_or_default()
    }

    /// What routing is told about it.
    pub(crate) fn reach(&self, now: Instant) -> Reach {
        let healthy = self.instances.iter().any(|instance| instance.is_up() && instance.would_admit(now));
        Reach { healthy, latency_us: self.latency().as_micros() as u64 }
    }

    /// How long an attempt to read may take: four measured round trips, at least [`ATTEMPT_MIN`].
    pub(crate) fn attempt_timeout(&self) -> Duration {
        (self.latency() * ATTEMPT_ROUND_TRIPS).max(ATTEMPT_MIN)
    }

    /// 95th percentile of recent reads, once there are enough of them.
    pub(crate) fn read_p95(&self) -> Option<Duration> {
        locked(&self.flow).reads.p95()
    }

    /// Asks to start an attempt.
    pub(crate) fn admit(
        self: &Arc<Self>,
        now: Instant,
        balancing: Balancing,
        random: u64,
        key: &str,
    ) -> Result<Permit, Full> {
        let turn = {
            let mut flow = locked(&self.flow);
            if !flow.limiter.admit() {
                return Err(Full::Busy);
            }
            flow.turn = flow.turn.wrapping_add(1);
            flow.turn
        };
        let chosen = self.choose(now, balancing, Draw { turn, random, key });
        // A trial that somebody else began since it was chosen leaves no room for this one.
        let Some(instance) = chosen.filter(|instance| locked(&instance.breaker).admit(now)) else {
            locked(&self.flow).limiter.release();
            return Err(Full::Broken);
        };
        instance.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { region: self.clone(), instance, reported: false })
    }

    /// One of the instances that answer and whose breaker lets requests through; of all whose breaker does, if none
    /// answers.
    fn choose(&self, now: Instant, balancing: Balancing, draw: Draw<'_>) -> Option<Arc<Instance>> {
        let mut usable: Vec<_> = self.instances.iter().filter(|instance| instance.would_admit(now)).collect();
        if usable.iter().any(|instance| instance.is_up()) {
            usable.retain(|instance| instance.is_up());
        }
        let choices: Vec<_> = usable
            .iter()
            .map(|instance| Choice {
                address: &instance.address,
                in_flight: instance.in_flight.load(Ordering::Relaxed),
            })
            .collect();
        balancing.choose(&choices, draw).map(|index| usable[index].clone())
    }

    /// How often the circuit breakers of its instances have opened.
    pub(crate) fn breaker_openings(&self) -> u64 {
        self.instances.iter().map(|instance| locked(&instance.breaker).openings()).sum()
    }

    /// The state of the instance's breaker that lets most through.
    fn breaker(&self, now: Instant) -> BreakerState {
        let states: Vec<_> = self.instances.iter().map(|instance| locked(&instance.breaker).state(now)).collect();
        let best = [BreakerState::Closed, BreakerState::HalfOpen].into_iter().find(|state| states.contains(state));
        best.unwrap_or(BreakerState::Open)
    }

    /// What is told about it.
    pub(crate) fn status(&self, now: Instant) -> RegionReach {
        let (p95, in_flight, limit) = {
            let flow = locked(&self.flow);
            (flow.reads.p95(), flow.limiter.in_flight(), flow.limiter.limit())
        };
        RegionReach {
            name: self.name.clone(),
            healthy: self.is_up(),
            breaker: self.breaker(now),
            latency_ms: self.latency().as_secs_f64() * 1e3,
            read_p95_ms: p95.map(|p95| p95.as_secs_f64() * 1e3),
            in_flight: u64::from(in_flight),
            concurrency_limit: limit,
            instances: self.instances.iter().map(|instance| (instance.address.clone(), instance.is_up())).collect(),
        }
    }
}

/// Leave for one attempt. Dropped without a report, the attempt was abandoned and says nothing about the region.
pub(crate) struct Permit {
    region: Arc<Region>,
    instance: Arc<Instance>,
    reported: bool,
}

impl Permit {
    /// Where to send it.
    pub(crate) fn address(&self) -> &str {
        &self.instance.address
    }

    /// The region answered; `read` is the time that a read took.
    pub(crate) fn answered(mut self, now: Instant, read: Option<Duration>) -> Turn {
        self.reported = true;
        locked(&self.instance.breaker).succeeded(now);
        let mut flow = locked(&self.region.flow);
        flow.limiter.coped();
        if let Some(read) = read {
            flow.reads.observe(read);
        }
        drop(flow);
        self.instance.answered()
    }

    /// The region answered that it has too much to do.
    pub(crate) fn overloaded(mut self, now: Instant) -> Turn {
        self.reported = true;
        locked(&self.instance.breaker).succeeded(now);
        locked(&self.region.flow).limiter.overloaded(now);
        self.instance.answered()
    }

    /// No connection, or one that broke.
    pub(crate) fn broke(mut self, now: Instant) -> Turn {
        self.reported = true;
        locked(&self.instance.breaker).failed(now);
        self.instance.failed()
    }

    /// No answer in a time in which there should have been one. Of an instance that still answers polls it is a sign
    /// of overload.
    pub(crate) fn timed_out(mut self, now: Instant) {
        self.reported = true;
        locked(&self.instance.breaker).failed(now);
        if self.instance.is_up() {
            locked(&self.region.flow).limiter.overloaded(now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.instance.in_flight.fetch_sub(1, Ordering::Relaxed);
        locked(&self.region.flow).limiter.release();
        if !self.reported {
            locked(&self.instance.breaker).abandoned();
        }
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::ids::LocationName;

    use super::*;
    use crate::breaker::FAILURES_IN_A_ROW;

    fn region(addresses: &[&str]) -> Arc<Region> {
        let target = RegionTarget {
            id: RegionId(1),
            name: LocationName::new("eu-west").unwrap(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            rtt_ms: 80.0,
        };
        Arc::new(Region::new(&target, 512))
    }

    #[test]
    fn an_instance_is_down_after_failures_in_a_row_and_up_after_one_answer() {
        let region = region(&["a:1"]);
        let instance = &region.instances[0];
        assert_eq!((instance.failed(), instance.answered(), instance.failed()), (Turn::Same, Turn::Same, Turn::Same));
        assert_eq!((instance.failed(), region.is_up()), (Turn::Down, false));
        assert_eq!(instance.failed(), Turn::Same);
        assert_eq!((instance.polled(Some(Duration::from_millis(7))), region.is_up()), (Turn::Up, true));
        assert_eq!(region.latency(), Duration::from_millis(7));
    }

    #[test]
    fn a_region_is_up_while_one_instance_is_and_only_that_one_is_asked() {
        let region = region(&["a:1", "b:1"]);
        let _ = (region.instances[0].failed(), region.instances[0].failed());
        assert!(region.is_up());
        for _ in 0..4 {
            let permit = region.admit(Instant::now(), Balancing::RoundRobin, 0, "").unwrap();
            assert_eq!(permit.address(), "b:1");
        }
    }

    #[test]
    fn the_breaker_of_one_instance_leaves_the_others_in_use() {
        let region = region(&["a:1", "b:1"]);
        let now = Instant::now();
        let admit = || region.admit(now, Balancing::RoundRobin, 0, "");
        let mut broken = 0;
        while broken < FAILURES_IN_A_ROW {
            let permit = admit().unwrap();
            if permit.address() == "a:1" {
                broken += 1;
                permit.timed_out(now);
            } else {
                permit.answered(now, None);
            }
        }
        for _ in 0..4 {
            let permit = admit().unwrap();
            assert_eq!(permit.address(), "b:1");
            permit.answered(now, None);
        }
        assert_eq!((region.status(now).breaker, region.breaker_openings()), (BreakerState::Closed, 1));
        for _ in 0..FAILURES_IN_A_ROW {
            admit().unwrap().timed_out(now);
        }
        assert!(matches!(admit(), Err(Full::Broken)));
        assert_eq!((region.status(now).breaker, region.reach(now).healthy), (BreakerState::Open, false));
        assert_eq!(region.status(now).in_flight, 0, "a refused attempt holds no place");
    }

    #[test]
    fn a_permit_gives_its_place_back_however_it_ends() {
        let region = region(&["a:1"]);
        let now = Instant::now();
        let admit = || region.admit(now, Balancing::RoundRobin, 0, "").unwrap();
        let (first, second, third) = (admit(), admit(), admit());
        assert_eq!(region.status(now).in_flight, 3);
        first.answered(now, Some(Duration::from_millis(1)));
        second.broke(now);
        drop(third);
        assert_eq!(region.status(now).in_flight, 0);
    }

    #[test]
    fn a_far_region_gets_more_time_to_answer() {
        let region = region(&["a:1"]);
        assert_eq!(region.attempt_timeout(), Duration::from_millis(320));
        region.instances[0].polled(Some(Duration::from_millis(2)));
        assert_eq!(region.attempt_timeout(), ATTEMPT_MIN);
    }
}
