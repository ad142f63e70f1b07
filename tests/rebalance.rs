//! `valkeeper rebalance` and `valkeeper evacuate` on real servers, under clients that write and read without pause.

#[path = "rebalance/clients.rs"]
mod clients;
#[path = "rebalance/halfway.rs"]
mod halfway;
#[path = "rebalance/killed.rs"]
mod killed;
#[path = "rebalance/leaving.rs"]
mod leaving;
#[path = "rebalance/pace.rs"]
mod pace;
#[path = "rebalance/scaling.rs"]
mod scaling;
#[path = "rebalance/targets.rs"]
mod targets;
#[path = "rebalance/together.rs"]
mod together;
#[path = "rebalance/tools.rs"]
mod tools;
