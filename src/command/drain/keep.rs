//! What a drain leaves beside the data: its report, and a lock while it runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files;
use crate::topology::drain::DrainReport;

const REPORT: &str = "valkeeper-drain.json";
const LOCK: &str = "valkeeper-drain.lock";

/// That nobody else drains this server; as long as the value lives.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: File,
}

impl Turn {
    /// Takes it, unless somebody else has it.
    pub(super) fn take(dir: &Path) -> io::Result<Option<Self>> {
        let lock = files::private().truncate(false).write(true).open(dir.join(LOCK))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Keeps a report. A full disk, for one, may prevent it, which is no reason to fail.
pub(super) fn report(dir: &Path, report: &DrainReport) {
    let path = dir.join(REPORT);
    let write = || {
        files::replace(&path, &(serde_json::to_string(report)? + "\n"))?;
        anyhow::Ok(())
    };
    if let Err(error) = write().with_context(|| format!("cannot keep the report in {}", path.display())) {
        tracing::warn!("{error:#}");
    }
}

/// The report of the last drain in this directory. It is told once: what comes after the next start is news.
pub fn take_report(dir: &Path) -> Option<DrainReport> {
    let path = dir.join(REPORT);
    let report = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
    fs::remove_file(path).ok()?;
    Some(report)
}
