//! The one thing that is changed on the disk before a server starts.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{DataDirError, failed, if_there};
use crate::files;
use crate::topology::node::NodeId;
use crate::topology::start::with_shard_ids_of_primaries;

/// Makes a nodes.conf readable to a server that insists on one shard id in each shard; says whose were changed.
///
/// A running server keeps its file locked, as two that share a directory would spoil it: such a file is left alone.
pub fn mend_shard_ids(nodes_conf: &Path) -> Result<Vec<NodeId>, DataDirError> {
    let Some(file) = if_there(File::open(nodes_conf), nodes_conf)? else { return Ok(Vec::new()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Vec::new());
    }
    // A file that is not text is refused by whoever reads it next.
    let Ok(text) = String::from_utf8(fs::read(nodes_conf).map_err(failed(nodes_conf))?) else { return Ok(Vec::new()) };
    let Some(mended) = with_shard_ids_of_primaries(&text) else { return Ok(Vec::new()) };
    files::replace(nodes_conf, &mended.text)
        .map_err(|source| DataDirError::Write { file: nodes_conf.to_owned(), source })?;
    Ok(mended.replicas)
}
