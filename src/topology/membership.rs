//! Who of those that answered is ours.
//!
//! A node is ours when it carries our mark, when it is tied to a node that does, or when it knows nobody; where slots of
//! ours stand, one that knows nobody and carries no mark only when DNS has led to it for longer than it may be wrong.
//! Whether a lone node may join is another question, which `plan` asks. A cluster without any mark is adopted when none of ours stands and everybody alive
//! in it was found through our own discovery; so a foreign cluster behind an address that used to be ours is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use super::absent::{Absent, absent};
use super::identity::{ClusterId, Mark, PodName, Site};
use super::island::Islands;
use super::node::{NodeEntry, NodeId};
use super::observation::{NodeReport, Observation, Peer, Silence, View, alike};

/// Everybody that was asked, sorted out.
#[derive(Clone, Debug)]
pub struct Membership<'a> {
    /// Our nodes, each once, lowest ordinal first.
    pub members: Vec<Member<'a>>,
    /// Nodes that answered and are not ours.
    pub strangers: Vec<Stranger>,
    /// Addresses that gave no report, but for further ones of a pod that answers elsewhere.
    pub silent: Vec<(Label, &'a Silence)>,
    /// Which of the members know each other.
    pub islands: Islands,
    /// Whom members know and who is none of them.
    pub absent: BTreeMap<NodeId, Absent>,
    /// The places of the members, ascending by id.
    by_id: Vec<(NodeId, usize)>,
    /// Whose members they are.
    pub cluster: ClusterId,
}

/// A node of ours.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// What it said.
    pub report: &'a NodeReport,
    /// Where it said it.
    pub address: SocketAddr,
    /// Its pod: as its own mark says, else as DNS says.
    pub pod: Option<PodName>,
    /// The mark it carries.
    pub mark: Option<Mark>,
}

/// A node that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Where it answers.
    pub node: Label,
    /// Whose it seems to be.
    pub kind: StrangerKind,
}

/// Whose a node that is not ours seems to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrangerKind {
    /// It carries the mark of another cluster.
    Marked(ClusterId),
    /// Its human node name is not a mark: somebody set it.
    Named(String),
    /// It is unmarked and belongs to a cluster that we cannot tell to be ours.
    Unmarked,
    /// It is unmarked, knows nobody, and has just appeared: DNS may lead to somebody else's.
    Newcomer,
}

/// A node as people are told of it: the pod where its name is known, the address otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The pod, where known.
    pub pod: Option<PodName>,
    /// The address.
    pub address: SocketAddr,
}

impl Label {
    /// A node as its line in somebody's view names it: the first label of its host name is its pod.
    pub fn of(entry: &NodeEntry) -> Option<Self> {
        let endpoint = entry.endpoint().filter(|_| !entry.flags.without_address)?;
        let pod = entry.hostname.as_deref().and_then(|name| name.split('.').next()).and_then(PodName::new);
        Some(Self { pod, address: SocketAddr::new(endpoint.ip, endpoint.port) })
    }
}

