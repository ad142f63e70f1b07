//! A node as the cluster bus knows it: its id, where it answers, what it is.

use std::fmt;
use std::net::IpAddr;

use super::slot::{Slot, SlotRange, SlotSet};

/// The 40 hexadecimal digits that name a node for life (`CLUSTER_NAMELEN` in the server's `cluster.h`): as numbers of 16,
/// 16 and 8 of them, which compare quicker than text does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64, u64, u32);

/// Where a node answers: clients at `port`, the cluster bus at `bus_port`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address peers use; MEET takes nothing else.
    pub ip: IpAddr,
    /// The client port.
    pub port: u16,
    /// The port of the cluster bus; the client port plus 10000 unless configured otherwise.
    pub bus_port: u16,
}

/// What one node of the cluster is in the eyes of one (other or the same) node: a line of CLUSTER NODES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Who it is.
    pub id: NodeId,
    /// Its client and bus ports and its address; `ip` is none while the address is not known (`:6379@16379`).
    pub ip: Option<IpAddr>,
    /// The client port.
    pub port: u16,
    /// The client port with TLS: nodes.conf names both, and CLUSTER NODES the one by which it was asked.
    pub tls_port: Option<u16>,
    /// The port of the cluster bus.
    pub bus_port: u16,
    /// What it announces with `cluster-announce-hostname`.
    pub hostname: Option<String>,
    /// Primary or replica, and of whom.
    pub role: Role,
    /// The flags that are not its role.
    pub flags: Flags,
    /// The epoch of its slot configuration; higher wins where two claim one slot.
    pub config_epoch: u64,
    /// Whether the bus link to it is up.
    pub connected: bool,
    /// The slots it owns.
    pub slots: Vec<SlotRange>,
    /// How many of its slots are on their way in or out.
    pub moving: Vec<Moving>,
}

/// Primary or replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Owns slots, or may.
    Primary,
    /// Copies the node of this id; none where the server does not know of whom yet.
    Replica(Option<NodeId>),
}

/// The flags of a CLUSTER NODES line besides the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The line is about the node that was asked.
    pub myself: bool,
    /// `fail?`: this observer cannot reach it.
    pub suspected: bool,
    /// `fail`: a majority of primaries cannot reach it.
    pub failed: bool,
    /// Met, but its identity is not proven yet: the id is a placeholder.
    pub handshake: bool,
    /// Its address is not known any more.
    pub without_address: bool,
    /// It will not take over from its primary.
    pub no_failover: bool,
}

/// A slot that is on its way to or from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// This node still owns the slot and sends its keys to the node of this id.
    To(Slot, NodeId),
    /// This node receives the slot's keys from the node of this id.
    From(Slot, NodeId),
}

impl NodeId {
    /// How many digits an id has.
    pub const LENGTH: usize = 40;

    /// Reads an id: exactly 40 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == Self::LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let (high, rest) = text.split_at_checked(16).filter(|_| is_id)?;
        let (middle, low) = rest.split_at_checked(16)?;
        let long = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self(long(high)?, long(middle)?, u32::from_str_radix(low, 16).ok()?))
    }

    /// The first eight digits: enough for a person.
    pub fn short(&self) -> String {
        format!("{:08x}", self.0 >> 32)
    }
}

impl NodeEntry {
    /// Where it answers, where that is known.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.ip.map(|ip| Endpoint { ip, port: self.port, bus_port: self.bus_port })
    }

    /// Whether it is a primary with slots: it has a vote.
    pub fn owns_slots(&self) -> bool {
        self.role.is_primary() && !self.slots.is_empty()
    }

    /// The slots that it sends, and to whom, in its own words.
    pub fn exports(&self) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
        exports(&self.moving)
    }

    /// Whether slots are on their way to it, in its own words.
    pub fn receives_slots(&self) -> bool {
        self.moving.iter().any(|moving| matches!(moving, Moving::From(..)))
    }

    /// The slots it owns, as a set.
    pub fn slot_set(&self) -> SlotSet {
        self.slots.iter().collect()
    }

    /// Whether its id is its own and it can be counted as a member of the cluster.
    pub fn is_known(&self) -> bool {
        !self.flags.handshake
    }

    /// Whether the observer holds it for failed, or would if others agreed.
    pub fn is_suspected(&self) -> bool {
        self.flags.suspected || self.flags.failed
    }

    /// Whether the observer can neither talk to it nor knows how to.
    pub fn is_lost(&self) -> bool {
        self.is_suspected() || self.flags.without_address || !self.connected
    }
}

/// Which of these slots leave, and to whom.
pub(super) fn exports(moving: &[Moving]) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
    moving.iter().filter_map(|moving| match moving {
        Moving::To(slot, to) => Some((*slot, *to)),
        Moving::From(..) => None,
    })
}

impl Role {
    /// Whether it is a primary.
    pub fn is_primary(self) -> bool {
        self == Self::Primary
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:08x}", self.0, self.1, self.2)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.ip, self.port))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}@{}", self.bus_port)
    }
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(slot, node) => write!(f, "out: {slot} to {}", node.short()),
            Self::From(slot, node) => write!(f, "in: {slot} from {}", node.short()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica(_) => "replica",
        })
    }
}
