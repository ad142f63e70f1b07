//! `valkeeper run` on real servers: what it tells them, how they end, and what is on disk afterwards.

#[path = "run/alone.rs"]
mod alone;
#[path = "run/aof.rs"]
mod aof;
#[path = "run/idle.rs"]
mod idle;
#[path = "run/input.rs"]
mod input;
#[path = "run/listen.rs"]
mod listen;
#[path = "run/stopping.rs"]
mod stopping;
#[path = "run/tools.rs"]
mod tools;
