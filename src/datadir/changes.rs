//! Notice of a file that is replaced: nodes.conf is, whenever what the server knows of the cluster changes.
//!
//! The file is looked at, ten times a second. The kernel would tell of it, too (inotify); but to close such a watch waits
//! for the kernel's own housekeeping, for half a minute on a busy machine, and whoever has one open cannot end before.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

const OFTEN: Duration = Duration::from_millis(100);

/// A file, as it was when it was last looked at.
#[derive(Debug)]
pub struct Changes {
    file: PathBuf,
    seen: Option<Identity>,
}

/// A server writes another file and gives it the name of the old one: so it is another one, or a later one.
type Identity = (u64, i64, i64);

impl Changes {
    /// Changes of this file from now on; it need not be there yet.
    pub fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), seen: identity(file) }
    }

    /// Waits until the file has been replaced, once or more, since this was asked last. Nothing is lost when it is
    /// dropped.
    pub async fn next(&mut self) {
        loop {
            let now = identity(&self.file);
            if now != self.seen {
                self.seen = now;
                return;
            }
            sleep(OFTEN).await;
        }
    }
}

fn identity(file: &Path) -> Option<Identity> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_made_or_replaced_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nodes.conf");
        let mut changes = Changes::of(&file);
        for text in ["made", "replaced"] {
            assert!(timeout(OFTEN * 3, changes.next()).await.is_err());
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &file).unwrap();
            assert!(timeout(OFTEN * 3, changes.next()).await.is_ok());
        }
    }
}
