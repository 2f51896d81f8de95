//! The gateway of an edge: routes users' requests to regions by mode, home, role and measured latency.
//!
//! A request passes `handlers` (read it), `forward` (route, try, wait, try again), `attempt` (one try
//! at one region) and comes back. What may be sent where is `longhaul_core::routing`; what may be sent again is
//! [`retry`]; how much is [`breaker`] and [`shed`].
//!
//! **Invariants.** The gateway works from its own view of the regime and needs nobody's permission to serve. It never
//! turns an unknown outcome into a failure. It reads nothing in a body, and no record's id reaches its logs, traces or
//! metrics.

mod attempt;
pub mod balance;
pub mod breaker;
pub mod config;
mod counters;
mod exchange;
mod forward;
mod gateway;
mod handlers;
mod health;
mod latency;
mod metrics;
mod region;
pub mod retry;
mod run;
pub mod shed;
pub mod view;

pub use config::GatewayConfig;
pub use run::{GatewayDeps, RunError, openapi, run};
