//! How the cluster is doing: what `status` shows and `doctor` explains.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::desired::{Shape, count};
use super::identity::{ClusterId, PodName};
use super::membership::{Label, Member, Membership};
use super::node::{NodeId, Role};
use super::observation::{Observation, Silence};
use super::slot::{SLOT_COUNT, SlotSet};

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
    let nodes = nodes(&membership);
    let mut served = SlotSet::EMPTY;
    for node in &nodes {
        served.add(&node.slots);
    }
    let mut findings: Vec<Finding> = absences(observation, &membership)
        .chain(coverage(&served))
        .chain(replication(&nodes))
        .chain(shape.into_iter().flat_map(|shape| differences(&nodes, shape)))
        .chain(views(&membership))
        .chain(notes(observation, &membership))
        .collect();
    findings.sort_by_key(|finding| finding.grade);
    Health { cluster: cluster.clone(), findings, nodes, slots_served: served.len() }
}

fn nodes(membership: &Membership<'_>) -> Vec<NodeHealth> {
    let mut primaries: Vec<_> = membership
        .members
        .iter()
        .filter_map(|member| Some((member.report.myself().slot_set().ranges().first()?.first(), member)))
        .collect();
    primaries.sort_by_key(|(slot, member)| (*slot, member.id()));
    let shards: BTreeMap<NodeId, usize> =
        primaries.iter().enumerate().map(|(index, (_, member))| (member.id(), index)).collect();
    let mut nodes: Vec<_> = membership.members.iter().map(|member| node(member, &shards, membership)).collect();
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
    }
}

fn absences(observation: &Observation, membership: &Membership<'_>) -> impl Iterator<Item = Finding> {
    let nobody = membership.members.is_empty().then(|| {
        let trouble =
            observation.trouble.first().cloned().unwrap_or_else(|| "DNS named nobody that is ours".to_owned());
        degraded(
            "nobody",
            format!("no member of the cluster answers: {trouble}"),
            "check --service, --dns-server and whether the pods run",
        )
    });
    let silent: Vec<_> = membership.silent.iter().map(|(label, why)| silent(label, why)).collect();
    let unresolved: Vec<_> = observation
        .unresolved
        .iter()
        .filter(|pod| !membership.has(pod))
        .map(|pod| {
            degraded(
                "unresolved",
                format!("{pod} has no address in DNS"),
                "see whether the pod exists, and that its headless service has publishNotReadyAddresses: true",
            )
        })
        .collect();
    nobody.into_iter().chain(silent).chain(unresolved)
}

fn silent(label: &Label, why: &Silence) -> Finding {
    let remedy = match why {
        Silence::Refused | Silence::Unreachable(_) => "see whether the pod runs and what its log says",
        Silence::NotReady(_) => "wait: it loads its data or is busy; its log says how far it is",
        Silence::Denied(_) => "check --username, --password-file and VALKEY_PASSWORD against the server's",
        Silence::Unusable(_) => "see that it is a Valkey server with `cluster-enabled yes`",
    };
    let node = match label.pod {
        Some(_) => format!("{label} ({})", label.address),
        None => label.to_string(),
    };
    degraded("silent", format!("{node} {why}"), remedy)
}

fn coverage(served: &SlotSet) -> Option<Finding> {
    let missing = SlotSet::ALL.without(served);
    (!missing.is_empty()).then(|| {
        let what = match missing.len() == usize::from(SLOT_COUNT) {
            true => "no slot has a primary that answers".to_owned(),
            false => format!("{} without a primary that answers: {missing}", count(missing.len(), "slot")),
        };
        degraded(
            "slots",
            what,
            "bring the missing pods back; where the cluster was never formed, `valkeeper bootstrap`",
        )
    })
}

fn replication(nodes: &[NodeHealth]) -> Vec<Finding> {
    nodes
        .iter()
        .filter_map(|node| {
            let name = label(node);
            match node.link {
                Some(Link::Syncing) => Some(Finding {
                    // Of nothing, the copy is as good as made.
                    grade: if primary_keys(nodes, node) == 0 { Grade::Note } else { Grade::Degraded },
                    code: "syncing",
                    sentence: format!("{name} receives its first full copy"),
                    remedy: "wait until it has it".to_owned(),
                }),
                Some(Link::Down) => Some(degraded(
                    "link",
                    format!("{name} does not follow its primary"),
                    "see both logs: is the primary reachable from it, and do the passwords agree (masterauth)?",
                )),
                _ if node.shard.is_none() => Some(degraded(
                    "no-shard",
                    format!("{name} belongs to no shard"),
                    "`valkeeper bootstrap` finds it a place",
                )),
                _ if !node.ok => Some(degraded(
                    "not-ok",
                    format!("{name} says that the cluster is not ok"),
                    "wait a few seconds; if it stays so, the other findings say why",
                )),
                _ => None,
            }
        })
        .collect()
}