impl<'a> Membership<'a> {
    /// Sorts out an observation.
    pub fn of(observation: &'a Observation, cluster: &ClusterId) -> Self {
        let answered = once_each(observation);
        let ties = Islands::of(answered.iter().map(|(_, report)| *report));
        let marked = |mark: &Option<Mark>| mark.as_ref().is_some_and(|mark| &mark.cluster == cluster);
        let roots_of_ours: BTreeSet<NodeId> = answered
            .iter()
            .filter(|(_, report)| marked(&Mark::parse(&report.name)))
            .map(|(_, report)| ties.root(report.id()))
            .collect();
        let standing =
            answered.iter().any(|(_, report)| roots_of_ours.contains(&ties.root(report.id())) && !is_blank(report));
        let has_slots = |report: &NodeReport| report.cluster.slots_assigned > 0;
        let serves =
            answered.iter().any(|(_, report)| roots_of_ours.contains(&ties.root(report.id())) && has_slots(report));
        let observed: BTreeSet<NodeId> = answered.iter().map(|(_, report)| report.id()).collect();

        let (mut members, mut strangers) = (Vec::new(), Vec::new());
        for (peer, report) in answered.iter().copied() {
            let mark = Mark::parse(&report.name);
            let adoptable = || {
                let mut island = answered.iter().filter(|(_, other)| ties.together(other.id(), report.id()));
                !standing && island.all(|(_, other)| knows_only(other, &observed))
            };
            let stranger = match &mark {
                _ if marked(&mark) => None,
                Some(mark) => Some(StrangerKind::Marked(mark.cluster.clone())),
                None if !report.name.is_empty() => Some(StrangerKind::Named(report.name.clone())),
                None if roots_of_ours.contains(&ties.root(report.id())) => None,
                None if is_lone(report) && serves && observation.newcomers.contains(&report.id()) => {
                    Some(StrangerKind::Newcomer)
                }
                None if is_lone(report) || adoptable() => None,
                None => Some(StrangerKind::Unmarked),
            };
            match stranger {
                Some(kind) => strangers.push(Stranger { node: peer.label(), kind }),
                None => members.push(Member {
                    report,
                    address: peer.address,
                    pod: mark.as_ref().and_then(|mark| mark.pod.clone()).or_else(|| peer.pod.clone()),
                    mark,
                }),
            }
        }
        settle_names(&mut members, observation);
        let islands = match strangers.is_empty() {
            true => ties,
            false => Islands::of(members.iter().map(|member| member.report)),
        };
        let mut membership = Self::assemble(members, strangers, islands, cluster);
        membership.silent = observation
            .peers
            .iter()
            .filter_map(|peer| Some((peer, peer.answer.as_ref().err()?)))
            .filter(|(peer, _)| peer.pod.as_ref().is_none_or(|pod| !membership.has(pod)))
            .map(|(peer, why)| (peer.label(), why))
            .collect();
        membership
    }

    fn assemble(mut members: Vec<Member<'a>>, strangers: Vec<Stranger>, islands: Islands, cluster: &ClusterId) -> Self {
        members.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut by_id: Vec<_> = members.iter().enumerate().map(|(place, member)| (member.id(), place)).collect();
        by_id.sort_unstable();
        let absent = absent(&members, islands.hearsays());
        Self { members, strangers, silent: Vec::new(), islands, absent, by_id, cluster: cluster.clone() }
    }

    /// Without those that know nobody and carry no mark.
    pub(super) fn of_proven(&self) -> Self {
        let is_proven = |member: &&Member<'_>| member.mark.is_some() || !member.is_blank();
        let members: Vec<_> = self.members.iter().filter(is_proven).cloned().collect();
        let islands = match members.len() == self.members.len() {
            true => self.islands.clone(),
            false => Islands::of(members.iter().map(|member| member.report)),
        };
        Self::assemble(members, self.strangers.clone(), islands, &self.cluster)
    }

    /// Whether a member runs in this pod.
    pub fn has(&self, pod: &PodName) -> bool {
        self.members.iter().any(|member| member.pod.as_ref() == Some(pod))
    }

    /// The member of this id.
    pub fn get(&self, id: NodeId) -> Option<&Member<'a>> {
        self.members.get(self.place_of(id)?)
    }

    /// The place of the member of this id.
    pub fn place_of(&self, id: NodeId) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.by_id.get(found).map(|(_, place)| *place)
    }

    /// The views of the members in their order, but for most that say the same as a later one.
    pub fn opinions(&self) -> Vec<&'a View> {
        let mut heard: Vec<(&View, ())> = Vec::new();
        for member in self.members.iter().rev() {
            let view = &member.report.view;
            if alike(&heard, |other| other.says_the_same(view)).is_none() {
                heard.push((view, ()));
            }
        }
        heard.into_iter().rev().map(|(view, ())| view).collect()
    }

    /// Each line about a member in a view, beside its place among the members.
    pub fn beside<'m>(&'m self, view: &'m View) -> impl Iterator<Item = (&'m NodeEntry, usize)> {
        let lines = view.beside(&self.by_id, |(id, _)| *id);
        lines.filter_map(|(entry, found)| Some((entry, self.by_id.get(found?)?.1)))
    }
}

