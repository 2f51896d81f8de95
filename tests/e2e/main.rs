//! Whole testbeds: real processes, real sockets, links with real delay.

mod cluster;
mod drills;
mod lifecycle;
mod records;
mod transitions;
