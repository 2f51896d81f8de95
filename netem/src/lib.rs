//! Links between locations: the kernel plan, the userspace relay, the role that serves and changes them, and the proof
//! that each link is as declared.
//!
//! All drivers follow one profile (`longhaul_core::link::LinkProfile`) and one suite of behaviour ([`conformance`]).

pub mod agent;
pub mod certificate;
pub mod conformance;
mod metrics;
pub mod plan;
pub mod probe;
pub mod relay;
pub mod tc;
