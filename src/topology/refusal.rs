//! When to go on would risk data: what is wrong, in a sentence, and what a human can do.

use std::fmt;
use std::time::Duration;

use super::desired::{Shape, count};
use super::membership::{Label, Stranger, StrangerKind};
use super::node::{Endpoint, NodeId};
use super::slot::SlotSet;
use super::version::Version;

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A primary holds keys and owns no slots: as a replica it would lose them.
    DataWithoutSlots {
        /// Where the keys are.
        node: Label,
        /// How many.
        keys: u64,
    },
    /// A server was started over data without its nodes.conf: it knows nobody, has claimed the slots of its keys, and
    /// would delete those that turn out to be another node's (`verifyClusterConfigWithData` in `cluster_legacy.c`).
    DataWithoutNodesConf {
        /// Where the keys are.
        node: Label,
        /// How many.
        keys: u64,
        /// The slots it claimed.
        slots: Box<SlotSet>,
    },
    /// Two clusters with slots stand: to join them would delete the keys of one.
    TwoIslands {
        /// Somebody on the one, and its slots.
        one: (Label, Box<SlotSet>),
        /// Somebody on the other, and its slots.
        other: (Label, Box<SlotSet>),
    },
    /// A node owns slots and knows the others, and none of them knows it any more: it was given up while it was away.
    Stray {
        /// Which.
        node: Label,
        /// How many keys it holds.
        keys: u64,
        /// The slots that it owned, and takes for its own.
        slots: Box<SlotSet>,
    },
    /// An address of ours leads to somebody else's node, and without it we are not complete.
    Foreign(Stranger),
    /// More nodes of ours answer than the shape has members.
    TooManyMembers {
        /// How many answer.
        present: usize,
        /// What was asked for.
        shape: Shape,
    },
    /// The slots lie on more, or on fewer, primaries than the shape has shards.
    OtherShards {
        /// How many primaries own slots.
        primaries: usize,
        /// What was asked for.
        shape: Shape,
    },
    /// Everybody is here, and yet slots belong to a node that is not.
    LostSlots {
        /// Which slots.
        slots: Box<SlotSet>,
        /// Whose they are.
        owner: NodeId,
        /// Where it was last known to be.
        endpoint: Option<Endpoint>,
        /// Who holds a copy of its keys.
        copy: Option<Label>,
    },
    /// A server is too old to carry our mark.
    TooOld {
        /// Which.
        node: Label,
        /// What it runs.
        version: Version,
    },
}

impl Refusal {
    /// For how long it must stand before it is final. DNS may lead to the wrong node, or leave out the right one, for
    /// 30 s; and for a moment after a failover the nodes disagree.
    pub fn patience(&self) -> Duration {
        match self {
            Self::TooOld { .. } => Duration::ZERO,
            Self::DataWithoutSlots { .. } | Self::OtherShards { .. } => Duration::from_secs(5),
            Self::Foreign(_)
            | Self::DataWithoutNodesConf { .. }
            | Self::TwoIslands { .. }
            | Self::Stray { .. }
            | Self::TooManyMembers { .. }
            | Self::LostSlots { .. } => Duration::from_secs(35),
        }
    }

