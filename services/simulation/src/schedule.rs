//! What goes wrong in a chaotic run, and when: drawn from the seed, and printable.

use std::fmt;

use longhaul_core::ids::RegionId;
use longhaul_core::plan::Workload;
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::topology::Topology;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::seed;

/// Something that is done to the world. Names are locations of the topology.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// A process is killed, and started again at the end.
    Crash { host: String },
    /// A region is killed in its next commit, just before that becomes durable or just after, and started again at the end.
    CrashInCommit { region: String, durable: bool },
    /// A region is killed and its disk replaced by an empty one; it is started again at the end.
    DiskLoss { region: String },
    /// Every commit fails until the end: the process ends, and is started again then.
    DiskFull { region: String },
    /// Commits take this long.
    SlowDisk { region: String, flush_ms: u64 },
    /// Nothing passes between these two, in both directions.
    Cut { a: String, b: String },
    /// Nothing passes in this direction.
    CutOneWay { from: String, to: String },
    /// A region reaches no other region; its users still reach it.
    Partition { region: String },
    /// A region reaches nobody.
    Isolate { region: String },
    /// What passes in this direction waits until the end.
    Hold { from: String, to: String },
    /// A process is stopped (SIGSTOP) until the end.
    Freeze { host: String },
    /// A link is slow, jitters and loses, in both directions.
    Bad { a: String, b: String, delay_ms: u32, jitter_ms: u32, loss_percent: u32 },
    /// A link goes up and down, in both directions.
    Flap { a: String, b: String, half_ms: u64 },
    /// A wall clock steps, and is set right at the end.
    ClockStep { region: String, by_ms: i64 },
    /// A wall clock runs fast or slow until the end.
    ClockDrift { region: String, ppm: i64 },
    /// Control's process is gone until the end.
    ControlGone,
    /// A planned switchover is asked for.
    Switchover { to: String },
    /// A failover is asked for.
    Failover { to: Option<String>, allow_data_loss: bool },
    /// Another mode or durability is asked for.
    Switch { mode: Mode, durability: Durability, force: bool },
}

impl Fault {
    /// Whether it lasts until its end, or is of one moment.
    pub(crate) const fn lasts(&self) -> bool {
        !matches!(self, Self::Switchover { .. } | Self::Failover { .. } | Self::Switch { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { host } => write!(f, "kill {host}"),
            Self::CrashInCommit { region, durable } => {
                write!(f, "kill {region} in a commit, {} that is durable", if *durable { "after" } else { "before" })
            }
            Self::DiskLoss { region } => write!(f, "kill {region} and lose its disk"),
            Self::DiskFull { region } => write!(f, "the disk of {region} is full"),
            Self::SlowDisk { region, flush_ms } => write!(f, "commits of {region} take {flush_ms} ms"),
            Self::Cut { a, b } => write!(f, "cut {a} and {b}"),
            Self::CutOneWay { from, to } => write!(f, "cut {from} to {to}"),
            Self::Partition { region } => write!(f, "cut {region} from all other regions"),
            Self::Isolate { region } => write!(f, "cut {region} from everybody"),
            Self::Hold { from, to } => write!(f, "hold what {from} sends to {to}"),
            Self::Freeze { host } => write!(f, "stop {host}"),
            Self::Bad { a, b, delay_ms, jitter_ms, loss_percent } => {
                write!(f, "between {a} and {b}: {delay_ms} ms, jitter {jitter_ms} ms, loss {loss_percent} %")
            }
            Self::Flap { a, b, half_ms } => write!(f, "between {a} and {b}: {half_ms} ms up, {half_ms} ms cut"),
            Self::ClockStep { region, by_ms } => write!(f, "the clock of {region} steps {by_ms} ms"),
            Self::ClockDrift { region, ppm } => write!(f, "the clock of {region} drifts {ppm} ppm"),
            Self::ControlGone => write!(f, "kill control"),
            Self::Switchover { to } => write!(f, "switchover to {to}"),
            Self::Failover { to, allow_data_loss } => {
                let to = to.as_deref().unwrap_or("the best candidate");
                write!(f, "failover to {to}{}", if *allow_data_loss { ", data loss allowed" } else { "" })
            }
            Self::Switch { mode, durability, force } => {
                write!(f, "switch to {mode}, {durability}{}", if *force { ", forced" } else { "" })
            }
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// When, milliseconds after the start of the measured run.
    pub(crate) at_ms: u64,
    /// When it is taken back, if it lasts.
    pub(crate) until_ms: u64,
    /// What.
    pub(crate) fault: Fault,
}

/// A chaotic run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// The mode at the start.
    pub(crate) mode: Mode,
    /// The durability at the start.
    pub(crate) durability: Durability,
    /// The primary at the start.
    pub(crate) primary: RegionId,
    /// What users do.
    pub(crate) workload: Workload,
    /// Log entries that stay although every region has them; as many as usual if absent.
    pub(crate) log_retained: Option<u64>,
    /// The faults, by time.
    pub(crate) faults: Vec<Planned>,
    /// When everything heals, milliseconds after the start of the measured run.
    pub(crate) heal_ms: u64,
}

/// Users go on for this long after everything has healed.
pub(crate) const AFTER_HEAL_MS: u64 = 8_000;

const MODES: [Mode; 3] = [Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation];
const DURABILITIES: [Durability; 4] = [Durability::Local, Durability::Semi(1), Durability::Semi(1), Durability::Sync];

fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    from.choose(rng).unwrap_or(&from[0])
}

struct Places {
    regions: Vec<String>,
    edges: Vec<String>,
    all: Vec<String>,
}

impl Places {
    fn two(&self, rng: &mut SmallRng) -> (String, String) {
        // Mostly between regions: that is where the protocol is.
        let places = if rng.random_bool(0.7) && self.regions.len() > 1 { &self.regions } else { &self.all };
        let a = rng.random_range(0..places.len());
        let b = (a + rng.random_range(1..places.len())) % places.len();
        (places[a].clone(), places[b].clone())
    }

