//! INFO and CLUSTER INFO: lines of `name:value`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Unreadable;
use crate::topology::server::{Aof, Loading, Persistence, Saving};
use crate::topology::version::Version;

/// The answer to INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    fields: BTreeMap<String, String>,
}

/// The answer to CLUSTER INFO, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// `cluster_state:ok`: in this node's view every slot is served.
    pub ok: bool,
    /// How many slots have an owner in this node's view.
    pub slots_assigned: u16,
    /// The highest epoch this node has seen.
    pub current_epoch: u64,
}

/// Replication as INFO tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// The link to the primary, where the node is a replica.
    pub link: Option<ReplicaLink>,
    /// How many bytes of the replication stream the node has written (primary) or applied (replica).
    pub offset: u64,
}

/// A replica's link to its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaLink {
    /// Whether the replica follows its primary.
    pub up: bool,
    /// Whether it receives its first full copy.
    pub syncing: bool,
    /// How long ago it last heard from its primary; none while the link is down.
    pub last_heard: Option<Duration>,
    /// How long ago it broke; none while it is up, and where it has never been up since the replica started. What the
    /// replica copied before it broke, it still holds.
    pub down_for: Option<Duration>,
}

impl Info {
    /// Reads the answer to INFO; comments and lines without a colon are passed over.
    pub fn parse(text: &str) -> Self {
        let fields = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { fields }
    }

    /// The server's version: `valkey_version`, or `redis_version` where the server is so old that it has no other.
    pub fn version(&self) -> Option<Version> {
        Version::parse(self.text("valkey_version").or_else(|| self.text("redis_version"))?)
    }

    /// How many keys there are, over all databases.
    pub fn keys(&self) -> u64 {
        self.fields
            .iter()
            .filter(|(name, _)| name.strip_prefix("db").is_some_and(|rest| rest.parse::<u32>().is_ok()))
            .filter_map(|(_, value)| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    }

    /// How many bytes the data and the server's own structures take.
    pub fn used_memory(&self) -> u64 {
        self.number("used_memory").unwrap_or_default()
    }

    /// The replication section.
    pub fn replication(&self) -> Replication {
        let is_replica = self.text("role").is_some_and(|role| role == "slave" || role == "replica");
        let link = is_replica.then(|| ReplicaLink {
            up: self.text("master_link_status") == Some("up"),
            syncing: self.is("master_sync_in_progress"),
            last_heard: self.number("master_last_io_seconds_ago").map(Duration::from_secs),
            // -1 until the link is up for the first time, absent while it is up.
            down_for: self.number("master_link_down_since_seconds").map(Duration::from_secs),
        });
        let offset = if is_replica { "slave_repl_offset" } else { "master_repl_offset" };
        Replication { link, offset: self.number(offset).unwrap_or_default() }
    }

    /// The name of this life of the server.
    pub fn run_id(&self) -> String {
        self.text("run_id").unwrap_or_default().to_owned()
    }

    /// How long the server has been up.
    pub fn uptime(&self) -> Duration {
        Duration::from_secs(self.number("uptime_in_seconds").unwrap_or_default())
    }

    /// The data that is being read into memory.
    pub fn loading(&self) -> Option<Loading> {
        let number = |name| self.number(name).unwrap_or_default();
        self.is("loading").then(|| Loading {
            done: number("loading_loaded_bytes"),
            total: number("loading_total_bytes"),
            eta: Duration::from_secs(number("loading_eta_seconds")),
        })
    }

    /// Whether the last save, or the last write of the append-only file, has failed.
    pub fn save_failed(&self) -> bool {
        ["rdb_last_bgsave_status", "aof_last_write_status"].iter().any(|name| self.text(name) == Some("err"))
    }

    /// The persistence section.
    pub fn persistence(&self) -> Persistence {
        let number = |name| self.number(name).unwrap_or_default();
        let rewriting = self.is("aof_rewrite_in_progress") || self.is("aof_rewrite_scheduled");
        let rewritten = self.text("aof_last_bgrewrite_status") == Some("ok");
        Persistence {
            changes: number("rdb_changes_since_last_save"),
            saves: number("rdb_saves"),
            last_save: Duration::from_secs(number("rdb_last_save_time")),
            saving: self.is("rdb_bgsave_in_progress").then(|| Saving {
                keys: number("current_save_keys_processed"),
                total: number("current_save_keys_total"),
                elapsed: Duration::from_secs(number("rdb_current_bgsave_time_sec")),
            }),
            last_save_ok: self.text("rdb_last_bgsave_status") == Some("ok"),
            aof: self.is("aof_enabled").then(|| Aof {
                incomplete: number("aof_base_size") == 0 && (rewriting || !rewritten),
                last_write_ok: self.text("aof_last_write_status") == Some("ok"),
                pending: number("aof_buffer_length").saturating_add(number("aof_pending_bio_fsync")),
            }),
            other_child: rewriting || self.is("module_fork_in_progress") || self.is("slot_migration_fork_in_progress"),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

impl ClusterInfo {
    /// Reads the answer to CLUSTER INFO.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let info = Info::parse(text);
        let read = || {
            Some(Self {
                ok: info.text("cluster_state")? == "ok",
                slots_assigned: info.number("cluster_slots_assigned")?.try_into().ok()?,
                current_epoch: info.number("cluster_current_epoch")?,
            })
        };
        read().ok_or_else(|| Unreadable::new("CLUSTER INFO", text))
    }
}
