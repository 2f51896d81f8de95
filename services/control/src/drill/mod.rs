//! Drills: from a plan to a verdict.
//!
//! The verdict comes from what clients saw (the ledger, judged by the traffic role) and from what was measured (the
//! link certificate): never from what a server says about itself.

mod assemble;
mod book;
mod certificate;
mod engine;
mod evidence;
mod expect;
mod plan;
mod prepare;

pub(crate) use book::{DrillBook, status, summaries};
pub(crate) use plan::plan_of;
