//! Chaos on real processes: regions die at chosen places in the code, are stopped, lose or are given back old disks,
//! and their links fail, while users are served. The oracle judges every run by what the users saw.
//!
//! Needs the feature `failpoints`; each test has a testbed of its own and takes it through several cases.

#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../e2e/cluster.rs"]
mod cluster;
mod disks;
mod links;
mod processes;
mod switchover;
mod testbed;
mod votes;
mod write_path;
