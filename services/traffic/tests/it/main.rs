//! The traffic role through its HTTP API, against a scripted testbed on loopback: what the script does wrong must come
//! out of the judgement, counted exactly, and nothing else may.

mod parts;
mod runs;
mod testbed;
