//! Processes that we start, those that we inherit, signals, and what of ours nobody may see. The only module that
//! spawns, signals and waits.

pub mod child;
pub mod memory;
pub mod reaper;
pub mod signals;

mod own;
pub mod version;
