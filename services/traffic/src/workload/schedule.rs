//! The schedule: a seeded, lazy stream of operations for each edge.

use longhaul_core::plan::Workload;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::keys::KeyDraw;
use super::{Key, Kind, PlannedOperation, Slot, shape};

/// Appends that are planned to one list before the next generation of it begins: a list of so many numbers stays far
/// below the largest value of a record.
const APPENDS_PER_LIST: u32 = 2_000;
/// Separates the generators of the edges of one seed (the golden ratio's fraction, as in SplitMix64).
const EDGE_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// The homes of a run, and which of them each edge's users belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Population {
    /// Names of the homes, in order.
    pub homes: Vec<String>,
    /// For each edge, its users' home as an index into `homes`.
    pub home_of: Vec<u16>,
}

impl Population {
    /// From the home of each edge.
    pub fn new<'a>(edge_homes: impl IntoIterator<Item = &'a str>) -> Self {
        let edge_homes: Vec<&str> = edge_homes.into_iter().collect();
        let homes: std::collections::BTreeSet<&str> = edge_homes.iter().copied().collect();
        let homes: Vec<String> = homes.into_iter().map(str::to_owned).collect();
        let home_of = edge_homes
            .iter()
            .map(|name| homes.iter().position(|home| home == name).expect("every edge's home is a home") as u16)
            .collect();
        Self { homes, home_of }
    }
}

/// The operations of one edge in order of their intended starts.
///
/// Starts are a Poisson process (independent users) whose rate follows the workload's shape, by thinning
/// (Lewis and Shedler, 1979).
#[derive(Debug)]
pub struct EdgeStream {
    workload: Workload,
    edge: u16,
    edges: u16,
    home: u16,
    homes: u16,
    warm_up_s: f64,
    end_s: f64,
    rng: SmallRng,
    registers: KeyDraw,
    clock_s: f64,
    drawn: u32,
    /// Appends planned so far to each list: by home, then by list.
    appends: Vec<Vec<u32>>,
}

impl EdgeStream {
    /// The stream of the `edge`-th edge: `warm_up_s` of traffic before the measured run, which `seconds` long ends it
    /// (`None`: it never ends).
    pub fn new(
        workload: &Workload,
        population: &Population,
        edge: usize,
        seed: u64,
        warm_up_s: f64,
        seconds: Option<f64>,
    ) -> Self {
        let homes = population.homes.len();
        Self {
            edge: edge as u16,
            edges: population.home_of.len() as u16,
            home: population.home_of[edge],
            homes: homes as u16,
            warm_up_s,
            end_s: seconds.map_or(f64::INFINITY, |seconds| warm_up_s + seconds),
            rng: SmallRng::seed_from_u64(seed ^ EDGE_SEED.wrapping_mul(edge as u64 + 1)),
            registers: KeyDraw::new(workload.keys, workload.keys_per_home),
            clock_s: 0.0,
            drawn: 0,
            appends: vec![vec![0; workload.append_keys_per_home as usize]; homes],
            workload: workload.clone(),
        }
    }

    fn kind(&mut self) -> Kind {
        let workload = &self.workload;
        if self.rng.random::<f64>() < workload.read_share {
            return Kind::Read;
        }
        let mut point: f64 = self.rng.random();
        for (share, kind) in [
            (workload.delete_share, Kind::Delete),
            (workload.append_share, Kind::Append),
            (workload.insert_share, Kind::Insert),
        ] {
            if point < share {
                return kind;
            }
            point -= share;
        }
        Kind::Put
    }

    fn home(&mut self) -> u16 {
        if self.homes < 2 || self.rng.random::<f64>() >= self.workload.foreign_share {
            return self.home;
        }
        let other = self.rng.random_range(0..self.homes - 1);
        if other >= self.home { other + 1 } else { other }
    }
}

impl Iterator for EdgeStream {
    type Item = PlannedOperation;

