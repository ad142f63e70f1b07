//! `valkeeper rebalance` and `valkeeper evacuate` on real servers, under clients that write and read without pause.

#[path = "rebalance/clients.rs"]
mod clients;
#[path = "rebalance/killed.rs"]
mod killed;
#[path = "rebalance/scaling.rs"]
mod scaling;
#[path = "rebalance/tools.rs"]
mod tools;
