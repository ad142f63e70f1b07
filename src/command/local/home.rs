//! Where the nodes keep their data and logs: a directory that stays, or a temporary one.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use super::STATEFULSET;
use super::network::{Network, Prefix};
use crate::exit::{Exit, Failure};
use crate::files;

const LOCK: &str = ".valkeeper-local.lock";
const NODES_CONF: &str = "nodes.conf";

/// A directory with a directory for each node.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    keeping: Keeping,
}

#[derive(Debug)]
enum Keeping {
    /// It stays, and is ours as long as the file is open.
    Kept { _lock: File },
    /// It goes with us.
    Temporary(TempDir),
}

impl Home {
    /// Takes the directory, which is made if need be; without one, makes a temporary one.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        let Some(dir) = dir else {
            let dir = tempfile::Builder::new().prefix("valkeeper-local-").tempdir();
            let dir = dir.context("cannot make a temporary directory").map_err(|error| Exit::System.because(error))?;
            return Ok(Self { path: dir.path().to_owned(), keeping: Keeping::Temporary(dir) });
        };
        let opened = || {
            fs::create_dir_all(dir)?;
            let lock = files::private().truncate(false).read(true).write(true).open(dir.join(LOCK))?;
            Ok((fs::canonicalize(dir)?, lock))
        };
        let (path, mut lock) = opened().map_err(|error: io::Error| {
            Exit::Usage.because(anyhow::Error::new(error).context(format!("cannot use --data-dir {}", dir.display())))
        })?;
        take(&mut lock, &path)?;
        Ok(Self { path, keeping: Keeping::Kept { _lock: lock } })
    }

    /// Whether the data stays.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.keeping, Keeping::Kept { .. })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a node.
    pub(super) fn node(&self, ordinal: usize) -> PathBuf {
        self.path.join(format!("{STATEFULSET}-{ordinal}"))
    }

    /// The network that the cluster in here lived on.
    pub(super) fn network(&self) -> Option<Prefix> {
        network_of(&fs::read_to_string(self.node(0).join(NODES_CONF)).ok()?)
    }

    /// Gives the nodes in here their addresses on a network. Nothing is to be done where it is the one they had.
    ///
    /// They would find each other without this too. But their former addresses may be another local cluster's by now,
    /// which is why they are not to be had; and to that one we must not talk. Another port needs nothing like it: on
    /// our own network nobody else is.
    pub(super) fn move_to(&self, network: &Network) -> Result<(), Failure> {
        let to = network.prefix();
        for file in (0..network.nodes().count()).map(|ordinal| self.node(ordinal).join(NODES_CONF)) {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            let Some(from) = network_of(&text).filter(|from| *from != to) else {
                continue;
            };
            let moved = text.replace(&format!(" {from}"), &format!(" {to}"));
            files::replace(&file, &moved)
                .with_context(|| format!("cannot write {}", file.display()))
                .map_err(|error| Exit::System.because(error))?;
            tracing::debug!("{}: from {from}0 to {to}0", file.display());
        }
        Ok(())
    }

    /// Removes what is temporary.
    pub(super) fn close(self) -> Result<(), Failure> {
        let Keeping::Temporary(dir) = self.keeping else {
            return Ok(());
        };
        dir.close()
            .with_context(|| format!("cannot remove {}", self.path.display()))
            .map_err(|error| Exit::System.because(error))
    }
}

/// Locks the file and leaves our process id in it, for whoever comes second.
fn take(lock: &mut File, dir: &Path) -> Result<(), Failure> {
    match flock(&*lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let holder = lock.read_to_string(&mut holder).map(|_| holder).unwrap_or_default();
            return Err(Exit::Refused.saying(format!(
                "{} is in use by another valkeeper local, process {}: stop that one first, or name another --data-dir",
                dir.display(),
                holder.trim()
            )));
        }
        Err(error) => {
            let error = anyhow::Error::new(error).context(format!("cannot lock {}", dir.join(LOCK).display()));
            return Err(Exit::System.because(error));
        }
    }
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(|error| Exit::System.because(error))
}

/// The network of the node whose nodes.conf this is.
fn network_of(nodes_conf: &str) -> Option<Prefix> {
    let mut fields = nodes_conf.lines().map(|line| line.split(' ').skip(1));
    let address = fields.find_map(|mut fields| {
        let address = fields.next()?;
        fields.next()?.split(',').any(|flag| flag == "myself").then_some(address)
    })?;
    Prefix::of(address.split(':').next()?.parse::<Ipv4Addr>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_that_of_the_nodes_own_line() {
        let text = "a 127.1.1.1:6379@16379,,shard-id=1 master - 0 1 2 connected 0-5\n\
                    b 127.9.8.2:6379@16379,,shard-id=1 myself,slave a 0 0 2 connected\n\
                    vars currentEpoch 6 lastVoteEpoch 0\n";
        assert_eq!(network_of(text), Prefix::of(Ipv4Addr::new(127, 9, 8, 0)));
        assert_eq!(network_of("a :6379@16379 myself,master - 0 0 0 connected\n"), None);
        assert_eq!(network_of("a 10.0.0.1:6379@16379 myself,master - 0 0 0 connected\n"), None);
        assert_eq!(network_of(""), None);
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().ok();
        let path = dir.as_ref().map(TempDir::path);
        let first = Home::open(path);
        assert!(first.is_ok() && path.is_some());
        let second = Home::open(path).err();
        assert_eq!(second.map(|failure| failure.exit()), Some(Exit::Refused));
        drop(first);
        assert!(Home::open(path).is_ok());
    }
}
