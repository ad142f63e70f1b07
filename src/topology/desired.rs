//! What the cluster is to be: whose it is and how many members it has. Never who is primary.

use std::fmt;
use std::num::NonZeroU16;

use super::identity::ClusterId;
use super::node::NodeId;

/// The wanted shape of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredTopology {
    /// Whose nodes are ours.
    pub cluster: ClusterId,
    /// How many, and how large, the shards are.
    pub shape: Shape,
}

/// How many shards of how many members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Each has one primary.
    pub shards: NonZeroU16,
    /// How many replicas each shard has.
    pub replicas: u16,
}

/// How `plan` goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether settings may be lowered while the whole cluster is empty, to beat the server's rejoin delay.
    pub hurry: bool,
    /// The lost primary whose data is given up: somebody has said so in as many words.
    pub give_up: Option<NodeId>,
}

impl Policy {
    /// Forms a cluster, or brings one into its shape.
    pub const FORM: Self = Self { hurry: true, give_up: None };
    /// Keeps a cluster that stands in its shape.
    pub const KEEP: Self = Self { hurry: false, give_up: None };
}

impl Shape {
    /// How many nodes that makes.
    pub fn members(self) -> usize {
        usize::from(self.shards.get()) * (usize::from(self.replicas) + 1)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} each", count(self.shards.get().into(), "shard"), count(self.replicas.into(), "replica"))
    }
}

/// `1 shard`, `3 shards`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
