//! What the cluster is to be: whose it is and how many members it has. Never who is primary.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;

use super::identity::ClusterId;
use super::membership::{Member, Membership};
use super::node::{NodeEntry, NodeId, Role};
use super::observation::View;
use super::plan::receivers;
use super::slot::SlotSet;

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
    /// The shape that stands, where every slot has an owner in somebody's eyes. Else nobody can tell, and nothing is to be
    /// built on it.
    pub fn whole(membership: &Membership<'_>) -> Option<Self> {
        let claimed: SlotSet = membership.members.iter().flat_map(|member| &member.report.myself().slots).collect();
        let owners = membership.members.iter().flat_map(|member| member.report.view.owners());
        let is_whole =
            claimed == SlotSet::ALL || owners.flat_map(|entry| &entry.slots).collect::<SlotSet>() == SlotSet::ALL;
        Self::standing(membership).filter(|_| is_whole)
    }

    /// The shape that stands; none where nobody answers. A shard is whoever owns slots, or is about to; and whoever is said
    /// to own some that nobody here claims, be it away or in the middle of a failover.
    /// The replicas are as many in each as there are nodes for, here or away. An identity that does not answer is a node
    /// that is away, unless a node without a place is here for it, or no number is missing among the pods: then it is what is
    /// left of a lost disk.
    pub fn standing(membership: &Membership<'_>) -> Option<Self> {
        let receivers = receivers(membership);
        let (mut claimed, mut primaries, mut unplaced) = (SlotSet::EMPTY, 0, 0);
        for member in &membership.members {
            let myself = member.report.myself();
            claimed.add(&myself.slot_set());
            match myself.role {
                Role::Primary if !myself.slots.is_empty() || receivers.contains(&member.id()) => primaries += 1,
                Role::Primary => unplaced += 1,
                Role::Replica(_) => {}
            }
        }
        let owners = membership.opinions().into_iter().flat_map(View::owners);
        let is_claimed = |entry: &NodeEntry| {
            membership.get(entry.id).is_some_and(|member| member.report.myself().slots == entry.slots)
        };
        let is_missed = |entry: &&NodeEntry| {
            entry.role.is_primary() && !is_claimed(entry) && !entry.slot_set().without(&claimed).is_empty()
        };
        let missed: BTreeSet<NodeId> = owners.filter(is_missed).map(|entry| entry.id).collect();
        let shards = NonZeroU16::new(u16::try_from(primaries + missed.len()).ok()?.max(1))?;
        let (present, per_shard) = (membership.members.len(), usize::from(shards.get()));
        let nodes = present + membership.absent.len().saturating_sub(unplaced);
        let of_present = present.saturating_sub(per_shard).div_ceil(per_shard);
        // What is left of lost disks may be among those that are away, and alone makes no replica more in each shard.
        let of_all = nodes.saturating_sub(per_shard) / per_shard;
        let replicas = match of_present > 0 && is_gapless(membership) {
            true => of_present,
            false => of_present.max(of_all),
        };
        (present > 0).then_some(Self { shards, replicas: u16::try_from(replicas).ok()? })
    }

    /// How many nodes that makes.
    pub fn members(self) -> usize {
        usize::from(self.shards.get()) * (usize::from(self.replicas) + 1)
    }
}

/// Whether the pods are numbered from 0 on, each once, and all of them answer: no pod between them is away.
fn is_gapless(membership: &Membership<'_>) -> bool {
    let ordinals: BTreeSet<u32> = membership.members.iter().filter_map(Member::ordinal).collect();
    let next = ordinals.last().map_or(0, |last| last.saturating_add(1));
    let is_all = |count: usize| u32::try_from(count).is_ok_and(|count| count == next);
    membership.silent.is_empty() && is_all(ordinals.len()) && is_all(membership.members.len())
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