impl Member<'_> {
    /// Its node id.
    pub fn id(&self) -> NodeId {
        self.report.id()
    }

    /// Its pod's ordinal.
    pub fn ordinal(&self) -> Option<u32> {
        self.pod.as_ref()?.ordinal()
    }

    /// Where it runs, as its mark says.
    pub fn site(&self) -> Site {
        self.mark.as_ref().map(|mark| mark.site.clone()).unwrap_or_default()
    }

    /// How people are told of it.
    pub fn label(&self) -> Label {
        Label { pod: self.pod.clone(), address: self.address }
    }

    /// Whether it knows nobody and has neither slots nor keys.
    pub fn is_blank(&self) -> bool {
        is_blank(self.report)
    }

    /// Members sort by ordinal, then by name, then by id: an order that a new address does not change.
    fn rank(&self) -> (u32, Option<&PodName>, NodeId) {
        (self.ordinal().unwrap_or(u32::MAX), self.pod.as_ref(), self.id())
    }
}

impl Peer {
    /// How people are told of it.
    pub fn label(&self) -> Label {
        Label { pod: self.pod.clone(), address: self.address }
    }
}

/// The reports, a node once: DNS may name one node at several addresses or for several pods. The address that the node
/// itself announces comes first, then the first one asked.
fn once_each(observation: &Observation) -> Vec<(&Peer, &NodeReport)> {
    let mut chosen: BTreeMap<NodeId, (&Peer, &NodeReport)> = BTreeMap::new();
    for (peer, report) in observation.reports() {
        let announced = report.myself().ip == Some(peer.address.ip());
        match chosen.get(&report.id()) {
            Some(_) if !announced => {}
            Some((other, _)) if report.myself().ip == Some(other.address.ip()) => {}
            _ => {
                chosen.insert(report.id(), (peer, report));
            }
        }
    }
    chosen.into_values().collect()
}

fn is_lone(report: &NodeReport) -> bool {
    report.view.others().next().is_none()
}

fn is_blank(report: &NodeReport) -> bool {
    report.keys == 0 && report.myself().slots.is_empty() && is_lone(report)
}

/// Whether everybody alive in the node's view was found by our own discovery.
fn knows_only(report: &NodeReport, observed: &BTreeSet<NodeId>) -> bool {
    report
        .view
        .others()
        .all(|other| observed.contains(&other.id) || other.flags.failed || (other.is_lost() && other.slots.is_empty()))
}

/// Where two members claim one pod name, DNS decides for both.
fn settle_names(members: &mut [Member<'_>], observation: &Observation) {
    let mut claims: BTreeMap<PodName, usize> = BTreeMap::new();
    for pod in members.iter().filter_map(|member| member.pod.clone()) {
        *claims.entry(pod).or_default() += 1;
    }
    for member in members {
        if member.pod.as_ref().is_some_and(|pod| claims.get(pod) != Some(&1)) {
            member.pod =
                observation.peers.iter().find(|peer| peer.address == member.address).and_then(|peer| peer.pod.clone());
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => pod.fmt(f),
            None => self.address.fmt(f),
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            StrangerKind::Marked(cluster) => {
                write!(f, "the server at {} belongs to the cluster {cluster}", self.node.address)
            }
            StrangerKind::Named(name) => write!(f, "the server at {} calls itself {name:?}", self.node.address),
            StrangerKind::Newcomer => {
                write!(
                    f,
                    "the server at {} carries no mark and has just appeared: DNS may be behind",
                    self.node.address
                )
            }
            StrangerKind::Unmarked => {
                write!(f, "the server at {} is a member of a cluster that does not carry our mark", self.node.address)
            }
        }
    }
}
