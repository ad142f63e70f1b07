//! Notice of files that are replaced: nodes.conf is, whenever what the server knows of the cluster changes.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::net::unix::pipe::Receiver;

/// A directory, watched at no cost while its files stay as they are.
#[derive(Debug)]
pub struct Changes {
    /// The kernel's notices are read like a pipe.
    notices: Receiver,
}

impl Changes {
    /// Watches the directory that this file is in, or is going to be in.
    pub fn beside(file: &Path) -> io::Result<Self> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let kernel = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A server writes another file and gives it the name of the old one. Data that is written in place is no notice.
        add_watch(&kernel, dir, WatchFlags::MOVED_TO)?;
        Ok(Self { notices: Receiver::from_owned_fd_unchecked(kernel)? })
    }

    /// Waits until a file has been replaced, once or more, since this was asked last. Nothing is lost when it is dropped.
    pub async fn next(&self) -> io::Result<()> {
        // What was replaced is not looked at: snapshots are rare beside what a look costs.
        let mut unread = [0; 4096];
        loop {
            self.notices.readable().await?;
            match self.notices.try_read(&mut unread) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
