//! The signals that are ours. None is lost: they are blocked from the first line of the program until somebody listens.
//!
//! The kernel drops what process 1 of a container has no handler for, and any other process would die of it. A blocked
//! signal waits instead.

use std::io;

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// What `run` handles.
const HANDLED: [Blocked; 8] = [
    Blocked::SIGTERM,
    Blocked::SIGINT,
    Blocked::SIGQUIT,
    Blocked::SIGHUP,
    Blocked::SIGUSR1,
    Blocked::SIGUSR2,
    Blocked::SIGWINCH,
    Blocked::SIGCHLD,
];

/// A signal for `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks us to stop.
    Stop,
    /// It is the server's business.
    Forward(Signal),
}

/// Hears the signals that `run` handles.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
    user1: unix::Signal,
    user2: unix::Signal,
    window: unix::Signal,
}

/// Lets signals wait until [`unblock`]. The first thing that a program does, while it has one thread.
pub fn block() -> io::Result<()> {
    Ok(HANDLED.into_iter().collect::<SigSet>().thread_block()?)
}

/// Lets all signals in, also those that whoever started us has blocked: children inherit what we block.
pub fn unblock() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Stops as if somebody had asked us to.
pub fn stop_ourselves() -> io::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::getpid(), Blocked::SIGTERM)?)
}

impl Signals {
    /// Begins to listen; needs the runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    /// The next signal; may be cancelled and called again. The same signal twice at once is one.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.quit.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::Forward(Signal::HUP),
            _ = self.user1.recv() => Heard::Forward(Signal::USR1),
            _ = self.user2.recv() => Heard::Forward(Signal::USR2),
            _ = self.window.recv() => Heard::Forward(Signal::WINCH),
        }
    }
}
