//! Balancing over the API instances of one region. Pure: what is random or counted is passed in.

use serde::{Deserialize, Serialize};

/// How to choose an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancing {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// The better of two drawn at random: nearly as even as the fewest, and it does not send everybody to the one that
    /// has just come up.
    #[default]
    PowerOfTwo,
    /// By the record, so that one record's requests meet at one instance.
    Rendezvous,
}

/// What the rules choose among: one per instance that may be used.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Its address.
    pub address: &'a str,
    /// Requests under way there.
    pub in_flight: u64,
}

/// What a choice is made by.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Grows by one with every choice.
    pub turn: u64,
    /// A fresh random number.
    pub random: u64,
    /// What the request is about.
    pub key: &'a str,
}

impl Balancing {
    /// The chosen one's index; `None` if there is nothing to choose from.
    pub fn choose(self, choices: &[Choice<'_>], draw: Draw<'_>) -> Option<usize> {
        match (self, choices.len()) {
            (_, 0) => None,
            (_, 1) => Some(0),
            (Self::RoundRobin, count) => Some(round_robin(count, draw.turn)),
            (Self::LeastConnections, _) => least_connections(choices, draw.turn),
            (Self::PowerOfTwo, _) => Some(power_of_two(choices, draw.random)),
            (Self::Rendezvous, _) => rendezvous(choices, draw.key),
        }
    }
}

fn round_robin(count: usize, turn: u64) -> usize {
    (turn % count as u64) as usize
}

/// Ties go round, or one instance would take everything while all are idle.
fn least_connections(choices: &[Choice<'_>], turn: u64) -> Option<usize> {
    let start = round_robin(choices.len(), turn);
    (0..choices.len()).map(|step| (start + step) % choices.len()).min_by_key(|index| choices[*index].in_flight)
}

/// Two distinct instances at random, the less busy of them.
///
/// Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
fn power_of_two(choices: &[Choice<'_>], random: u64) -> usize {
    let count = choices.len() as u64;
    let first = (random & 0xffff_ffff) % count;
    let second = (first + 1 + (random >> 32) % (count - 1)) % count;
    let (first, second) = (first as usize, second as usize);
    if choices[second].in_flight < choices[first].in_flight { second } else { first }
}

/// The instance with the highest hash of (key, instance): when one leaves, only its keys move.
///
/// Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.
fn rendezvous(choices: &[Choice<'_>], key: &str) -> Option<usize> {
    (0..choices.len()).max_by_key(|index| (weight(key, choices[*index].address), *index))
}

/// FNV-1a over both texts, then the finalizer of SplitMix64: FNV alone mixes the last bytes too weakly to rank by.
fn weight(key: &str, address: &str) -> u64 {
    let bytes = key.bytes().chain([0]).chain(address.bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(in_flight: &[u64]) -> Vec<Choice<'static>> {
        const ADDRESSES: [&str; 4] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
        in_flight.iter().zip(ADDRESSES).map(|(in_flight, address)| Choice { address, in_flight: *in_flight }).collect()
    }

    fn draw(turn: u64) -> Draw<'static> {
        // SplitMix64's increment spreads the turns over all bits.
        Draw { turn, random: turn.wrapping_mul(0x9e37_79b9_7f4a_7c15), key: "" }
    }

    #[test]
    fn nothing_is_chosen_from_nothing_and_one_from_one() {
        for rule in [Balancing::RoundRobin, Balancing::LeastConnections, Balancing::PowerOfTwo, Balancing::Rendezvous] {
            assert_eq!(rule.choose(&[], draw(3)), None);
            assert_eq!(rule.choose(&choices(&[9]), draw(3)), Some(0));
        }
    }

    #[test]
    fn round_robin_visits_all_in_turn() {
        let visited: Vec<_> =
            (0..4).map(|turn| Balancing::RoundRobin.choose(&choices(&[5, 0, 0]), draw(turn))).collect();
        assert_eq!(visited, [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn least_connections_takes_the_idlest_and_shares_ties() {
        let busy = choices(&[3, 1, 2]);
        assert!((0..5).all(|turn| Balancing::LeastConnections.choose(&busy, draw(turn)) == Some(1)));
        let idle = choices(&[0, 0, 0]);
        let visited: Vec<_> = (0..3).map(|turn| Balancing::LeastConnections.choose(&idle, draw(turn))).collect();
        assert_eq!(visited, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn power_of_two_never_takes_the_busiest_and_reaches_the_others() {
        let busy = choices(&[100, 0, 0]);
        let mut taken = [0; 3];
        for turn in 0..1000 {
            taken[Balancing::PowerOfTwo.choose(&busy, draw(turn)).unwrap()] += 1;
        }
        assert_eq!(taken[0], 0, "the other one of any pair is less busy");
        assert!(taken[1] > 300 && taken[2] > 300, "{taken:?}");
    }

    #[test]
    fn rendezvous_moves_only_the_keys_of_the_instance_that_left() {
        let all = choices(&[0, 0, 0, 0]);
        let without_last = &all[..3];
        let mut share = [0; 4];
        for key in (0..4000).map(|number| format!("eu-west/{number}")) {
            let chosen = rendezvous(&all, &key).unwrap();
            share[chosen] += 1;
            if chosen < 3 {
                assert_eq!(rendezvous(without_last, &key), Some(chosen), "{key} moved although its instance stayed");
            }
        }
        assert!(share.iter().all(|share| (800..1200).contains(share)), "{share:?}");
    }
}
