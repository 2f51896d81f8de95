//! The regional data service: records API, group-commit writer, replication, votes and the region's part in every
//! change of the regime.

pub mod store;
