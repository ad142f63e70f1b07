//! What a drain waits for, as the log tells it.

use std::fmt;
use std::time::Duration;

use crate::topology::membership::Label;
use crate::topology::observation::Silence;

/// What a drain waits for: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The server does not answer.
    Server(Silence),
    /// Slots are on their way to another node.
    Migration,
    /// No replica can take over yet.
    Heir(String),
    /// A replica was asked.
    TakingOver(Label),
    /// The node is to follow its heir.
    Following(Label),
    /// A child that is in the way of our save.
    OtherChild,
    /// A save runs.
    Saving {
        /// Whether it was begun for somebody else: for a replica, or before our wish. Another one has to follow.
        foreign: bool,
        /// How far it is.
        percent: u64,
        /// How long it will still take.
        eta: Option<Duration>,
        /// How much time is left for it.
        left: Duration,
    },
    /// A save failed, and is tried again.
    SaveFailed {
        /// How many writes are not on disk.
        changes: u64,
        /// How much time is left.
        left: Duration,
    },
    /// The append-only file is being written.
    Syncing,
    /// The append-only file cannot be written.
    SyncFailed {
        /// How much time is left.
        left: Duration,
    },
    /// Clients are to notice.
    Settling,
    /// The server does not stop yet.
    Stopping(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(silence) => write!(f, "waiting for the server, which {silence}"),
            Self::Migration => f.write_str("waiting for slots that are on their way to another node"),
            Self::Heir(why) => write!(f, "waiting for a replica that can take over: {why}"),
            Self::TakingOver(heir) => write!(f, "{heir} takes over"),
            Self::Following(heir) => write!(f, "waiting to follow {heir}"),
            Self::OtherChild => f.write_str("waiting to save until another child of the server has ended"),
            Self::Saving { foreign, percent, eta, left } => {
                let whose =
                    if *foreign { "waiting for a save that others began, or a copy to a replica" } else { "saving" };
                write!(f, "{whose}: {percent} %")?;
                match eta {
                    Some(eta) if eta > left => write!(
                        f,
                        ", {:.0} s to go, but only {:.0} s of the grace period are left: it will not be complete; set \
                         terminationGracePeriodSeconds and --grace-period higher",
                        eta.as_secs_f64().ceil(),
                        left.as_secs_f64()
                    ),
                    Some(eta) => write!(f, ", {:.0} s to go", eta.as_secs_f64().ceil()),
                    None => Ok(()),
                }
            }
            Self::SaveFailed { changes, left } => write!(
                f,
                "the save failed, see the server's log: is the disk full, or memory short? {changes} writes are not on disk; \
                 trying again for {:.0} s",
                left.as_secs_f64()
            ),
            Self::Syncing => f.write_str("waiting until the append-only file is on disk"),
            Self::SyncFailed { left } => write!(
                f,
                "the append-only file cannot be written, see the server's log: is the disk full? Trying again for {:.0} s",
                left.as_secs_f64()
            ),
            Self::Settling => f.write_str("waiting for clients to notice"),
            Self::Stopping(why) => write!(f, "the server does not stop yet: {why}"),
        }
    }
}

impl Waiting {
    /// Whether somebody should look now rather than later.
    pub fn is_alarming(&self) -> bool {
        match self {
            Self::SaveFailed { .. } | Self::SyncFailed { .. } => true,
            Self::Saving { eta: Some(eta), left, .. } => eta > left,
            _ => false,
        }
    }
}
