//! What `plan` answers: nothing to do, wait, act, or refuse; each as one sentence.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::desired::{Shape, count};
use super::identity::{Mark, Settings, Site};
use super::membership::{Label, Stranger};
use super::node::{Endpoint, NodeId};
use super::observation::NodeReport;
use super::refusal::Refusal;
use super::slot::{SlotRange, SlotSet};

/// The outcome of one round of planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The cluster is as it is to be, and every node says so.
    Converged(Shape),
    /// Nothing can be done now; never empty.
    Wait(Vec<Blocker>),
    /// These actions come next.
    Act(Stage),
    /// To go on would be unsafe: a human must look.
    Refuse(Refusal),
}

/// Actions that may be done in any order and all at once. After it, observe again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Which stage of forming it is.
    pub kind: StageKind,
    /// Never empty.
    pub actions: Vec<Action>,
}

/// The stages, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageKind {
    /// Nodes get our mark; while everything is empty they take no writes from the same moment on.
    Announce,
    /// Blank nodes get epochs of their own.
    Epochs,
    /// Nodes get to know each other.
    Meet,
    /// Free slots get their primaries.
    Slots,
    /// The others become replicas.
    Replicate,
    /// While nothing can be written yet, the node timeout is lowered, which brings news and ok sooner; and back where
    /// machines are too busy for that.
    Hurry,
    /// Identities that no pod has any more are forgotten.
    Forget,
    /// Owners whom somebody would never believe get a higher epoch.
    Outrank,
    /// Lowered settings are put back.
    Restore,
}

/// Something to be done, and the node it is done on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The node.
    pub on: NodeId,
    /// The same node, for people.
    pub label: Label,
    /// Where it was seen to answer.
    pub address: SocketAddr,
    /// What is done there.
    pub deed: Deed,
}

/// What can be done on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// CONFIG SET of the mark, alone.
    Announce(Mark),
    /// CONFIG SET of a mark that keeps the settings as they were, and of lowered ones, in one command; only while the
    /// node has no key, and either carries that very mark or still knows of no slot.
    Lower(Mark, Settings),
    /// CONFIG SET of the node timeout as it was, alone: nobody can write yet.
    RestoreTimeout(Duration),
    /// CONFIG SET of the bare mark and of all settings as they were, in one command.
    Restore(Mark, Settings),
    /// CLUSTER SET-CONFIG-EPOCH.
    SetEpoch(u64),
    /// CLUSTER MEET with a node that was just asked.
    Meet(NodeId, Endpoint),
    /// CLUSTER ADDSLOTSRANGE.
    AddSlots(Vec<SlotRange>),
    /// CLUSTER REPLICATE.
    Replicate(NodeId),
    /// CLUSTER BUMPEPOCH: what it owns from then on stands above whatever anybody claimed before.
    BumpEpoch,
    /// CLUSTER FORGET of an identity that will not come back.
    Forget(NodeId),
}

/// Why nothing can be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A pod has no address in DNS.
    Unresolved(String),
    /// A pod has an address and gave no report.
    Silent(Label, String),
    /// Fewer nodes answer than the shape has members, and nothing tells which are missing.
    TooFew {
        /// How many answer.
        present: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// A node does not know another yet, or has no link to it.
    Unlinked(Label, Label),
    /// A node cannot reach another.
    Suspects(Label, Label),
    /// Two nodes claim slots; the epochs will settle it.
    Contested(Label, Label, Box<SlotSet>),
    /// A node's view of another is behind.
    Outdated(Label, Label),
    /// A node does not say ok yet.
    NotOk(Label),
    /// A replica does not follow its primary yet.
    NotFollowing(Label),
    /// No node says of itself that it owns the slots of this shard: one is missing, or a failover is under way.
    NoPrimary(usize),
    /// A replica holds keys of a primary that is not here: it is not to copy anybody else.
    HoldsCopy(Label),
    /// The shard of this primary lacks a replica, and another has one too many that it cannot spare yet.
    NoneToSpare(Label),
    /// No shape was asked for, and none stands.
    NoShape,
    /// A primary owns no slots yet, and some are on their way to it.
    Arriving(Label),
    /// A node that is not ours answers where one of ours should.
    Foreign(Stranger),
}

impl Deed {
    /// The same where a mark that names no place names this one.
    fn at(mut self, site: &Site) -> Self {
        if let Self::Announce(mark) | Self::Lower(mark, _) | Self::Restore(mark, _) = &mut self
            && !mark.site.is_known()
        {
            mark.site = site.clone();
        }
        self
    }

    /// Whether the node is still in the state that the deed was decided for. Asked right before it is done: the
    /// observation may be old, and another run, or another cluster's, may have been there meanwhile.
    pub fn still_fits(&self, now: &NodeReport) -> bool {
        let carried = Mark::parse(&now.name);
        match self {
            Self::Lower(mark, _) | Self::Announce(mark)
                if carried.as_ref().is_some_and(|own| own.cluster != mark.cluster) =>
            {
                false
            }
            Self::Lower(mark, _) => {
                let is_blank = || !now.is_lowered() && now.cluster.slots_assigned == 0;
                now.keys == 0 && (carried.as_ref() == Some(mark) || is_blank())
            }
            // A bare mark must not take the place of one that holds settings.
            Self::Announce(mark) => mark.forming.is_some() || carried.is_none_or(|own| own.forming.is_none()),
            Self::RestoreTimeout(_) | Self::Restore(..) => now.is_lowered(),
            Self::SetEpoch(_)
            | Self::Meet(..)
            | Self::AddSlots(_)
            | Self::Replicate(_)
            | Self::BumpEpoch
            | Self::Forget(_) => true,
        }
    }

