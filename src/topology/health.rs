//! How the cluster is doing: what `status` shows and `doctor` explains.

mod findings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::decision::Decision;
use super::desired::{DesiredTopology, Policy, Shape};
use super::identity::{ClusterId, PodName};
use super::membership::{Member, Membership};
use super::node::{NodeId, Role};
use super::observation::Observation;
use super::plan::plan;
use super::slot::SlotSet;
use findings::{absences, certificates, coverage, differences, notes, refused, replication, saves, views, waiting};

/// A certificate that is valid for less than this should have been renewed by what looks after it.
pub const RENEWAL_IS_DUE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The cluster at a glance.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whose cluster it is.
    pub cluster: ClusterId,
    /// What is wrong, gravest first; notes last.
    pub findings: Vec<Finding>,
    /// Every member, by shard, the primary first.
    pub nodes: Vec<NodeHealth>,
    /// How many slots have a primary that answers.
    pub slots_served: usize,
    /// What would be done next to bring the cluster into the shape that was given.
    pub next: Option<Decision>,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What kind of thing it is: short, stable, for programs.
    pub code: &'static str,
    /// One sentence.
    pub sentence: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Part of the data cannot be used, or nothing protects it.
    Degraded,
    /// Nothing is wrong with the cluster.
    Note,
}

/// One member.
#[derive(Clone, Debug)]
pub struct NodeHealth {
    /// Its pod, where known.
    pub pod: Option<PodName>,
    /// Its id.
    pub id: NodeId,
    /// Where it answers.
    pub address: SocketAddr,
    /// Its shard: shards are numbered by their lowest slot, from 0; none for a node without one.
    pub shard: Option<usize>,
    /// What it says it is.
    pub role: Role,
    /// The slots it owns.
    pub slots: SlotSet,
    /// How many keys it holds.
    pub keys: u64,
    /// How many bytes it uses.
    pub memory: u64,
    /// How many bytes of the replication stream it is behind its primary; none for a primary.
    pub lag: Option<u64>,
    /// The state of its link to its primary; none for a primary.
    pub link: Option<Link>,
    /// Whether it says that the cluster is ok.
    pub ok: bool,
    /// For how long its certificate is still valid; none without TLS.
    pub certificate: Option<Duration>,
}

/// The state of a replica's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It follows its primary.
    Up,
    /// It receives its first full copy.
    Syncing,
    /// It does not follow its primary.
    Down,
}

impl Health {
    /// Whether anything is wrong.
    pub fn is_degraded(&self) -> bool {
        self.findings.iter().any(|finding| finding.grade == Grade::Degraded)
    }
}

/// Sums an observation up; checks the shape where one is given. Pure.
pub fn assess(observation: &Observation, cluster: &ClusterId, shape: Option<Shape>) -> Health {
    let membership = Membership::of(observation, cluster);
    let nodes = nodes(observation, &membership);
    let mut served = SlotSet::EMPTY;
    for node in &nodes {
        served.add(&node.slots);
    }
    let decide = |shape| plan(observation, &DesiredTopology { cluster: cluster.clone(), shape }, &Policy::FORM);
    let next = shape.map(decide);
    let standing = || Shape::standing(&membership).map(decide);
    let refused = next.clone().or_else(standing).and_then(|decision| refused(&decision));
    let mut findings: Vec<Finding> = refused
        .into_iter()
        .chain(absences(observation, &membership))
        .chain(coverage(&served))
        .chain(replication(&nodes))
        .chain(shape.into_iter().flat_map(|shape| differences(&nodes, shape)))
        .chain(views(&membership))
        .chain(saves(&membership))
        .chain(certificates(&nodes))
        .chain(notes(observation, &membership))
        .chain(next.as_ref().and_then(waiting))
        .collect();
    findings.sort_by_key(|finding| finding.grade);
    Health { cluster: cluster.clone(), findings, nodes, slots_served: served.len(), next }
}

fn nodes(observation: &Observation, membership: &Membership<'_>) -> Vec<NodeHealth> {
    let mut primaries: Vec<_> = membership
        .members
        .iter()
        .filter_map(|member| Some((member.report.myself().slot_set().ranges().first()?.first(), member)))
        .collect();
    primaries.sort_by_key(|(slot, member)| (*slot, member.id()));
    let shards: BTreeMap<NodeId, usize> =
        primaries.iter().enumerate().map(|(index, (_, member))| (member.id(), index)).collect();
    let health = |member: &Member<'_>| NodeHealth {
        certificate: observation.certificates.get(&member.address).copied(),
        ..node(member, &shards, membership)
    };
    let mut nodes: Vec<_> = membership.members.iter().map(health).collect();
    nodes.sort_by_key(|node| (node.shard.unwrap_or(usize::MAX), !node.role.is_primary()));
    nodes
}

fn node(member: &Member<'_>, shards: &BTreeMap<NodeId, usize>, membership: &Membership<'_>) -> NodeHealth {
    let report = member.report;
    let myself = report.myself();
    let primary = match myself.role {
        Role::Replica(Some(primary)) => Some(primary),
        _ => None,
    };
    let lag = primary
        .and_then(|primary| membership.get(primary))
        .map(|primary| primary.report.replication.offset.saturating_sub(report.replication.offset));
    NodeHealth {
        pod: member.pod.clone(),
        id: member.id(),
        address: member.address,
        shard: shards.get(&primary.unwrap_or(member.id())).copied(),
        role: myself.role,
        slots: myself.slot_set(),
        keys: report.keys,
        memory: report.used_memory,
        lag,
        link: report.replication.link.as_ref().map(|link| match link {
            link if link.up => Link::Up,
            link if link.syncing => Link::Syncing,
            _ => Link::Down,
        }),
        ok: report.cluster.ok,
        certificate: None,
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Syncing => "syncing",
            Self::Down => "down",
        })
    }
}