    fn next(&mut self) -> Option<PlannedOperation> {
        let peak_per_s = self.workload.rate_per_s / f64::from(self.edges) * shape::peak(self.workload.shape);
        loop {
            let unit: f64 = self.rng.random();
            self.clock_s -= (1.0 - unit).ln() / peak_per_s;
            if self.clock_s >= self.end_s {
                return None;
            }
            let at_s = self.clock_s - self.warm_up_s;
            let factor = shape::factor(self.workload.shape, at_s, self.edge.into(), self.edges.into());
            if self.rng.random::<f64>() * shape::peak(self.workload.shape) < factor {
                break;
            }
        }
        let n = self.drawn.checked_mul(self.edges.into())?.checked_add(self.edge.into())?;
        self.drawn += 1;
        let kind = self.kind();
        let home = self.home();
        let slot = match kind {
            Kind::Insert => Slot::Insert(n),
            Kind::Append => {
                let list = self.rng.random_range(0..self.workload.append_keys_per_home);
                let planned = &mut self.appends[usize::from(home)][list as usize];
                *planned += 1;
                // Every edge plans alone, so each counts as if the others did as much.
                Slot::List(list, (*planned - 1) * u32::from(self.edges) / APPENDS_PER_LIST)
            }
            Kind::Read | Kind::Put | Kind::Delete => Slot::Register(self.registers.draw(&mut self.rng)),
        };
        let session = self.rng.random_range(0..self.workload.sessions_per_edge) as u16;
        let at_ns = (self.clock_s * 1e9) as u64;
        Some(PlannedOperation { n, edge: self.edge, session, kind, key: Key { home, slot }, at_ns })
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::plan::Shape;

    use super::*;

    fn population() -> Population {
        Population::new(["eu-west", "us-east", "ap-south"])
    }

    fn text(workload: &Workload, seed: u64) -> String {
        (0..3)
            .flat_map(|edge| EdgeStream::new(workload, &population(), edge, seed, 3.0, Some(60.0)))
            .map(|operation| format!("{operation:?}\n"))
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_byte_for_byte_and_another_seed_another() {
        let workload = Workload::default();
        assert_eq!(text(&workload, 42), text(&workload, 42));
        assert_ne!(text(&workload, 42), text(&workload, 43));
    }

    #[test]
    fn rates_and_shares_are_those_of_the_workload() {
        let workload = Workload::default();
        let all: Vec<_> =
            (0..3).flat_map(|edge| EdgeStream::new(&workload, &population(), edge, 7, 0.0, Some(200.0))).collect();
        let share = |wanted: &dyn Fn(&PlannedOperation) -> bool, of: f64| {
            all.iter().filter(|operation| wanted(operation)).count() as f64 / of
        };
        let writes = share(&|operation| operation.kind.writes(), 1.0);
        assert!((all.len() as f64 / 200.0 - 300.0).abs() < 6.0);
        assert!((share(&|operation| operation.kind == Kind::Read, all.len() as f64) - 0.5).abs() < 0.01);
        assert!((share(&|operation| operation.kind == Kind::Insert, writes) - 0.3).abs() < 0.02);
        assert!((share(&|operation| operation.kind == Kind::Append, writes) - 0.1).abs() < 0.02);
        assert!((share(&|operation| operation.kind == Kind::Delete, writes) - 0.02).abs() < 0.01);
        let homes = population();
        let foreign = share(&|o| o.key.home != homes.home_of[usize::from(o.edge)], all.len() as f64);
        assert!((foreign - 0.1).abs() < 0.01);
    }

    #[test]
    fn numbers_are_unique_and_starts_rise() {
        let workload = Workload { shape: Shape::FollowTheSun { period_s: 20.0 }, ..Workload::default() };
        let mut numbers = std::collections::BTreeSet::new();
        for edge in 0..3 {
            let mut last = 0;
            for operation in EdgeStream::new(&workload, &population(), edge, 1, 1.0, Some(30.0)) {
                assert!(operation.at_ns >= last && numbers.insert(operation.n));
                last = operation.at_ns;
            }
        }
        assert!(numbers.len() > 8_000);
    }

    #[test]
    fn a_spike_multiplies_the_rate_only_while_it_lasts() {
        let shape = Shape::Spike { at_s: 10.0, length_s: 10.0, factor: 4.0 };
        let workload = Workload { rate_per_s: 100.0, shape, ..Workload::default() };
        let stream = EdgeStream::new(&workload, &Population::new(["eu"]), 0, 3, 5.0, Some(30.0));
        let mut seconds = [0.0_f64; 35];
        for operation in stream {
            seconds[(operation.at_ns / 1_000_000_000) as usize] += 1.0;
        }
        let mean = |from: usize, to: usize| seconds[from..to].iter().sum::<f64>() / (to - from) as f64;
        assert!((mean(0, 15) - 100.0).abs() < 12.0 && (mean(25, 35) - 100.0).abs() < 12.0, "{seconds:?}");
        assert!((mean(15, 25) - 400.0).abs() < 25.0, "{seconds:?}");
    }
}
