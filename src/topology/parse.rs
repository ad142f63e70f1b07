//! Reads what the server says. The only place that knows the server's own words for primary and replica.
//!
//! Unknown flags, fields and sections are passed over, so that a newer server stays readable. A line whose meaning is
//! not certain is an error: to overlook a line that names slots would make them look free.

mod aof;
mod config;
mod info;
mod nodes;
mod rdb;
mod words;

pub use aof::{AofFile, AofKind, manifest};
pub use config::{
    Arguments, BadLine, Directive, PRIMARY_AUTH, PRIMARY_USER, SavePoint, ServerConfig, directive, directives,
};
pub use info::{ClusterInfo, Info, ReplicaLink, Replication};
pub use nodes::{nodes, nodes_conf};
pub use rdb::{RdbFormat, RdbHead, RdbMagic};

/// A text of the server that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {what}: {line:?}")]
pub struct Unreadable {
    what: &'static str,
    line: String,
}

impl Unreadable {
    fn new(what: &'static str, line: &str) -> Self {
        const SHOWN: usize = 160;
        Self { what, line: line.chars().take(SHOWN).collect() }
    }
}
