//! Whole testbeds: real processes, real sockets, links with real delay.

#[allow(dead_code, reason = "shared with the chaos tests")]
mod cluster;
mod collector;
mod drill;
mod drills;
mod lifecycle;
mod readme;
mod records;
mod simulate;
mod traces;
mod transitions;
