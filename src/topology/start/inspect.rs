//! What the server would ignore, delete or not understand: then it is not started.

use std::fmt;
use std::path::PathBuf;

use super::{NodesConf, OnDisk};
use crate::topology::parse::{RdbFormat, RdbMagic, ServerConfig};
use crate::topology::version::Version;

/// Why the server is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRefusal {
    /// nodes.conf cannot be read: the server would not start.
    NodesConfUnreadable {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The server would claim the slots of its keys, and delete the keys of slots that others own
    /// (`verifyClusterConfigWithData` in `cluster_legacy.c`).
    DataWithoutNodesConf {
        /// The data.
        data: PathBuf,
        /// What is missing.
        nodes_conf: PathBuf,
    },
    /// The server would read the append-only file that is not there, and start with no key.
    RdbWithoutAof {
        /// The data.
        rdb: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The server would pass over the append-only files, which hold the only data.
    AofIgnored {
        /// The data.
        aof: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The server does not know the format.
    ForeignRdb {
        /// The data.
        file: PathBuf,
        /// Its format.
        format: RdbFormat,
        /// What the server runs.
        server: Version,
    },
}

/// Whether the server may start over this directory. An unknown version of the server is not judged.
pub fn inspect(
    disk: &OnDisk,
    config: &ServerConfig,
    server: Option<Version>,
    aof_from_rdb: bool,
) -> Result<(), StartRefusal> {
    let data = disk.loaded(config).filter(|data| !data.empty);
    if config.cluster_enabled() {
        match (&disk.nodes_conf, data) {
            (NodesConf::Unreadable { line, why }, _) => {
                return Err(StartRefusal::NodesConfUnreadable {
                    file: config.nodes_conf(),
                    line: *line,
                    why: why.clone(),
                });
            }
            (NodesConf::Missing, Some(data)) => {
                return Err(StartRefusal::DataWithoutNodesConf {
                    data: data.path.clone(),
                    nodes_conf: config.nodes_conf(),
                });
            }
            _ => {}
        }
    }
    if let (true, false, None, Some(rdb)) = (config.appendonly(), aof_from_rdb, &disk.aof, data) {
        return Err(StartRefusal::RdbWithoutAof { rdb: rdb.path.clone(), size: rdb.size });
    }
    if let (false, None, Some(aof)) = (config.appendonly(), data, disk.aof.as_ref().filter(|aof| !aof.empty)) {
        return Err(StartRefusal::AofIgnored { aof: aof.path.clone(), size: aof.size });
    }
    // An empty file of a format that the server does not know stops it as well.
    match (disk.loaded(config), server) {
        (Some(data), Some(server)) => match data.format {
            Some(format) if !reads(server, format, config.reads_any_rdb()) => {
                Err(StartRefusal::ForeignRdb { file: data.path.clone(), format, server })
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What each server reads, as measured (`rdbIsVersionAccepted` in `rdb.h`).
fn reads(server: Version, format: RdbFormat, relaxed: bool) -> bool {
    /// The last version that Valkey and Redis share.
    const SHARED: u16 = 11;
    /// The first of Valkey's own; those between are Redis'.
    const OWN: u16 = 80;
    match (server.major, server.minor, format.magic) {
        (7, 2, RdbMagic::Redis) | (8, 0 | 1, RdbMagic::Redis) => format.version <= SHARED,
        (7, 2, RdbMagic::Valkey) | (8, 0, RdbMagic::Valkey) => false,
        (8, 1, RdbMagic::Valkey) => relaxed || format.version <= SHARED,
        (9, 0 | 1, RdbMagic::Redis) => format.version <= SHARED || (relaxed && format.version < OWN),
        (9, 0 | 1, RdbMagic::Valkey) => format.version == OWN || (relaxed && format.version > OWN),
        _ => true,
    }
}

impl StartRefusal {
    /// What a human can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NodesConfUnreadable { file, .. } => format!(
                "put a good copy of {0} back; if there is none and this node's data is not needed here, move {0} and the \
                 data away, and the node joins as an empty one",
                file.display()
            ),
            Self::DataWithoutNodesConf { data, nodes_conf } => format!(
                "put {} back; or, if the data is not needed here, move {} away, and the node joins as an empty one",
                nodes_conf.display(),
                data.display()
            ),
            Self::RdbWithoutAof { .. } => {
                "say `--aof-from-rdb`, and the append-only file is made from the RDB file once \
                 the server runs; or set `appendonly no`; or, if the data is not needed, move the RDB file away"
                    .to_owned()
            }
            Self::AofIgnored { .. } => {
                "set `appendonly yes`; or, if the data is not needed, move the append-only files away".to_owned()
            }
            Self::ForeignRdb { file, format, .. } => match format.magic {
                RdbMagic::Valkey => format!(
                    "run the release of Valkey that wrote {} or a newer one; or move the data away, and the node joins as \
                     an empty one",
                    file.display()
                ),
                RdbMagic::Redis => format!(
                    "run what wrote {} (Redis 7.4 or newer writes REDIS0012 and higher), and move the keys over with \
                     `valkey-cli --cluster import` or MIGRATE; from 9.0 on, `rdb-version-check relaxed` makes the server try",
                    file.display()
                ),
            },
        }
    }
}

impl fmt::Display for StartRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodesConfUnreadable { file, line, why } => {
                write!(f, "{} line {line}: {why}; the server would not start", file.display())
            }
            Self::DataWithoutNodesConf { data, nodes_conf } => write!(
                f,
                "there is data in {} and no {}: the server would claim the slots of its keys, and delete every key whose \
                 slot another node owns",
                data.display(),
                nodes_conf.display()
            ),
            Self::RdbWithoutAof { rdb, size } => write!(
                f,
                "appendonly is on, there is no append-only file, and the data is in {} ({size} bytes): the server would \
                 ignore it and start with no key",
                rdb.display()
            ),
            Self::AofIgnored { aof, size } => write!(
                f,
                "appendonly is off, and the only data is in {} ({size} bytes): the server would ignore it and start with no \
                 key",
                aof.display()
            ),
            Self::ForeignRdb { file, format, server } => {
                write!(f, "{} has the format {format}, which Valkey {server} does not read", file.display())
            }
        }
    }
}
