//! What a drain leaves beside the data: its report, and a lock while it runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files;
use crate::topology::drain::DrainReport;

const REPORT: &str = "valkeeper-drain.json";
const LOCK: &str = "valkeeper-drain.lock";

/// A drain that has just ended, as that of a hook before SIGTERM has. One grace period holds both.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// How long ago it began.
    pub began: Duration,
    /// Whether everything was done, and clients were given the time to notice.
    pub is_clean: bool,
}

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

/// The drain that ended right before this moment in this directory, as part of a grace period. Where the clock has jumped
/// meanwhile, or where it had more time than that, there is none, and everything is done as if for the first time.
pub fn just_before(dir: &Path, grace: Duration) -> Option<Before> {
    /// Longer than it takes from the end of a hook to SIGTERM.
    const MOMENT: Duration = Duration::from_secs(3);
    let path = dir.join(REPORT);
    let ended = fs::metadata(&path).ok()?.modified().ok()?.elapsed().ok()?;
    if ended > MOMENT {
        return None;
    }
    let report: DrainReport = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
    if Duration::from_millis(report.grace_ms) > grace {
        return None;
    }
    Some(Before {
        began: ended + Duration::from_millis(report.used_ms),
        is_clean: report.outcome == DrainReport::CLEAN,
    })
}
