//! Forms and keeps a Valkey Cluster from inside its pods. See ARCHITECTURE.md for the map.

pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod datadir;
pub mod discovery;
pub mod exit;
pub mod files;
pub mod observer;
pub mod process;
pub mod telemetry;
pub mod tls;
pub mod topology;
pub mod valkey;
