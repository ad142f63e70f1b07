//! What one server says of itself, in cluster mode or not: what handover, save and probes are decided on.

use std::time::Duration;

use super::electorate::Electorate;
use super::node::{NodeEntry, NodeId, Role};
use super::observation::View;
use super::parse::Replication;
use super::version::Version;

/// One server's report on itself; one round trip.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// The server's version.
    pub version: Option<Version>,
    /// The name of this life of the server: another one after each start.
    pub run_id: String,
    /// How long it has been up, to the second.
    pub uptime: Duration,
    /// The data it is reading into memory, while it does.
    pub loading: Option<Loading>,
    /// Its place in replication.
    pub replication: Replication,
    /// What is on disk, and what is on its way there.
    pub persistence: Persistence,
    /// How many keys it holds.
    pub keys: u64,
    /// Its view of the cluster; none outside of cluster mode, and while it loads.
    pub cluster: Option<ClusterView>,
    /// Whether it is marked as leaving: `cluster-replica-no-failover`.
    pub leaving: bool,
    /// Whether a failed save makes it refuse writes, where it has save points: `stop-writes-on-bgsave-error`.
    pub guards_writes: bool,
    /// How many atomic slot migrations it takes part in; since 9.0.
    pub migrations: usize,
}

/// A node's view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Everybody, itself among them.
    pub view: View,
    /// `cluster_state:ok`.
    pub ok: bool,
}

/// Data on its way into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading {
    /// How many bytes have been read.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// How long the rest will take, as the server reckons.
    pub eta: Duration,
}

/// INFO persistence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// `rdb_changes_since_last_save`: how many writes the newest RDB does not hold.
    pub changes: u64,
    /// `rdb_saves`: how many saves to disk have begun in this life, whatever became of them. A copy sent to a replica
    /// does not count.
    pub saves: u64,
    /// `rdb_last_save_time`: when the last good save ended, or the server started, since 1970 and to the second.
    pub last_save: Duration,
    /// The child that writes an RDB, be it to disk or to a replica, while it runs.
    pub saving: Option<Saving>,
    /// `rdb_last_bgsave_status:ok`. It stays so when a save is cut off, as by a full sync or BGSAVE CANCEL.
    pub last_save_ok: bool,
    /// The append-only file, where it is on.
    pub aof: Option<Aof>,
    /// Whether a child of another kind runs or is about to: a rewrite, a migration, a module's. It bars a save.
    pub other_child: bool,
}

/// A save under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saving {
    /// How many keys were written.
    pub keys: u64,
    /// How many there are.
    pub total: u64,
    /// How long it has been running, to the second.
    pub elapsed: Duration,
}

/// The state of the append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aof {
    /// It is being written for the first time: until then it does not hold everything, and the server does not shut
    /// down. A later rewrite changes neither.
    pub incomplete: bool,
    /// `aof_last_write_status:ok`.
    pub last_write_ok: bool,
    /// Bytes not written yet, and fsyncs not done yet.
    pub pending: u64,
}

impl ServerReport {
    /// Its own line in its view.
    pub fn myself(&self) -> Option<&NodeEntry> {
        self.cluster.as_ref().map(|cluster| cluster.view.myself())
    }

    /// Its node id.
    pub fn id(&self) -> Option<NodeId> {
        self.myself().map(|myself| myself.id)
    }

    /// Whether it is a primary of the cluster that owns slots.
    pub fn owns_slots(&self) -> bool {
        self.myself().is_some_and(NodeEntry::owns_slots)
    }

    /// Whether it is a replica.
    pub fn is_replica(&self) -> bool {
        self.replication.link.is_some()
    }

    /// The primary that it copies, in cluster mode.
    pub fn primary(&self) -> Option<&NodeEntry> {
        match self.myself()?.role {
            Role::Replica(Some(primary)) => self.cluster.as_ref()?.view.get(primary),
            _ => None,
        }
    }

    /// The other primaries with slots: with itself, those that vote for a new primary.
    pub fn voters(&self) -> impl Iterator<Item = &NodeEntry> {
        let own = self.id();
        let entries = self.cluster.as_ref().map(|cluster| cluster.view.entries()).unwrap_or_default();
        entries.iter().filter(move |entry| Some(entry.id) != own && entry.owns_slots())
    }

    /// Whether it has a link to a node, over which it could send its vote.
    pub fn is_linked_to(&self, node: NodeId) -> bool {
        let entry = self.cluster.as_ref().and_then(|cluster| cluster.view.get(node));
        entry.is_some_and(|entry| entry.connected)
    }

    /// Whether so many primaries are up, in its view, that it can be elected in the place of this one.
    pub fn can_be_elected(&self, dead: Option<NodeId>, gone: &[NodeId]) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| Electorate::of(&cluster.view, dead, gone).can_elect())
    }

    /// The replicas that it knows of, in cluster mode.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeEntry> {
        let own = self.id();
        let entries = self.cluster.as_ref().map(|cluster| cluster.view.entries()).unwrap_or_default();
        entries.iter().filter(move |entry| own.is_some() && entry.role == Role::Replica(own))
    }
}

impl Loading {
    /// How far it is, from 0 to 100.
    pub fn percent(&self) -> u64 {
        match self.total {
            0 => 0,
            total => (self.done.saturating_mul(100) / total).min(100),
        }
    }
}

impl Saving {
    /// How far it is, from 0 to 100.
    pub fn percent(&self) -> u64 {
        match self.total {
            0 => 0,
            total => (self.keys.saturating_mul(100) / total).min(100),
        }
    }

    /// How long the rest will take at the present pace, given how long it took so far; none before there is a pace: the
    /// server tells of the first key at once, and then of every thousandth.
    pub fn eta(&self, taken: Duration) -> Option<Duration> {
        let left = self.total.saturating_sub(self.keys);
        let has_pace = self.keys > 1 && !taken.is_zero();
        // What cannot be told in seconds is no answer either.
        has_pace
            .then(|| taken.as_secs_f64() * left as f64 / self.keys as f64)
            .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
    }
}