    fn region(&self, rng: &mut SmallRng) -> String {
        pick(rng, &self.regions).clone()
    }

    fn fault(&self, rng: &mut SmallRng, disk_loss: bool) -> Fault {
        let region = self.region(rng);
        match rng.random_range(0..100) {
            0..14 => Fault::Crash { host: region },
            14..16 => Fault::Crash { host: pick(rng, &self.edges).clone() },
            16..19 if disk_loss => Fault::DiskLoss { region },
            16..21 => Fault::DiskFull { region },
            21..26 => Fault::SlowDisk { region, flush_ms: *pick(rng, &[20, 100, 400, 1500]) },
            26..31 => {
                let (a, b) = self.two(rng);
                Fault::Cut { a, b }
            }
            31..37 => {
                let (from, to) = self.two(rng);
                Fault::CutOneWay { from, to }
            }
            37..47 => Fault::Partition { region },
            47..52 => Fault::Isolate { region },
            52..57 => {
                let (from, to) = self.two(rng);
                Fault::Hold { from, to }
            }
            57..63 => Fault::Freeze { host: region },
            63..67 => {
                let (a, b) = self.two(rng);
                let (delay_ms, jitter_ms) = (rng.random_range(50..600), rng.random_range(0..100));
                Fault::Bad { a, b, delay_ms, jitter_ms, loss_percent: rng.random_range(0..20) }
            }
            67..71 => {
                let (a, b) = self.two(rng);
                Fault::Flap { a, b, half_ms: rng.random_range(200..2500) }
            }
            71..77 => {
                let within = rng.random_range(-450..450);
                let by_ms = if rng.random_bool(0.75) { within } else { *pick(rng, &[-4000, -1500, 1500, 4000]) };
                Fault::ClockStep { region, by_ms }
            }
            77..80 => Fault::ClockDrift { region, ppm: rng.random_range(-20_000..20_000) },
            80..82 => Fault::ControlGone,
            82..88 => Fault::Switchover { to: region },
            88..93 => {
                let to = rng.random_bool(0.5).then_some(region);
                Fault::Failover { to, allow_data_loss: rng.random_bool(0.3) }
            }
            _ => {
                let mode = *pick(rng, &MODES);
                let durability =
                    if mode == Mode::ActivePassive { *pick(rng, &DURABILITIES) } else { Durability::Local };
                Fault::Switch { mode, durability, force: rng.random_bool(0.15) }
            }
        }
    }
}

/// Adds to six runs of ten what single draws hardly ever bring about, because it takes several things in a row.
fn story(rng: &mut SmallRng, places: &Places, primary: &str, run: &mut Schedule) {
    let heal_ms = run.heal_ms;
    let may_lose_a_disk = !run.loses_a_disk();
    let Schedule { faults, workload, log_retained, .. } = run;
    let at_ms = rng.random_range(1_000..heal_ms - 6_000);
    let region = places.region(rng);
    let kill_ms = at_ms + rng.random_range(300..1_500);
    let kill = Planned {
        at_ms: kill_ms,
        until_ms: kill_ms + rng.random_range(50..400),
        fault: Fault::Crash { host: region.clone() },
    };
    match rng.random_range(0..10) {
        // It restarts with a clock that stands before what it has stored.
        0 => {
            let by_ms = rng.random_range(-4_000..-1_000);
            faults.extend([Planned { at_ms, until_ms: heal_ms, fault: Fault::ClockStep { region, by_ms } }, kill]);
        }
        // It dies in the middle of a commit.
        1 => {
            let fault = Fault::SlowDisk { region, flush_ms: *pick(rng, &[100, 200, 400]) };
            faults.extend([Planned { at_ms, until_ms: kill.until_ms, fault }, kill]);
        }
        // Streams carry many times their window.
        2 => {
            workload.value_bytes = 40_000;
            workload.keys_per_home = 5;
        }
        // The primary sleeps through its lease, with writes on the way to its disk or to its followers.
        3 => {
            let until_ms = at_ms + rng.random_range(4_000..6_000);
            let slow = Fault::SlowDisk { region: primary.to_owned(), flush_ms: 200 };
            let stopped = Fault::Freeze { host: primary.to_owned() };
            faults.extend([
                Planned { at_ms: at_ms - 500, until_ms, fault: slow },
                Planned { at_ms, until_ms, fault: stopped },
            ]);
        }
        // Homes are merged again over links on which snapshots and streams overtake each other.
        4 => {
            let (a, b) = places.two(rng);
            let bad = Fault::Bad { a, b, delay_ms: 150, jitter_ms: 90, loss_percent: 15 };
            let to = |mode| Fault::Switch { mode, durability: Durability::Local, force: false };
            let moment = |at_ms, fault| Planned { at_ms, until_ms: at_ms, fault };
            faults.extend([
                moment(at_ms, to(Mode::RegionalIsolation)),
                Planned { at_ms: at_ms + 2_500, until_ms: heal_ms, fault: bad },
                moment(at_ms + 3_000, to(Mode::ActiveActive)),
            ]);
        }
        // A region comes back with an empty disk, the logs no longer reach back, and the snapshot of one peer is
        // overtaken by what the other one sends.
        5 if may_lose_a_disk => {
            *log_retained = Some(20);
            let (late, early) = *pick(rng, &[(400, 40), (800, 40), (250, 120)]);
            let others: Vec<&String> = places.regions.iter().filter(|other| **other != region).collect();
            let slow = |b: &String, delay_ms| Planned {
                at_ms,
                until_ms: heal_ms,
                fault: Fault::Bad { a: region.clone(), b: b.clone(), delay_ms, jitter_ms: 0, loss_percent: 0 },
            };
            faults.extend(others.iter().zip([late, early]).map(|(other, delay_ms)| slow(other, delay_ms)));
            let until_ms = at_ms + rng.random_range(500..2_500);
            faults.push(Planned { at_ms, until_ms, fault: Fault::DiskLoss { region: region.clone() } });
        }
        _ => {}
    }
}

impl Schedule {
    /// Draws a run from a seed.
    pub(crate) fn draw(topology: &Topology, seed: u64) -> Self {
        let rng = &mut seed::stream(seed, 10);
        let regions: Vec<String> = topology.regions().map(|(_, name)| name.to_string()).collect();
        let edges: Vec<String> = topology.edges().map(|edge| edge.name.to_string()).collect();
        let places = Places { all: regions.iter().chain(&edges).cloned().collect(), regions, edges };
        let mode = *pick(rng, &[Mode::ActivePassive, Mode::ActivePassive, Mode::ActiveActive, Mode::RegionalIsolation]);
        let durability = if mode == Mode::ActivePassive { *pick(rng, &DURABILITIES) } else { Durability::Local };
        let primary = RegionId(rng.random_range(1..=places.regions.len() as u16));
        let heal_ms = rng.random_range(8_000..24_000);
        let count = rng.random_range(2..8);
        let mut faults = Vec::with_capacity(count);
        let mut disk_loss = rng.random_bool(0.15);
        for _ in 0..count {
            let fault = places.fault(rng, disk_loss);
            // Of three disks one may be lost: with two gone nobody promises anything.
            disk_loss &= !matches!(fault, Fault::DiskLoss { .. });
            // Some faults in quick succession: two at once are what protocols are worst at.
            let at_ms = match faults.last() {
                Some(Planned { at_ms, .. }) if rng.random_bool(0.35) => at_ms + rng.random_range(0..1500),
                _ => rng.random_range(300..heal_ms - 1000),
            };
            let length_ms =
                if rng.random_bool(0.3) { rng.random_range(50..1500) } else { rng.random_range(1500..9_000) };
            faults.push(Planned { at_ms, until_ms: (at_ms + length_ms).min(heal_ms), fault });
        }
        let workload = Workload {
            rate_per_s: f64::from(rng.random_range(20..60_u32)),
            read_share: 0.4,
            delete_share: 0.1,
            append_share: 0.15,
            insert_share: 0.3,
            foreign_share: if rng.random_bool(0.5) { 0.3 } else { 0.05 },
            append_if_match: rng.random_bool(0.5),
            keys_per_home: rng.random_range(3..40),
            append_keys_per_home: 2,
            value_bytes: 128,
            sessions_per_edge: 4,
            consistency: (*pick(rng, &["eventual", "session", "session", "primary"])).to_owned(),
            ..Workload::default()
        };
        let name = topology.region_name(primary).map_or_else(|| places.regions[0].clone(), ToString::to_string);
        let mut run = Self { mode, durability, primary, workload, log_retained: None, faults, heal_ms };
        story(&mut seed::stream(seed, 11), &places, &name, &mut run);
        run.faults.sort_by_key(|planned| planned.at_ms);
        run
    }

