//! What is wrong with a cluster, and what is worth knowing of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Finding, Grade, Link, NodeHealth, RENEWAL_IS_DUE};
use crate::topology::decision::{Blocker, Decision};
use crate::topology::desired::{Shape, count};
use crate::topology::membership::{Label, Membership};
use crate::topology::node::NodeId;
use crate::topology::observation::{Observation, Silence};
use crate::topology::slot::{SLOT_COUNT, SlotSet};

/// Why nobody would go on.
pub(super) fn refused(decision: &Decision) -> Option<Finding> {
    match decision {
        Decision::Refuse(refusal) => {
            Some(degraded("refused", format!("bootstrap and run refuse to go on: {refusal}"), refusal.remedy()))
        }
        _ => None,
    }
}

/// Whose certificate ends soon. One that has ended is only seen where nobody checks it.
pub(super) fn certificates(nodes: &[NodeHealth]) -> impl Iterator<Item = Finding> {
    const DAY: u64 = 24 * 3600;
    let soon =
        nodes.iter().filter_map(|node| Some((node, node.certificate?))).filter(|(_, left)| *left < RENEWAL_IS_DUE);
    soon.map(|(node, left)| {
        let name = label(node);
        let (grade, sentence) = match left {
            Duration::ZERO => (Grade::Degraded, format!("the certificate of {name} has expired")),
            _ => (Grade::Note, format!("the certificate of {name} expires in {} days", left.as_secs() / DAY)),
        };
        let remedy = "renew it: `run` has the server read its files anew as soon as they change";
        Finding { grade, code: "certificate", sentence, remedy: remedy.to_owned() }
    })
}

/// What bootstrap and run would wait for.
pub(super) fn waiting(decision: &Decision) -> Option<Finding> {
    match decision {
        Decision::Wait(blockers) => Some(note(
            "waiting",
            format!("bootstrap and run are {decision}"),
            blockers
                .iter()
                .find_map(Blocker::remedy)
                .unwrap_or("nothing, if it passes by itself; else the other findings say what to do"),
        )),
        _ => None,
    }
}

pub(super) fn absences(observation: &Observation, membership: &Membership<'_>) -> impl Iterator<Item = Finding> {
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
        Silence::Untrusted(_) => "check the certificate there, and here --tls-ca, --tls-cert and --tls-server-name",
        Silence::Unusable(_) => "see that it is a Valkey server with `cluster-enabled yes`",
    };
    let node = match label.pod {
        Some(_) => format!("{label} ({})", label.address),
        None => label.to_string(),
    };
    degraded("silent", format!("{node} {why}"), remedy)
}

pub(super) fn coverage(served: &SlotSet) -> Option<Finding> {
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

pub(super) fn replication(nodes: &[NodeHealth]) -> Vec<Finding> {
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
                    "`valkeeper run` finds it a place, or `valkeeper bootstrap`",
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
pub(super) fn differences(nodes: &[NodeHealth], shape: Shape) -> Vec<Finding> {
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
            "say the number that stands, or let `valkeeper run` or `valkeeper bootstrap` complete the cluster",
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
            "bring the missing pods back: `valkeeper run` gives them their places, or else `valkeeper bootstrap`",
        )
    });
    number.into_iter().chain(lacking).collect()
}

/// Whom members cannot reach.
pub(super) fn views(membership: &Membership<'_>) -> Vec<Finding> {
    let mut suspects: BTreeMap<Label, Vec<Label>> = BTreeMap::new();
    for from in &membership.members {
        let cut = from.report.view.lost().filter(|entry| entry.is_suspected());
        for to in cut.filter_map(|entry| membership.get(entry.id)) {
            suspects.entry(to.label()).or_default().push(from.label());
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

/// Who could not write its data to the disk.
pub(super) fn saves(membership: &Membership<'_>) -> impl Iterator<Item = Finding> {
    membership.members.iter().filter(|member| member.report.save_failed).map(|member| {
        degraded(
            "save",
            format!(
                "the last save of {} has failed: its data is not on disk, and it may refuse writes (MISCONF)",
                member.label()
            ),
            "see its log, and whether its volume is full or cannot be written to; the next save that succeeds ends it, \
             `BGSAVE` begins one",
        )
    })
}

pub(super) fn notes(observation: &Observation, membership: &Membership<'_>) -> Vec<Finding> {
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
                "if nobody moves slots now, `valkeeper rebalance` finishes them",
            ));
        }
    }
    for stranger in &membership.strangers {
        notes.push(note("stranger", stranger.to_string(), "see why DNS leads there; nothing is done to it"));
    }
    let mut leftovers: BTreeMap<NodeId, usize> = BTreeMap::new();
    for other in membership.members.iter().flat_map(|member| member.report.view.lost()) {
        let answers = membership.get(other.id).is_some();
        if !answers && (other.flags.failed || other.flags.without_address) {
            *leftovers.entry(other.id).or_default() += 1;
        }
    }
    for (id, views) in leftovers {
        notes.push(note(
            "leftover",
            format!("{} still know a node that is gone, {}", count(views, "node"), id.short()),
            format!(
                "bring it back, or a pod in its place: once every pod answers, `valkeeper run` has all forget it; without \
                 that, `CLUSTER FORGET {id}` on every node within a minute"
            ),
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
