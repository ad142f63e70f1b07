//! The subcommands: each observes, decides, acts, and nothing else.

pub mod acl;
pub mod bootstrap;
pub mod doctor;
pub mod drain;
pub mod evacuate;
pub mod install;
#[cfg(feature = "local")]
pub mod local;
pub mod probe;
pub mod rebalance;
pub mod run;
pub mod status;

mod password_file;
mod peers;
mod progress;
mod render;
mod rounds;