    /// The same run with every kill of a region moved into the region's next commit. Answers whether there is one.
    pub(crate) fn kill_in_commits(&mut self, topology: &Topology, seed: u64) -> bool {
        let rng = &mut seed::stream(seed, 12);
        let mut moved = false;
        for planned in &mut self.faults {
            if let Fault::Crash { host } = &planned.fault
                && topology.region_id(host).is_some()
            {
                let durable = rng.random_bool(0.5);
                planned.fault = Fault::CrashInCommit { region: host.clone(), durable };
                moved = true;
            }
        }
        moved
    }

    /// Whether a disk is lost in it.
    pub(crate) fn loses_a_disk(&self) -> bool {
        self.faults.iter().any(|planned| matches!(planned.fault, Fault::DiskLoss { .. }))
    }

    /// Whether isolation is forced on regions that may be away.
    pub(crate) fn forces_isolation(&self) -> bool {
        let forced = |fault: &Fault| matches!(fault, Fault::Switch { mode: Mode::RegionalIsolation, force: true, .. });
        self.faults.iter().any(|planned| forced(&planned.fault))
    }

    /// Whether somebody asks for a change that may lose what was acknowledged.
    pub(crate) fn accepts_loss(&self) -> bool {
        self.faults.iter().any(|planned| {
            matches!(planned.fault, Fault::Failover { allow_data_loss: true, .. } | Fault::Switch { force: true, .. })
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, durability, primary, workload, .. } = self;
        writeln!(
            f,
            "starts in {mode}, {durability}, primary {primary}; {} operations a second, {} reads, heals at {:.1} s",
            workload.rate_per_s,
            workload.consistency,
            self.heal_ms as f64 / 1e3
        )?;
        if let Some(kept) = self.log_retained {
            writeln!(f, "  logs keep the last {kept} entries")?;
        }
        for Planned { at_ms, until_ms, fault } in &self.faults {
            let at_s = *at_ms as f64 / 1e3;
            if fault.lasts() {
                writeln!(f, "  {at_s:>7.3} s to {:>7.3} s: {fault}", *until_ms as f64 / 1e3)?;
            } else {
                writeln!(f, "  {at_s:>7.3} s             : {fault}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_run_and_heals_in_time() {
        let topology = Topology::shipped("three-continents").unwrap().unwrap();
        for seed in 0..500 {
            let schedule = Schedule::draw(&topology, seed);
            assert_eq!(schedule, Schedule::draw(&topology, seed));
            assert!(schedule.faults.iter().all(|planned| planned.until_ms <= schedule.heal_ms));
            let lost = schedule.faults.iter().filter(|planned| matches!(planned.fault, Fault::DiskLoss { .. }));
            assert!(lost.count() <= 1);
        }
        assert_ne!(Schedule::draw(&topology, 1), Schedule::draw(&topology, 2));
    }

    #[test]
    fn every_kill_of_a_region_moves_into_a_commit_half_of_them_after_it_is_durable() {
        let topology = Topology::shipped("three-continents").unwrap().unwrap();
        let (mut before, mut after) = (0_u32, 0_u32);
        for seed in 0..500 {
            let (drawn, mut moved) = (Schedule::draw(&topology, seed), Schedule::draw(&topology, seed));
            let any = moved.kill_in_commits(&topology, seed);
            assert_eq!(any, drawn != moved);
            for (drawn, moved) in drawn.faults.iter().zip(&moved.faults) {
                assert_eq!((drawn.at_ms, drawn.until_ms), (moved.at_ms, moved.until_ms));
                match (&drawn.fault, &moved.fault) {
                    (Fault::Crash { host }, Fault::CrashInCommit { region, durable }) => {
                        assert_eq!(host, region);
                        *if *durable { &mut after } else { &mut before } += 1;
                    }
                    (Fault::Crash { host }, _) => assert!(!host.contains('1'), "{host} is a region"),
                    (drawn, moved) => assert_eq!(drawn, moved),
                }
            }
        }
        assert!(before > 100 && after > 100 && before.abs_diff(after) * 4 < before + after, "{before} and {after}");
    }
}