    /// What a human can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::DataWithoutSlots { node, .. } => format!(
                "see first whether its keys belong to slots that are being moved there: `valkey-cli -h {0} -p {1} CLUSTER \
                 NODES` there, and on the owners of slots, marks them in brackets, and `valkeeper rebalance` finishes \
                 them. If not, look at what {node} holds: keep it with `valkey-cli -h {0} -p {1} BGSAVE` and a copy of its \
                 directory; only if nobody needs it, `valkey-cli -h {0} -p {1} FLUSHALL`, and run this again",
                node.address.ip(),
                node.address.port()
            ),
            Self::DataWithoutNodesConf { node, .. } => format!(
                "stop {node} and put its nodes.conf back; or, if its data is not needed, \
                 `valkey-cli -h {0} -p {1} FLUSHALL` and `valkey-cli -h {0} -p {1} CLUSTER RESET HARD`, and run this again",
                node.address.ip(),
                node.address.port()
            ),
            Self::TwoIslands { one, other } => format!(
                "decide which of the two is to live: look at both with `valkey-cli -h {} -p {} CLUSTER NODES` and \
                 `valkey-cli -h {} -p {} CLUSTER NODES`; save and empty the nodes of the other \
                 (FLUSHALL, then CLUSTER RESET HARD), and run this again",
                one.0.address.ip(),
                one.0.address.port(),
                other.0.address.ip(),
                other.0.address.port()
            ),
            Self::Stray { node, .. } => format!(
                "look at what {node} holds (`valkey-cli -h {0} -p {1} BGSAVE` and a copy of its directory keep it); if the \
                 cluster is to go on without that, `valkey-cli -h {0} -p {1} FLUSHALL` and `valkey-cli -h {0} -p {1} CLUSTER \
                 RESET HARD`, and run this again",
                node.address.ip(),
                node.address.port()
            ),
            Self::Foreign(stranger) => match &stranger.kind {
                StrangerKind::Marked(cluster) => format!(
                    "see why DNS leads to {}; if that cluster is meant, say `--cluster-id {cluster}`",
                    stranger.node.address
                ),
                StrangerKind::Named(_) => format!(
                    "take cluster-announce-human-nodename out of the configuration of the server at {}: valkeeper keeps \
                     its mark there",
                    stranger.node.address
                ),
                StrangerKind::Newcomer => "wait for half a minute, in which DNS may be behind".to_owned(),
                StrangerKind::Unmarked => format!(
                    "see why DNS leads to {}; if it is ours, make sure that DNS names every node of its cluster",
                    stranger.node.address
                ),
            },
            Self::TooManyMembers { .. } => {
                "say the shape that stands with --shards and --replicas; to have fewer, empty the pods that are to go with \
                 `valkeeper evacuate`, and remove them"
                    .to_owned()
            }
            Self::OtherShards { primaries, shape } if *primaries > usize::from(shape.shards.get()) => format!(
                "say `--shards {primaries}`; to have fewer shards, empty the pods that are to go with `valkeeper evacuate`"
            ),
            Self::OtherShards { primaries, .. } => format!(
                "say `--shards {primaries}`; to have more shards, add pods, let them join, and then `valkeeper rebalance`; if \
                 there are pods enough and too many are replicas, make an empty primary of one that its shard can spare: \
                 CLUSTER RESET SOFT, and then BGREWRITEAOF where appendonly is on, as the append-only file still has what \
                 it held; wait for its end before anything is restarted"
            ),
            Self::LostSlots { owner, copy: Some(copy), .. } => format!(
                "{copy} holds a copy: bring the node {} back with its directory, or wait until {copy} has taken over; only \
                 if that never comes and the node is gone for good, `valkey-cli -h {} -p {} CLUSTER FAILOVER TAKEOVER`",
                owner.short(),
                copy.address.ip(),
                copy.address.port()
            ),
            Self::LostSlots { owner, copy: None, .. } => format!(
                "bring the node {} back with its directory; only if its data is gone for good, go on without it: `valkeeper \
                 bootstrap --accept-data-loss {owner}` with the options of before",
                owner.short()
            ),
            Self::TooOld { .. } => format!("use Valkey {} or newer", Version::OLDEST),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataWithoutSlots { node, keys } => write!(
                f,
                "{node} holds {} and owns no slots: as a member of the cluster it would lose them",
                count_keys(*keys)
            ),
            Self::DataWithoutNodesConf { node, keys, slots } => write!(
                f,
                "{node} was started over data without its nodes.conf: it holds {}, has claimed {} of its own accord ({slots}) \
                 and would delete every key whose slot another node owns",
                count_keys(*keys),
                count(slots.len(), "slot")
            ),
            Self::TwoIslands { one, other } => write!(
                f,
                "two clusters with slots stand, the one of {} ({}) and the one of {} ({}): to join them would delete keys",
                one.0, one.1, other.0, other.1
            ),
            Self::Stray { node, keys, slots } => write!(
                f,
                "{node} holds {} and takes the slots {slots} for its own, but nobody in the cluster knows it any more",
                count_keys(*keys)
            ),
            Self::Foreign(stranger) => write!(f, "{stranger}"),
            Self::TooManyMembers { present, shape } => {
                write!(f, "{} answer, and {shape} make {}", count(*present, "node"), shape.members())
            }
            Self::OtherShards { primaries, shape } => write!(
                f,
                "the slots lie on {}, and {shape} were asked for",
                match primaries {
                    1 => "1 primary".to_owned(),
                    more => format!("{more} primaries"),
                }
            ),
            Self::LostSlots { slots, owner, endpoint, .. } => {
                write!(f, "the slots {slots} belong to the node {}", owner.short())?;
                if let Some(endpoint) = endpoint {
                    write!(f, " (last seen at {endpoint})")?;
                }
                f.write_str(", which is not among the nodes that answer, though all are here")
            }
            Self::TooOld { node, version } => write!(f, "{node} runs {version}, which cannot carry our mark"),
        }
    }
}

fn count_keys(keys: u64) -> String {
    match keys {
        1 => "1 key".to_owned(),
        _ => format!("{keys} keys"),
    }
}
