//! The world of containers: each role is a container, each location a network and process namespace of its own, held by
//! the location's agent. Every role finds its place from the topology and its environment ([`Site`]).

mod admission;
mod agent;
mod collector;
mod configs;
mod control;
mod health;
mod links;
mod places;
mod processes;
mod site;
mod world;

pub(crate) use admission::admitted;
pub(crate) use agent::run as agent;
pub(crate) use collector::answers as collector_answers;
pub(crate) use configs::{gateway, region, traffic};
pub(crate) use control::run as control;
pub(crate) use health::run as health;
pub(crate) use site::Site;
