//! What is asked of one server when pods come and go.

use std::fmt;
use std::time::Duration;

use super::identity::Settings;
use super::parse::ServerConfig;

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
    /// CONFIG SET of what was changed for a server that was started held back.
    LetGo(HeldBack),
    /// CONFIG SET appendonly yes.
    AppendOnly,
}

/// The settings that hold a server back which must neither be copied nor written to: it makes those that ask for a copy
/// wait, which keep what they have meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldBack {
    /// `repl-diskless-sync`.
    pub diskless: bool,
    /// `repl-diskless-sync-delay`.
    pub delay: u32,
    /// `min-replicas-to-write`.
    pub min_replicas: u32,
    /// `min-replicas-max-lag`.
    pub max_lag: u32,
}

impl HeldBack {
    /// Held back.
    pub const HELD: Self = Self { diskless: true, delay: 86_400, min_replicas: Settings::NO_WRITES, max_lag: 10 };

    /// As the configuration has them.
    pub fn before(config: &ServerConfig) -> Self {
        let number = |name, default| config.text(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        Self {
            diskless: config.text("repl-diskless-sync") != Some("no"),
            delay: number("repl-diskless-sync-delay", 5),
            min_replicas: number("min-replicas-to-write", 0),
            max_lag: number("min-replicas-max-lag", 10),
        }
    }

    /// The directives with their values.
    pub fn directives(self) -> [(&'static str, String); 4] {
        [
            ("repl-diskless-sync", if self.diskless { "yes" } else { "no" }.to_owned()),
            ("repl-diskless-sync-delay", self.delay.to_string()),
            ("min-replicas-to-write", self.min_replicas.to_string()),
            ("min-replicas-max-lag", self.max_lag.to_string()),
        ]
    }
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
            Self::LetGo(_) => f.write_str("take writes and send copies again"),
            Self::AppendOnly => f.write_str("keep an append-only file"),
        }
    }
}
