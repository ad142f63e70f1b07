//! `valkeeper run` keeps a cluster that stands in its shape: after any loss of addresses or disks it is whole again by
//! itself, with nobody's key lost, and with nobody else's node in it.

#[path = "keep/addresses.rs"]
mod addresses;
#[path = "keep/disks.rs"]
mod disks;
#[path = "keep/forming.rs"]
mod forming;
#[path = "keep/partition.rs"]
mod partition;
#[path = "keep/shapes.rs"]
mod shapes;
#[path = "keep/telling.rs"]
mod telling;
#[path = "keep/tools.rs"]
mod tools;
