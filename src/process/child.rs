//! One process that we started, and that never outlives us.
//!
//! It leads a process group of its own, so that Ctrl-C at a terminal reaches only us and we decide what the child gets.
//! The kernel sends it SIGKILL when the thread that spawned it ends, however that comes: so it must be spawned by a
//! thread that lives as long as the process, which the only thread of our runtime does.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A running process, or one that has ended. Killed on drop.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
}

impl Child {
    /// Starts a command and writes `input` to its standard input, which is closed then. A child that ends without
    /// reading it is no error here: how it ended says more.
    ///
    /// What a shell reports as 126 and 127 comes back as an error of the kinds `PermissionDenied` and `NotFound`.
    pub async fn spawn(mut command: Command, input: &[u8]) -> io::Result<Self> {
        die_with_us(&mut command);
        let mut inner = command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = inner.stdin.take() {
            match stdin.write_all(input).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        Ok(Self { inner })
    }

    /// Its process id; none when it has ended and was waited for.
    pub fn id(&self) -> Option<u32> {
        self.inner.id()
    }

    /// Waits until it ends, and says how. May be cancelled and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.inner.wait().await
    }

    /// Sends a signal to the process alone: what it has forked is its own business. To one that has ended it does
    /// nothing.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(|pid| kill_process(pid, signal))
    }

    /// Sends SIGKILL to the process and to all that it has forked.
    pub fn kill(&self) -> io::Result<()> {
        self.send(|pid| kill_process_group(pid, Signal::KILL))
    }

    /// The pid is surely still that of our child: it has one only until it is reaped.
    fn send(&self, to: impl FnOnce(Pid) -> rustix::io::Result<()>) -> io::Result<()> {
        let pid = self.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        match pid.map(to) {
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

#[expect(unsafe_code, reason = "the death signal can only be asked for between fork and exec")]
fn die_with_us(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that was gone before that line leaves nobody to send the signal.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(Errno::SRCH.into()),
        }
    };
    // SAFETY: two system calls, no allocation and no lock: fit for the time between fork and exec.
    unsafe { command.pre_exec(prepare) };
}
