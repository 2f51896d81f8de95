//! Valid inputs, damaged.

use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes that mean something to one of the formats.
const TELLING: &[u8] = b"\x00\x01\x7f\x80\xff\"{}[](),.:;=-+*/\\%\n\r 0919eE_'#";
/// Numbers at the edges of what the formats hold, and beyond.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-1e308",
    "5e-324",
    "nan",
    "inf",
    "00000000000000000000000000000001",
    "99999999999999999999999999999999999999999999",
];
/// Longest input.
const BYTES_MAX: usize = 64 * 1024;

/// One act of damage.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    Repeat(Index, usize, usize),
    /// A piece of another input.
    Splice(Index, Index, Index, usize),
    /// Another number in place of one.
    Number(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let byte = || prop_oneof![any::<u8>(), any::<Index>().prop_map(|index| TELLING[index.index(TELLING.len())])];
    prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (at(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (at(), prop::collection::vec(byte(), 1..12)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), 1_usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1_usize..60, 2_usize..400).prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        2 => (at(), at(), at(), 1_usize..80).prop_map(|(at, whose, from, length)| Damage::Splice(at, whose, from, length)),
        3 => (at(), at()).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

/// Mostly damaged inputs of the corpus, now and then bytes from nowhere.
pub(crate) fn damaged(corpus: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let corpus = corpus.to_vec();
    let changed = (any::<Index>(), prop::collection::vec(damage(), 1..6)).prop_map(move |(which, damages)| {
        let input = corpus[which.index(corpus.len())].clone();
        damages.iter().fold(input, |input, damage| apply(input, damage, &corpus))
    });
    prop_oneof![12 => changed, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

fn apply(mut input: Vec<u8>, damage: &Damage, corpus: &[Vec<u8>]) -> Vec<u8> {
    let place = |at: &Index| at.index(input.len() + 1);
    match damage {
        Damage::Set(at, byte) => {
            let at = place(at);
            if let Some(old) = input.get_mut(at) {
                *old = *byte;
            }
        }
        Damage::Flip(at, bit) => {
            let at = place(at);
            if let Some(old) = input.get_mut(at) {
                *old ^= 1 << bit;
            }
        }
        Damage::Insert(at, bytes) => {
            let at = place(at);
            input.splice(at..at, bytes.iter().copied());
        }
        Damage::Remove(at, length) => {
            let at = place(at);
            input.drain(at..(at + length).min(input.len()));
        }
        Damage::Cut(at) => input.truncate(place(at)),
        Damage::Repeat(at, length, times) => {
            let at = place(at);
            let piece = input[at..(at + length).min(input.len())].repeat(*times);
            input.splice(at..at, piece);
        }
        Damage::Splice(at, whose, from, length) => {
            let other = &corpus[whose.index(corpus.len())];
            let (at, from) = (place(at), from.index(other.len() + 1));
            input.splice(at..at, other[from..(from + length).min(other.len())].iter().copied());
        }
        Damage::Number(at, number) => {
            let at = place(at);
            let digit = |byte: &u8| byte.is_ascii_digit();
            if let Some(start) = input[at..].iter().position(digit).map(|offset| at + offset) {
                let end =
                    input[start..].iter().position(|byte| !digit(byte)).map_or(input.len(), |offset| start + offset);
                input.splice(start..end, NUMBERS[number.index(NUMBERS.len())].bytes());
            }
        }
    }
    input.truncate(BYTES_MAX);
    input
}
