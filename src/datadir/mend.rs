//! What is changed on the disk before a server starts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{DataDirError, failed, is_not_there};
use crate::files;
use crate::topology::identity::PodName;
use crate::topology::node::NodeId;
use crate::topology::start::{Mended, with_addresses_of_pods, with_shard_ids_of_primaries};

/// Makes a nodes.conf readable to a server that insists on one shard id in each shard; says whose were changed.
pub fn mend_shard_ids(nodes_conf: &Path) -> Result<Vec<NodeId>, DataDirError> {
    mend(nodes_conf, with_shard_ids_of_primaries)
}

/// Gives the other nodes of a nodes.conf the addresses that their pods have by now; says whose were changed.
pub fn mend_addresses(
    nodes_conf: &Path,
    own: SocketAddr,
    pods: &BTreeMap<PodName, SocketAddr>,
) -> Result<Vec<NodeId>, DataDirError> {
    mend(nodes_conf, |text| with_addresses_of_pods(text, own, pods))
}

/// A running server keeps its file locked, as two that share a directory would spoil it: such a file is left alone.
fn mend(nodes_conf: &Path, mended: impl Fn(&str) -> Option<Mended>) -> Result<Vec<NodeId>, DataDirError> {
    let failed_to_write = |source| DataDirError::Write { file: nodes_conf.to_owned(), source };
    // As the server does, which would end over a file that it cannot write.
    let file = match File::options().read(true).append(true).open(nodes_conf) {
        Ok(file) => file,
        Err(error) if is_not_there(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed_to_write(error)),
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Vec::new());
    }
    // A file that is not text is refused by whoever reads it next.
    let Ok(text) = String::from_utf8(fs::read(nodes_conf).map_err(failed(nodes_conf))?) else { return Ok(Vec::new()) };
    let Some(mended) = mended(&text) else { return Ok(Vec::new()) };
    files::replace(nodes_conf, &mended.text).map_err(failed_to_write)?;
    Ok(mended.nodes)
}
