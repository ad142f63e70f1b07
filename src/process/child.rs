//! One process that we started.
//!
//! It leads a process group of its own, so that Ctrl-C at a terminal reaches only us and we decide what the child gets.
//! It starts with no signal blocked and none ignored. The kernel tells it when the thread that spawned it ends, however
//! that comes: so it must be spawned by a thread that lives as long as the process, which the only thread of our
//! runtime does.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal as Disposable, signal};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::own;

/// How long a child may take to read its standard input. What a pipe holds, 64 KiB, is written at once.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// What becomes of a child whose owner ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOurDeath {
    /// SIGKILL: what it holds is worth nothing without us. Also when the value is dropped.
    Kill,
    /// SIGTERM: it saves and ends by its own rules. When only the value is dropped, nothing.
    Terminate,
}

/// A running process, or one that has ended.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    /// None once it was waited for: from then on the pid may be anybody's.
    pid: Option<Pid>,
}

/// What a child is to read on its standard input, and has not been given yet.
#[must_use = "the child waits for it"]
pub struct Input {
    pipe: Option<ChildStdin>,
    text: Vec<u8>,
}

impl Child {
    /// Starts a program, found as a shell would find it, with our environment but for the variables `withheld`, and our
    /// standard output and standard error.
    pub fn start(
        program: &OsString,
        args: &[OsString],
        withheld: &[&str],
        on_our_death: OnOurDeath,
        input: &[u8],
    ) -> io::Result<(Self, Input)> {
        let mut command = Command::new(program);
        command.args(args);
        for variable in withheld {
            command.env_remove(variable);
        }
        Self::spawn(command, on_our_death, input)
    }

    /// Starts a command. Without input its standard input is empty.
    ///
    /// What a shell reports as 126 and 127 comes back as an error, 127 as one of the kind `NotFound`.
    pub fn spawn(mut command: Command, on_our_death: OnOurDeath, input: &[u8]) -> io::Result<(Self, Input)> {
        prepare(&mut command, on_our_death);
        command.process_group(0).kill_on_drop(on_our_death == OnOurDeath::Kill);
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut inner = command.spawn()?;
        let pid = inner.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            own::add(pid.as_raw_pid());
        }
        let input = Input { pipe: inner.stdin.take(), text: input.to_owned() };
        Ok((Self { inner, pid }, input))
    }

    /// What it prints, where its standard output is a pipe; once.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.inner.stdout.take()
    }

    /// Its process id; none when it has ended and was waited for.
    pub fn id(&self) -> Option<Pid> {
        self.pid
    }

    /// Waits until it ends, and says how. May be cancelled and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = self.inner.wait().await;
        self.forget();
        ended
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

    fn send(&self, to: impl FnOnce(Pid) -> rustix::io::Result<()>) -> io::Result<()> {
        match self.pid.map(to) {
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    fn forget(&mut self) {
        if let Some(pid) = self.pid.take() {
            own::remove(pid.as_raw_pid());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Input {
    /// Writes it, and closes the standard input. A child that ends without reading it is no error here: how it ended
    /// says more. One that does not read in time is left with an open end: it must not take half for the whole.
    pub async fn give(mut self) -> io::Result<()> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        match timeout(READ_WITHIN, pipe.write_all(&self.text)).await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Ok(_) => Ok(()),
            Err(_) => {
                std::mem::forget(pipe);
                let message = format!("the program has not read its standard input within {READ_WITHIN:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        }
    }
}

/// The text may hold a password.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({} bytes)", self.text.len())
    }
}

#[expect(unsafe_code, reason = "the death signal and dispositions can only be set between fork and exec")]
fn prepare(command: &mut Command, on_our_death: OnOurDeath) {
    let parent = getpid();
    let death_signal = match on_our_death {
        OnOurDeath::Kill => Signal::KILL,
        OnOurDeath::Terminate => Signal::TERM,
    };
    let prepare = move || {
        // Until exec our own handlers are in force, and would swallow the death signal.
        for disposable in Disposable::iterator() {
            // SAFETY: no handler is installed. SIGKILL and SIGSTOP refuse, and are as they should be.
            let _ = unsafe { signal(disposable, SigHandler::SigDfl) };
        }
        SigSet::empty().thread_set_mask()?;
        set_parent_process_death_signal(Some(death_signal))?;
        // A parent that was gone before that line leaves nobody to send the signal.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(Errno::SRCH.into()),
        }
    };
    // SAFETY: system calls only, no allocation and no lock: fit for the time between fork and exec.
    unsafe { command.pre_exec(prepare) };
}
