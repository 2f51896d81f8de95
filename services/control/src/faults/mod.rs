//! Faults: injecting them, verifying that they took effect, healing them, and remembering each.

mod book;
mod describe;
mod inject;
mod resolve;

pub(crate) use book::FaultBook;
pub(crate) use describe::{changes_regime, describe, heals, kind, place};
pub(crate) use inject::Acted;
pub(crate) use resolve::Roles;
