//! Processes that we start, those that we inherit, and signals. The only module that spawns, signals and waits.

pub mod child;
pub mod reaper;
pub mod signals;

mod own;
pub mod version;
