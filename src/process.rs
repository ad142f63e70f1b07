//! Processes that we start. The only module that spawns, signals and waits.

pub mod child;
pub mod version;
