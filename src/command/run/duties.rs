//! What is done for a server beside letting it run.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Secret;
use crate::exit::Failure;
use crate::topology::supervise::{State, Verdict};

/// What is done for a server. Each runs as a task: an error or a panic in it is heard and never ends the supervision.
pub trait Duties: Send + Sync + 'static {
    /// Finds out whether and how the server may start. An error is final: the server does not start, and its exit code
    /// is ours.
    fn guard(self: Arc<Self>) -> impl Future<Output = Result<Start, Failure>> + Send;

    /// Hands over, saves, and as its last step tells the server to stop; ends early and soon when it is cut. An error
    /// says that nothing could be done, and the server gets SIGTERM.
    fn drain(self: Arc<Self>, cut: Cut) -> impl Future<Output = Result<Verdict, Failure>> + Send;

    /// Asks the heir of the server, which has just ended by itself, to take over.
    fn hand_over(self: Arc<Self>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whatever goes on from the first to the last moment: answers to probes, reconciliation.
    fn accompany(self: Arc<Self>, state: watch::Receiver<State>) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// How the server is to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// What the server is to read on standard input after its file and arguments.
    pub input: Option<Secret>,
    /// The variables of our environment that are not for the server: secrets, which anybody who can look at the process
    /// could read.
    pub withheld: &'static [&'static str],
}

/// Tells a drain that nobody waits for it any longer.
#[derive(Clone, Debug)]
pub struct Cut(watch::Receiver<bool>);

impl Cut {
    /// One, and what it is given with.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Is over when the drain is to end; may be cancelled and called again.
    pub async fn is_given(&mut self) {
        // Without a sender there is nobody left who waits.
        let _ = self.0.wait_for(|is_given| *is_given).await;
    }
}
