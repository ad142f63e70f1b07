//! `valkeeper drain` on real servers: what is handed over, what is saved, and what a restart finds.

#[path = "drain/alone.rs"]
mod alone;
#[path = "drain/shards.rs"]
mod shards;
#[path = "drain/tools.rs"]
mod tools;
