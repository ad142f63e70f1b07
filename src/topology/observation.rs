//! What was seen in one round: every address that was asked, and what answered there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::identity::{Mark, PodName, Settings};
use super::node::{NodeEntry, NodeId, Role};
use super::parse::{ClusterInfo, Replication};
use super::slot::SlotRange;
use super::version::Version;

/// One round of asking everybody.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// One for each address that was asked.
    pub peers: Vec<Peer>,
    /// Pods that should have an address in DNS and have none.
    pub unresolved: Vec<PodName>,
    /// What discovery had trouble with, for people.
    pub trouble: Vec<String>,
    /// Servers that know nobody, carry no mark and have been seen for less time than DNS may lead to the wrong one.
    pub newcomers: BTreeSet<NodeId>,
    /// For how long the certificates of those that answered are still valid; empty without TLS.
    pub certificates: BTreeMap<SocketAddr, Duration>,
}

/// An address that was asked, and what came of it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The pod that DNS says is there.
    pub pod: Option<PodName>,
    /// The address.
    pub address: SocketAddr,
    /// What answered.
    pub answer: Result<Box<NodeReport>, Silence>,
}

/// What a node said of itself and of the cluster.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Its human node name: its mark, if it has one.
    pub name: String,
    /// The server's version.
    pub version: Option<Version>,
    /// Its view of every node, its own among them.
    pub view: View,
    /// Its view of the whole.
    pub cluster: ClusterInfo,
    /// How many keys it holds.
    pub keys: u64,
    /// How many bytes it uses.
    pub used_memory: u64,
    /// Whether it has failed to write its data to the disk when it last did, and may refuse writes for that.
    pub save_failed: bool,
    /// Its place in replication.
    pub replication: Replication,
    /// The settings that forming changes, as they are now.
    pub settings: Settings,
}

/// CLUSTER NODES of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    myself: NodeEntry,
    /// Ascending by id, so that a lookup is quick and the order does not depend on the server's.
    entries: Vec<NodeEntry>,
    /// The places of those that the observer cannot talk to.
    lost: Vec<usize>,
    gist: Gist,
}

/// What a view says of everybody: among a thousand nodes there are a million lines, and hardly any two views that say
/// different things.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gist {
    /// Who there is, ascending.
    ids: Vec<NodeId>,
    /// The places of those in handshake.
    meeting: Vec<usize>,
    /// What each is.
    roles: Vec<Role>,
    /// The slots, beside the place of who owns them.
    slots: Vec<(usize, SlotRange)>,
}

/// Why an address gave no report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The machine answers that nobody listens there: no process, or one that has just begun.
    Refused,
    /// Nothing answers there: timed out, reset, no route.
    Unreachable(String),
    /// A server answers and is not ready yet: LOADING, BUSY.
    NotReady(String),
    /// A server answers and does not let us in: NOAUTH, WRONGPASS, NOPERM.
    Denied(String),
    /// A server answers, and its certificate or ours is not trusted.
    Untrusted(String),
    /// A server answers that cannot be used: not in cluster mode, an answer we cannot read.
    Unusable(String),
}

impl Observation {
    /// The reports, with the pod and address they came from.
    pub fn reports(&self) -> impl Iterator<Item = (&Peer, &NodeReport)> {
        self.peers.iter().filter_map(|peer| peer.answer.as_deref().ok().map(|report| (peer, report)))
    }
}

impl NodeReport {
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.view.myself.id
    }

    /// Whether it has settings to be put back: its mark holds them, or they can only be ours.
    pub fn is_lowered(&self) -> bool {
        self.settings.are_lowered() || Mark::parse(&self.name).is_some_and(|mark| mark.forming.is_some())
    }

    /// What it says of itself.
    pub fn myself(&self) -> &NodeEntry {
        &self.view.myself
    }
}

