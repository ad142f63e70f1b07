//! What is asked of one server when pods come and go.

use std::fmt;
use std::time::Duration;

/// One command to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Mark it as leaving, for all to see: CONFIG SET cluster-replica-no-failover yes.
    MarkLeaving,
    /// CLUSTER CANCELSLOTMIGRATIONS.
    CancelMigrations,
    /// CLUSTER FAILOVER, to a replica: its primary holds writes back until both are even. Sent again it begins anew.
    TakeOver,
    /// CLUSTER FAILOVER FORCE, to a replica whose primary is dead.
    TakeOverFromDead,
    /// CLIENT PAUSE WRITE for so long.
    PauseWrites(Duration),
    /// CLIENT UNPAUSE.
    ResumeWrites,
    /// CONFIG SET stop-writes-on-bgsave-error.
    GuardWrites(bool),
    /// BGSAVE.
    Save,
    /// BGSAVE SCHEDULE: as soon as the child that is in the way has ended.
    SaveLater,
    /// SHUTDOWN NOSAVE NOW; with `force`, whatever may be in the way.
    Shutdown {
        /// Also while it writes its first append-only file.
        force: bool,
    },
    /// CONFIG SET shutdown-on-sigterm failover, since 9.0: the net for the case that nobody else hands over.
    HandOverOnSigterm,
    /// CONFIG SET appendonly yes.
    AppendOnly,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkLeaving => f.write_str("mark as leaving"),
            Self::CancelMigrations => f.write_str("cancel slot migrations"),
            Self::TakeOver => f.write_str("take over"),
            Self::TakeOverFromDead => f.write_str("take over from a dead primary"),
            Self::PauseWrites(time) => write!(f, "hold writes back for {} s", time.as_secs()),
            Self::ResumeWrites => f.write_str("answer writes again"),
            Self::GuardWrites(true) => f.write_str("refuse writes after a failed save"),
            Self::GuardWrites(false) => f.write_str("take writes even after a failed save"),
            Self::Save => f.write_str("save"),
            Self::SaveLater => f.write_str("save as soon as nothing is in the way"),
            Self::Shutdown { .. } => f.write_str("shut down"),
            Self::HandOverOnSigterm => f.write_str("hand over on SIGTERM"),
            Self::AppendOnly => f.write_str("keep an append-only file"),
        }
    }
}
