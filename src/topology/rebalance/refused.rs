//! When slots are not moved: what is in the way, in a sentence, and what a human can do.

use std::fmt;
use std::time::Duration;

use crate::topology::desired::count;
use crate::topology::membership::Label;
use crate::topology::slot::{Slot, SlotSet};
use crate::topology::version::Version;

/// Why no slots are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No member answers; whoever was asked, and why that gave nothing.
    Nobody(Vec<(Label, String)>),
    /// Slots that no primary that answers owns.
    Uncovered(Box<SlotSet>),
    /// Two primaries claim the same slots.
    Contested(Label, Label, Box<SlotSet>),
    /// A primary still has the settings of a cluster that is being formed.
    Forming(Label),
    /// A primary with slots is about to stop.
    Leaving(Label),
    /// A primary does not say that the cluster is ok.
    NotOk(Label),
    /// A primary cannot be reached by another.
    Suspected {
        /// Who.
        node: Label,
        /// By whom.
        by: Label,
    },
    /// There is no such member.
    Unknown(String),
    /// A pod that is to be emptied does not answer.
    Silent(Label, String),
    /// A weight for a node that is no primary.
    NotPrimary(String),
    /// Nobody is left to take the slots.
    Everybody,
    /// Fewer shards keep a member than are to remain.
    TooFewShards {
        /// How many were asked for.
        asked: usize,
        /// How many keep a member.
        left: usize,
    },
    /// Pods that would give slots back to those that are emptied.
    KeptEven(Vec<Label>),
    /// Keys would go to a server that cannot read them.
    OlderTarget {
        /// From where, and what runs there.
        from: Box<(Label, Version)>,
        /// To where, and what runs there.
        to: Box<(Label, Version)>,
    },
    /// Keys would go to a primary whose replica has no copy of what it has.
    Uncopied {
        /// Whose.
        primary: Label,
        /// Which.
        replica: Label,
    },
    /// A slot is half on a node that is not here.
    Stranded {
        /// Which.
        slot: Slot,
        /// Who owns it.
        owner: Label,
        /// Who has received a part of its keys.
        gone: String,
    },
    /// Keys of a slot lie on a node that neither owns it nor is to receive it.
    Stray {
        /// Which.
        slot: Slot,
        /// Where.
        node: Label,
        /// How many.
        keys: u64,
    },
}

impl Refused {
    /// For how long it must stand before it is final: a failover takes a moment, and so does the news of a slot that has
    /// just moved. Servers with that node timeout hold a primary for dead after one to two of them, and then elect another.
    pub fn patience(&self, node_timeout: Duration) -> Duration {
        match self {
            Self::Unknown(_) | Self::NotPrimary(_) | Self::Everybody | Self::TooFewShards { .. } => {
                Duration::from_secs(2)
            }
            Self::KeptEven(_) | Self::OlderTarget { .. } => Duration::ZERO,
            // It may receive a whole copy, and load it.
            Self::Silent(..) | Self::Uncopied { .. } => Duration::from_secs(120),
            Self::Uncovered(_) | Self::NotOk(_) | Self::Suspected { .. } => {
                Duration::from_secs(10).saturating_add(node_timeout.saturating_mul(2))
            }
            _ => Duration::from_secs(15),
        }
    }

