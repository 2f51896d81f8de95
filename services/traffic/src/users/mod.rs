//! The users: each operation starts at its intended time, whatever happened to earlier ones.

mod answer;
mod live;
mod operation;
mod play;
mod session;

pub(crate) use answer::parse_dot;
pub(crate) use play::{Cast, Finished, Origin, Traces, play_edge};
