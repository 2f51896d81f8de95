//! Whole testbeds: real processes, real sockets, links with real delay.

mod cluster;
mod drills;
mod lifecycle;
mod readme;
mod records;
mod transitions;
