//! The gateway against regions that say what the test tells them to.

mod breaking;
mod fake;
mod forwarding;
mod surfaces;
mod switching;
