//! Everything that reads what a peer, a user or a file says, fed with valid inputs that were damaged at random and with
//! random bytes. No input may panic, take long, or make its reader allocate more than a small multiple of its length.
//!
//! `LONGHAUL_FUZZ` sets how many inputs each reader gets (400 unless told), `LONGHAUL_SEED` what they are drawn from. A
//! failure prints the input, shrunk.

mod damage;
mod files;
mod messages;
mod pages;
mod texts;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use damage::damaged;
use peak_alloc::PeakAlloc;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a reader may allocate whatever its input is, bytes.
const HEAP_BASE: usize = 16 * 1024 * 1024;
/// What it may allocate besides for each byte of the input.
const HEAP_PER_BYTE: usize = 96;
/// How long one input may take.
const TIME_MAX: Duration = Duration::from_secs(2);

/// One reader is measured at a time.
static TURN: Mutex<()> = Mutex::new(());

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn runner() -> TestRunner {
    let cases = u32::try_from(setting("LONGHAUL_FUZZ", 400)).unwrap_or(u32::MAX);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&setting("LONGHAUL_SEED", 1).to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// Feeds a reader. It must take everything in the corpus itself (`reads` answers whether it did), and bear the rest.
#[track_caller]
fn fuzz(corpus: &[Vec<u8>], reads: impl Fn(&[u8]) -> bool) {
    for (number, valid) in corpus.iter().enumerate() {
        assert!(reads(valid), "input {number} of the corpus is not read: {}", String::from_utf8_lossy(valid));
    }
    let outcome = runner().run(&damaged(corpus), |input| measured(&input, &reads));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => {
            panic!("{reason}: {} bytes {:?}, as text {:?}", input.len(), input, String::from_utf8_lossy(&input))
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test outside of the program measures real time")]
fn measured(input: &[u8], reads: &impl Fn(&[u8]) -> bool) -> Result<(), TestCaseError> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = std::time::Instant::now();
    reads(input);
    let (took, peak) = (start.elapsed(), HEAP.peak_usage().saturating_sub(before));
    if took > TIME_MAX {
        return Err(TestCaseError::fail(format!("it took {took:?}")));
    }
    if peak > HEAP_BASE + HEAP_PER_BYTE * input.len() {
        return Err(TestCaseError::fail(format!("it allocated {peak} bytes")));
    }
    Ok(())
}

#[test]
fn a_reader_that_believes_a_length_is_caught() {
    let believes = |input: &[u8]| match input.first_chunk::<4>() {
        Some(length) => Vec::<u8>::with_capacity(u32::from_be_bytes(*length) as usize / 16).capacity() > 0,
        None => false,
    };
    let small = measured(&[0, 0, 1, 0], &believes);
    let lie = measured(&[255, 255, 255, 255], &believes);
    assert!(small.is_ok() && matches!(lie, Err(TestCaseError::Fail(reason)) if reason.message().contains("allocated")));
}