    /// Whether that has to be asked: the server itself refuses the others where they do not fit.
    pub fn must_be_checked(&self) -> bool {
        matches!(self, Self::Lower(..) | Self::Announce(_) | Self::RestoreTimeout(_) | Self::Restore(..))
    }
}

impl Stage {
    /// How long it must be what comes next, look after look, before it is acted on. Nodes are not all asked in the same
    /// instant: what some said before a failover, and others after it, may together look like what never was. An epoch
    /// that is raised then can take slots back from who has just got them, and the writes with them.
    pub fn patience(&self) -> Duration {
        match self.kind {
            StageKind::Outrank => Duration::from_secs(3),
            _ => Duration::ZERO,
        }
    }

    /// What of it is to be done on this node, by who runs beside it: it reaches the node at this address, which others may
    /// not know, and knows where it is, which a node that has lost its mark cannot tell.
    pub fn part_of(&self, node: NodeId, address: SocketAddr, site: &Site) -> Option<Self> {
        let own = self.actions.iter().filter(|action| action.on == node);
        let actions: Vec<_> =
            own.map(|action| Action { address, deed: action.deed.clone().at(site), ..action.clone() }).collect();
        (!actions.is_empty()).then_some(Self { kind: self.kind, actions })
    }
}

impl Blocker {
    /// Whether somebody is missing, rather than something unfinished.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unresolved(_) | Self::Silent(..) | Self::TooFew { .. })
    }

    /// What a human can do, where it may not come about by itself.
    pub fn remedy(&self) -> Option<&'static str> {
        matches!(self, Self::Arriving(_)).then_some("if nobody moves slots now, `valkeeper rebalance` finishes them")
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converged(shape) => write!(f, "the cluster stands: {shape}, and every node says ok"),
            Self::Wait(blockers) => write!(f, "waiting: {}", Few(blockers)),
            Self::Act(stage) => stage.fmt(f),
            Self::Refuse(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, Few(&self.actions))
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announce => "announce",
            Self::Epochs => "epochs",
            Self::Meet => "meet",
            Self::Slots => "slots",
            Self::Replicate => "replicate",
            Self::Hurry => "hurry",
            Self::Forget => "forget",
            Self::Outrank => "outrank",
            Self::Restore => "restore",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.label;
        match &self.deed {
            Deed::Announce(mark) => write!(f, "{node} is named {mark}"),
            Deed::Lower(mark, settings) => write!(
                f,
                "{node} is named {mark} and takes no writes, with a node timeout of {} ms",
                settings.node_timeout.as_millis()
            ),
            Deed::RestoreTimeout(timeout) => {
                write!(f, "{node} gets its node timeout of {} ms back", timeout.as_millis())
            }
            Deed::Restore(..) => write!(f, "{node} takes writes"),
            Deed::SetEpoch(epoch) => write!(f, "{node} gets epoch {epoch}"),
            Deed::Meet(_, endpoint) => write!(f, "{node} meets {endpoint}"),
            Deed::AddSlots(ranges) => write!(f, "{node} gets the slots {}", ranges.iter().collect::<SlotSet>()),
            Deed::Replicate(primary) => write!(f, "{node} becomes a replica of {}", primary.short()),
            Deed::BumpEpoch => write!(f, "{node} gets an epoch above all others"),
            Deed::Forget(id) => write!(f, "{node} forgets {}", id.short()),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(pod) => write!(f, "{pod} has no address in DNS"),
            Self::Silent(node, why) if node.pod.is_some() => write!(f, "{node} ({}) {why}", node.address),
            Self::Silent(node, why) => write!(f, "{node} {why}"),
            Self::TooFew { present, wanted } => write!(f, "{present} of {} answer", count(*wanted, "node")),
            Self::Unlinked(from, to) => write!(f, "{from} has no link to {to}"),
            Self::Suspects(from, to) => write!(f, "{from} cannot reach {to}"),
            Self::Contested(a, b, slots) => write!(f, "{a} and {b} both claim the slots {slots}"),
            Self::Outdated(observer, about) => write!(f, "{observer} has not heard the news of {about}"),
            Self::NotOk(node) => write!(f, "{node} does not say ok"),
            Self::NotFollowing(node) => write!(f, "{node} does not follow its primary"),
            Self::NoPrimary(shard) => write!(f, "shard {shard} has no primary"),
            Self::HoldsCopy(node) => write!(f, "{node} holds a copy of a primary that is not here"),
            Self::NoneToSpare(primary) => {
                write!(f, "{primary} lacks a replica, and no other shard can spare one before its copies are whole")
            }
            Self::NoShape => {
                f.write_str("not every slot has an owner, and without --shards and --replicas nothing is done")
            }
            Self::Arriving(node) => write!(f, "slots are on their way to {node}"),
            Self::Foreign(stranger) => stranger.fmt(f),
        }
    }
}

/// The first few of many, and how many more there are.
pub(super) struct Few<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Few<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for (place, item) in self.0.iter().take(SHOWN).enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            item.fmt(f)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