    /// What a human can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Nobody(_) => {
                "check --service, --dns-server, the password, the certificates and whether the pods run".to_owned()
            }
            Self::Uncovered(_) => "bring the missing pods back; `valkeeper doctor` says which".to_owned(),
            Self::Contested(one, other, _) => format!(
                "see why {one} and {other} do not hear of each other: is the cluster bus port open between them?"
            ),
            Self::Forming(_) => "let `valkeeper bootstrap` end first".to_owned(),
            Self::Leaving(node) => format!("wait until {node} has been restarted, and run this again"),
            Self::NotOk(node) => format!("`valkeeper doctor` says what {node} misses"),
            Self::Suspected { node, by } => {
                format!("look at the network between {node} and {by}: is the cluster bus port open?")
            }
            Self::Unknown(_) => "`valkeeper status` shows the members by their pods".to_owned(),
            Self::Silent(node, _) => {
                format!(
                    "bring {node} back, or leave it out: what does not run owns nothing once it has been taken over"
                )
            }
            Self::NotPrimary(_) => {
                "name a primary that every node knows: `valkeeper status` shows them, and `valkeeper bootstrap` \
                 introduces new pods"
                    .to_owned()
            }
            Self::Everybody => "leave at least one member with a place for slots".to_owned(),
            Self::TooFewShards { left, .. } => format!("say `--shards {left}`, or let more pods stay"),
            Self::KeptEven(_) => {
                "restart them without --auto-rebalance (`autoRebalance: false` in the chart's values), and run this again"
                    .to_owned()
            }
            Self::OlderTarget { to, .. } => format!("upgrade {} first, or give it --weight 0", to.0),
            Self::Uncopied { replica, .. } => format!("see in the log of {replica} why it gets no copy"),
            Self::Stranded { slot, owner, gone } => format!(
                "bring the node {gone} back: it holds keys of the slot; only if it is gone for good, and those keys with \
                 it, `valkey-cli -h {} -p {} CLUSTER SETSLOT {slot} STABLE`",
                owner.address.ip(),
                owner.address.port()
            ),
            Self::Stray { slot, node, .. } => format!(
                "look at them with `valkey-cli -h {0} -p {1} CLUSTER GETKEYSINSLOT {slot} 10` and put aside what is newer \
                 than what the slot's owner has; then `valkey-cli -h {0} -p {1} CLUSTER SETSLOT {slot} STABLE`",
                node.address.ip(),
                node.address.port()
            ),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(asked) => {
                f.write_str("no member of the cluster answers")?;
                let mut asked = asked.iter();
                if let Some((first, why)) = asked.next() {
                    write!(f, ": {first} {why}")?;
                }
                match asked.len() {
                    0 => Ok(()),
                    others => write!(f, "; and {} in vain", count(others, "other")),
                }
            }
            Self::Uncovered(slots) => {
                write!(f, "{} without a primary that answers: {slots}", count(slots.len(), "slot"))
            }
            Self::Contested(one, other, slots) => write!(f, "{one} and {other} both claim the slots {slots}"),
            Self::Forming(node) => write!(f, "{node} still has the settings of a cluster that is being formed"),
            Self::Leaving(node) => write!(f, "{node} owns slots and is about to stop"),
            Self::NotOk(node) => write!(f, "{node} does not say that the cluster is ok"),
            Self::Suspected { node, by } => write!(f, "{node} cannot be reached by {by}"),
            Self::Unknown(name) => write!(f, "no member of the cluster is called {name}"),
            Self::Silent(node, why) => write!(f, "{node} {why}"),
            Self::NotPrimary(name) => write!(f, "{name} is not a primary that every node knows"),
            Self::Everybody => f.write_str("nobody would be left to own slots"),
            Self::TooFewShards { asked, left } => {
                write!(f, "{} are to remain, and only {} keep a member", count(*asked, "shard"), count(*left, "shard"))
            }
            Self::KeptEven(pods) => {
                let names: Vec<_> = pods.iter().map(Label::to_string).collect();
                write!(f, "run --auto-rebalance in {} would give slots back to pods that are emptied", names.join(", "))
            }
            Self::OlderTarget { from, to } => write!(
                f,
                "{} runs {} and {} only {}, which does not read what the other writes",
                from.0, from.1, to.0, to.1
            ),
            Self::Uncopied { primary, replica } => {
                write!(f, "{replica} has no copy yet of {primary}, which is to be given slots")
            }
            Self::Stranded { slot, owner, gone } => {
                write!(f, "the slot {slot} of {owner} is half moved to the node {gone}, which is not here")
            }
            Self::Stray { slot, node, keys } => write!(
                f,
                "{node} holds {} of the slot {slot}, which it neither owns nor is to get",
                count(usize::try_from(*keys).unwrap_or(usize::MAX), "key")
            ),
        }
    }
}
