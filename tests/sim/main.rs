//! The simulated world under test: whole testbeds in virtual time, thousands of failures from seeds.
//!
//! `LONGHAUL_SEEDS=N` runs N seeds of the whole world instead of 500; `LONGHAUL_SEED=N` runs that seed alone and prints
//! its timeline.

mod drills;
#[cfg(feature = "mutants")]
mod mutants;
mod seeds;

// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