impl View {
    /// A view, unless none of the entries is the observer's own, or two have one id.
    pub fn new(mut entries: Vec<NodeEntry>) -> Option<Self> {
        entries.sort_by_key(|entry| entry.id);
        let ids: Vec<NodeId> = entries.iter().map(|entry| entry.id).collect();
        if !ids.is_sorted_by(|one, next| one < next) {
            return None;
        }
        let myself = entries.iter().find(|entry| entry.flags.myself && entry.is_known())?.clone();
        let places = |is: fn(&NodeEntry) -> bool| {
            entries.iter().enumerate().filter(|(_, entry)| is(entry)).map(|(place, _)| place).collect()
        };
        let lost = places(|entry| entry.is_known() && entry.is_lost());
        let gist = Gist {
            ids,
            meeting: places(|entry| !entry.is_known()),
            roles: entries.iter().map(|entry| entry.role).collect(),
            slots: (0..)
                .zip(&entries)
                .flat_map(|(place, entry)| entry.slots.iter().map(move |range| (place, *range)))
                .collect(),
        };
        Some(Self { myself, entries, lost, gist })
    }

    /// The observer's own line.
    pub fn myself(&self) -> &NodeEntry {
        &self.myself
    }

    /// Everybody in it, ascending by id.
    pub fn entries(&self) -> &[NodeEntry] {
        &self.entries
    }

    /// The node of this id; a node in handshake has no id yet and is not found.
    pub fn get(&self, id: NodeId) -> Option<&NodeEntry> {
        let place = self.gist.ids.binary_search(&id).ok()?;
        self.entries.get(place).filter(|entry| entry.is_known())
    }

    /// Everybody in it beside the place of each in a list, which ascends by id as well; none for who is not listed.
    pub fn beside<'v, T>(
        &'v self,
        listed: &'v [T],
        id: impl Fn(&T) -> NodeId + 'v,
    ) -> impl Iterator<Item = (&'v NodeEntry, Option<usize>)> {
        let mut listed = listed.iter().enumerate().peekable();
        self.entries.iter().zip(&self.gist.ids).map(move |(entry, own)| {
            while listed.next_if(|(_, next)| id(next) < *own).is_some() {}
            (entry, listed.next_if(|(_, next)| id(next) == *own).map(|(place, _)| place))
        })
    }

    /// Whether both observers know the same nodes.
    pub fn knows_the_same(&self, other: &Self) -> bool {
        self.gist.ids == other.gist.ids && self.gist.meeting == other.gist.meeting
    }

    /// Whether both observers also say the same of each: what it is and what it owns.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.gist == other.gist
    }

    /// Whether it is in handshake with nobody.
    pub fn has_met(&self) -> bool {
        self.gist.meeting.is_empty()
    }

    /// Everybody whose id is proven and whom the observer cannot talk to, ascending by id.
    pub fn lost(&self) -> impl Iterator<Item = &NodeEntry> {
        self.lost.iter().filter_map(|place| self.entries.get(*place))
    }

    /// Whether the observer takes this node for dead, alone or with others.
    pub fn suspects(&self, id: NodeId) -> bool {
        self.lost().any(|entry| entry.id == id && entry.is_suspected())
    }

    /// Everybody with slots, ascending by id.
    pub fn owners(&self) -> impl Iterator<Item = &NodeEntry> {
        let owners = self.gist.slots.chunk_by(|(one, _), (next, _)| one == next);
        owners.filter_map(|slots| self.entries.get(slots.first()?.0))
    }

    /// Everybody but the observer whose id is proven.
    pub fn others(&self) -> impl Iterator<Item = &NodeEntry> {
        self.entries.iter().filter(|entry| entry.is_known() && entry.id != self.myself.id)
    }

    /// Whether a handshake with this address is under way.
    pub fn is_meeting(&self, address: SocketAddr) -> bool {
        let mut met = self.gist.meeting.iter().filter_map(|place| self.entries.get(*place));
        met.any(|entry| entry.ip == Some(address.ip()) && entry.port == address.port())
    }
}

/// What is noted beside a view like this one, if one of the last few is.
pub(super) fn alike<'h, T>(heard: &'h [(&View, T)], is_like: impl Fn(&View) -> bool) -> Option<&'h T> {
    const FEW: usize = 3;
    heard.iter().rev().take(FEW).find(|(view, _)| is_like(view)).map(|(_, noted)| noted)
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("is not reachable: connection refused"),
            Self::Unreachable(why) => write!(f, "is not reachable: {why}"),
            Self::NotReady(why) => write!(f, "is not ready: {why}"),
            Self::Denied(why) => write!(f, "does not let us in: {why}"),
            Self::Untrusted(why) => write!(f, "cannot be trusted, or does not trust us: {why}"),
            Self::Unusable(why) => write!(f, "cannot be used: {why}"),
        }
    }
}