/// How many keys the primary of a replica holds; 0 where it is not known.
fn primary_keys(nodes: &[NodeHealth], replica: &NodeHealth) -> u64 {
    let primary = nodes.iter().find(|node| node.shard == replica.shard && node.role.is_primary());
    primary.map_or(0, |primary| primary.keys)
}

/// What differs from the shape.
fn differences(nodes: &[NodeHealth], shape: Shape) -> Vec<Finding> {
    let mut replicas: BTreeMap<usize, usize> = BTreeMap::new();
    for node in nodes {
        if let Some(shard) = node.shard {
            *replicas.entry(shard).or_default() += usize::from(!node.role.is_primary());
        }
    }
    let shards = usize::from(shape.shards.get());
    let wanted = usize::from(shape.replicas);
    let number = (replicas.len() != shards).then(|| {
        degraded(
            "shards",
            format!("there are {}, and {} were asked for", count(replicas.len(), "shard"), count(shards, "shard")),
            "say the number that stands, or let `valkeeper bootstrap` complete the cluster",
        )
    });
    let lacking = replicas.into_iter().filter(|(_, has)| *has < wanted).map(|(shard, has)| {
        let has = match has {
            0 => "no replica".to_owned(),
            has => format!("only {}", count(has, "replica")),
        };
        degraded(
            "replicas",
            format!("shard {shard} has {has}, {wanted} were asked for"),
            "bring the missing pods back, then `valkeeper bootstrap`",
        )
    });
    number.into_iter().chain(lacking).collect()
}

/// Whom members cannot reach.
fn views(membership: &Membership<'_>) -> Vec<Finding> {
    let members = &membership.members;
    let mut suspects: BTreeMap<Label, Vec<Label>> = BTreeMap::new();
    for from in members {
        for to in members {
            let cut = from.report.view.get(to.id()).is_some_and(|entry| entry.flags.suspected || entry.flags.failed);
            if cut {
                suspects.entry(to.label()).or_default().push(from.label());
            }
        }
    }
    suspects
        .into_iter()
        .map(|(node, by)| {
            let by: Vec<_> = by.iter().map(ToString::to_string).collect();
            degraded(
                "suspected",
                format!("{node} cannot be reached by {}", by.join(", ")),
                "look at the network between them: is the cluster bus port open?",
            )
        })
        .collect()
}

fn notes(observation: &Observation, membership: &Membership<'_>) -> Vec<Finding> {
    let mut notes = Vec::new();
    for member in &membership.members {
        if member.report.is_lowered() {
            notes.push(degraded(
                "forming",
                format!(
                    "{} still has the settings of a cluster that is being formed: it takes no writes",
                    member.label()
                ),
                "`valkeeper bootstrap` again: it goes on where it was stopped, and puts them back",
            ));
        }
        for moving in &member.report.myself().moving {
            notes.push(note(
                "moving",
                format!("{} has a slot on its way {moving}", member.label()),
                "if nobody moves slots now, `valkey-cli --cluster fix`",
            ));
        }
    }
    for stranger in &membership.strangers {
        notes.push(note("stranger", stranger.to_string(), "see why DNS leads there; nothing is done to it"));
    }
    let mut leftovers: BTreeMap<NodeId, usize> = BTreeMap::new();
    for other in membership.members.iter().flat_map(|member| member.report.view.others()) {
        let answers = membership.get(other.id).is_some();
        if !answers && (other.flags.failed || other.flags.without_address) {
            *leftovers.entry(other.id).or_default() += 1;
        }
    }
    for (id, views) in leftovers {
        notes.push(note(
            "leftover",
            format!("{} still know a node that is gone, {}", count(views, "node"), id.short()),
            format!("if it never comes back, `CLUSTER FORGET {id}` on every node within a minute"),
        ));
    }
    notes.extend(
        observation
            .trouble
            .iter()
            .map(|trouble| note("dns", trouble.clone(), "look at the DNS server, or name another with --dns-server")),
    );
    notes
}

fn label(node: &NodeHealth) -> Label {
    Label { pod: node.pod.clone(), address: node.address }
}

fn degraded(code: &'static str, sentence: String, remedy: impl Into<String>) -> Finding {
    Finding { grade: Grade::Degraded, code, sentence, remedy: remedy.into() }
}

fn note(code: &'static str, sentence: String, remedy: impl Into<String>) -> Finding {
    Finding { grade: Grade::Note, code, sentence, remedy: remedy.into() }
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
