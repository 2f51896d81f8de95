//! The embedded testbed: the roles as child processes on loopback, links in userspace, stores in SQLite files.

mod child;
mod configs;
mod data;
mod layout;
mod ports;
mod stores;
mod testbed;
mod world;

pub(crate) use configs::{LinkRole, Plan, RoleFile, TrafficRole};
pub(crate) use layout::Layout;
pub(crate) use testbed::{Start, Testbed};
