//! Wire types: what services say to each other and to people. One file per resource.

pub mod control;
pub mod drills;
pub mod faults;
pub mod gateway;
pub mod links;
pub mod location;
pub mod probe;
pub mod records;
pub mod regime;
pub mod status;
pub mod traffic;
