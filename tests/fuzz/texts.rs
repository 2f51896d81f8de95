//! What users send: tokens, versions, ids, headers.

use std::str::FromStr;

use longhaul_core::error_code::ErrorCode;
use longhaul_core::gate::Consistency;
use longhaul_core::ids::{Dot, Epoch, LocationName, OpId, RecordId, RegionId, Timeline};
use longhaul_core::regime::{Durability, Mode};
use longhaul_core::token::{SessionToken, TokenKey};
use longhaul_core::version::Version;

use crate::fuzz;

fn texts(corpus: &[&str]) -> Vec<Vec<u8>> {
    corpus.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn parses<T: FromStr>(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| text.parse::<T>().is_ok())
}

#[test]
fn session_tokens() {
    let key = TokenKey::new(b"key");
    let mut token = SessionToken::default();
    let empty = token.encode(&key).unwrap();
    for seq in 1..60 {
        let dot = Dot { timeline: Timeline::new(seq % 7 + 1, 1), seq: u64::MAX - u64::from(seq) };
        token.observe(Epoch(3), dot, Version { time_ns: u64::MAX, count: u32::from(seq), region: RegionId(seq) });
    }
    let corpus = texts(&[&empty, &token.encode(&key).unwrap()]);
    fuzz(&corpus, |input| std::str::from_utf8(input).is_ok_and(|text| SessionToken::decode(text, &key).is_ok()));
}

/// The body inside a token, past its authentication: what a region would read if its key were known.
#[test]
fn the_bodies_of_session_tokens() {
    let mut token = SessionToken::default();
    token.observe(Epoch(3), Dot { timeline: Timeline::new(1, 1), seq: 9 }, Version::ZERO);
    let corpus = [postcard::to_stdvec(&SessionToken::default()).unwrap(), postcard::to_stdvec(&token).unwrap()];
    fuzz(&corpus, |input| match postcard::from_bytes::<SessionToken>(input) {
        Ok(mut token) => {
            token.observe(Epoch(1), Dot { timeline: Timeline::new(1, 1), seq: 1 }, Version::ZERO);
            token.truncated_by(&token.seen);
            token.is_satisfied_by(&token.seen)
        }
        Err(_) => false,
    });
}

#[test]
fn versions() {
    let version = Version { time_ns: 1_800_000_000_000_000_000, count: 7, region: RegionId(2) };
    fuzz(&texts(&[&version.to_string(), &Version::ZERO.to_string()]), parses::<Version>);
    let bytes = [version.to_bytes().to_vec(), Version::ZERO.to_bytes().to_vec()];
    fuzz(&bytes, |input| Version::from_bytes(input).is_some());
}

#[test]
fn ids_and_names() {
    fuzz(&texts(&["2.1", "65535.4294967295"]), parses::<Timeline>);
    fuzz(&texts(&["0198f0a8-7c3e-7d4b-8a6f-0123456789ab"]), parses::<OpId>);
    let utf8 = |input: &[u8]| std::str::from_utf8(input).ok().map(str::to_owned);
    fuzz(&texts(&["a", "order-1_2.3"]), |input| utf8(input).is_some_and(|text| RecordId::new(text).is_ok()));
    fuzz(&texts(&["eu-west-1"]), |input| utf8(input).is_some_and(|text| LocationName::new(text).is_ok()));
}

#[test]
fn words() {
    fuzz(&texts(&["active-passive", "active-active", "regional-isolation"]), parses::<Mode>);
    fuzz(&texts(&["local", "semi(1)", "semi(255)", "sync"]), parses::<Durability>);
    fuzz(&texts(&["eventual", "session", "primary"]), parses::<Consistency>);
    fuzz(&texts(&["not_primary"]), |input| std::str::from_utf8(input).is_ok_and(|t| ErrorCode::parse(t).is_some()));
}

#[test]
fn trace_contexts() {
    let corpus = texts(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
    fuzz(&corpus, |input| std::str::from_utf8(input).is_ok_and(|text| longhaul_http::trace::parse(text).is_some()));
}
