//! Processes that nobody waits for: a process that has lost its parent becomes ours, and stays in the process table
//! when it ends until we take its exit status.
//!
//! `waitpid(-1)` is never called: it takes whatever status comes first, also that of a child of ours, whose end would
//! never be known then. We look who has ended without taking anything, and take what is not ours. The kernel always
//! shows the same process first; when that is one of ours, everybody behind it waits until it was waited for.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal as Kill, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::own;

/// So many are reaped before the rest of the program has its turn.
const BATCH: usize = 256;
/// We look again after so long when a child of ours has ended that is slow to be waited for.
const AGAIN: Duration = Duration::from_millis(100);
/// So long we stay at our own end for orphans that were killed: a part of the half second that the grace period leaves
/// after a kill.
const FAREWELL: Duration = Duration::from_millis(400);

/// Reaps what loses its parent below us.
#[derive(Debug)]
pub struct Reaper {
    ends: Signal,
}

/// What a look has come to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Nobody who has ended is left.
    Nobody,
    /// There may be more.
    More,
    /// One of ours is in front.
    Ours,
}

impl Reaper {
    /// Makes us the parent of whatever loses its own below us, which process 1 is without asking.
    pub fn new() -> io::Result<Self> {
        let ends = signal(SignalKind::child())?;
        if getpid() != Pid::INIT
            && let Err(error) = set_child_subreaper(Some(getpid()))
        {
            tracing::warn!("processes that lose their parent go to process 1 instead of us: {error}");
        }
        Ok(Self { ends })
    }

    /// Reaps for ever; may be cancelled and called again.
    pub async fn run(&mut self) -> Infallible {
        loop {
            match look() {
                Look::More => yield_now().await,
                // An error is the end of the time, and we look again.
                Look::Ours => drop(timeout(AGAIN, own::WAITED_FOR.notified()).await),
                // One signal may stand for many ends.
                Look::Nobody => tokio::select! {
                    _ = self.ends.recv() => {}
                    () = own::WAITED_FOR.notified() => {}
                },
            }
        }
    }

    /// Kills the orphans there are and stays until they have ended, as the kernel does when a process 1 ends. One that
    /// still saved for a server that is gone would replace what the next one has saved.
    pub async fn end_orphans(&mut self) {
        let mut killed = BTreeSet::new();
        let all_gone = async {
            loop {
                // The children of one that ends are ours from then on.
                let orphans = orphans();
                if orphans.is_empty() {
                    break;
                }
                for pid in orphans.into_iter().filter(|pid| killed.insert(*pid)) {
                    tracing::debug!(pid, "kills an orphan");
                    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Kill::KILL));
                }
                drop(timeout(AGAIN, self.ends.recv()).await);
                while look() == Look::More {}
            }
        };
        if timeout(FAREWELL, all_gone).await.is_err() {
            tracing::warn!("processes that the server has left behind were killed and have not ended: {killed:?}");
        }
    }
}

fn look() -> Look {
    for _ in 0..BATCH {
        match first_ended() {
            None => return Look::Nobody,
            Some(pid) if own::contains(pid.as_raw_pid()) => return Look::Ours,
            Some(pid) => match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => tracing::debug!(pid = pid.as_raw_pid(), "reaped an orphan ({status:?})"),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return Look::Ours,
            },
        }
    }
    Look::More
}

/// Every child that we have not started; none where the kernel does not tell (it is built without PROC_CHILDREN).
fn orphans() -> Vec<i32> {
    // An orphan is given to any of our threads.
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = |list: String| -> Vec<i32> { list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect() };
    lists.flat_map(pids).filter(|pid| !own::contains(*pid)).collect()
}

/// A child that has ended; it stays as it is.
#[expect(unsafe_code, reason = "rustix hides the pid, and nix fails where a real-time signal ended the process")]
fn first_ended() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: plain data, for which all zeros are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `siginfo_t`, which we own.
    let found = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    // SAFETY: the kernel sets the pid of whom it found, and zero for nobody.
    let pid = if found == 0 { unsafe { info.si_pid() } } else { 0 };
    Pid::from_raw(pid)
}
