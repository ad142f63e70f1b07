//! The guarded start: what is on the disk of a node that is not running yet, and whether to start over it.
//!
//! A restarted server serves what its disk holds, and its replicas copy that, however old or empty it is. So before it
//! starts, its directory is inspected ([`inspect`]), and a replica that holds more is asked to take over
//! ([`decide`], [`decide_blank`]); then the server comes back as a replica of that one.

mod addresses;
mod guard;
mod inspect;
mod shard_ids;

use std::path::PathBuf;
use std::time::Duration;

use super::node::{NodeEntry, NodeId};
use super::parse::{RdbFormat, ServerConfig};

pub use addresses::{are_outdated, with_addresses_of_pods};
pub use guard::{Attempts, Former, Heard, Known, Said, StartDecision, decide, decide_blank, is_address_copied_by};
pub use inspect::{StartRefusal, inspect};
pub use shard_ids::with_shard_ids_of_primaries;

/// A nodes.conf as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// All of the file.
    pub text: String,
    /// The nodes whose lines are other ones now.
    pub nodes: Vec<NodeId>,
}

/// What was found where the configuration says that the data is.
#[derive(Clone, Debug)]
pub struct OnDisk {
    /// What the server last knew of the cluster.
    pub nodes_conf: NodesConf,
    /// The RDB file.
    pub rdb: Option<DataFile>,
    /// The append-only files, taken together.
    pub aof: Option<DataFile>,
}

/// The server's nodes.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodesConf {
    /// There is none, or it is empty, which is the same to the server.
    Missing,
    /// Its nodes.
    Nodes(Vec<NodeEntry>),
    /// It cannot be read; the server would not start either.
    Unreadable {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl NodesConf {
    /// The same with every node where it speaks TLS.
    pub fn over_tls(self) -> Self {
        match self {
            Self::Nodes(mut nodes) => {
                nodes.iter_mut().for_each(|node| node.port = node.tls_port.unwrap_or(node.port));
                Self::Nodes(nodes)
            }
            other => other,
        }
    }
}

/// A file with data, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The file; of the append-only files their list.
    pub path: PathBuf,
    /// How many bytes.
    pub size: u64,
    /// For how long it has not changed. For an RDB file since the server began to write it, as what is in it is as old.
    /// None where the clock does not tell: it lies in the future.
    pub age: Option<Duration>,
    /// The format where it is an RDB file, or begins with one.
    pub format: Option<RdbFormat>,
    /// Whether it surely holds nothing.
    pub empty: bool,
}

impl OnDisk {
    /// What the server reads when it starts: the append-only files where they are on, else the RDB file. Where they are
    /// on and missing, the RDB file is what they are made from.
    pub fn loaded(&self, config: &ServerConfig) -> Option<&DataFile> {
        match config.appendonly() {
            true => self.aof.as_ref().or(self.rdb.as_ref()),
            false => self.rdb.as_ref(),
        }
    }
}
