//! Planners with a bug each.

use std::collections::BTreeSet;

use valkeeper::topology::{
    Action, Decision, Deed, DesiredTopology, Endpoint, Label, NodeId, NodeReport, Observation, Peer, Policy, Refusal,
    Role, SlotRange, Stage, StageKind, View, plan,
};

/// Gives slots to nodes that do not know each other yet, as `valkey-cli --cluster create` does.
pub(crate) fn slots_before_meet(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let decision = plan(observation, desired, policy);
    let Decision::Act(stage) = &decision else { return decision };
    let is_empty = observation.reports().all(|(_, report)| report.cluster.slots_assigned == 0 && report.keys == 0);
    if stage.kind != StageKind::Meet || !is_empty {
        return decision;
    }
    let shards = desired.shape.shards.get();
    let shares = (0..shards).filter_map(|shard| SlotRange::share(shard, shards));
    let actions = seen(observation).zip(shares);
    let actions = actions.map(|((peer, report), share)| act(peer, report, Deed::AddSlots(vec![share]))).collect();
    Decision::Act(Stage { kind: StageKind::Slots, actions })
}

/// Gives every slot that the nodes that are asked for it do not own, whatever anybody says of it.
pub(crate) fn slots_against_the_views(
    observation: &Observation,
    desired: &DesiredTopology,
    policy: &Policy,
) -> Decision {
    let blind = changed(observation, |report| {
        report.cluster.slots_assigned = 0;
        let entries = report.view.entries().iter().cloned().map(|mut entry| {
            entry.slots.clear();
            entry
        });
        if let Some(view) = View::new(entries.collect()) {
            report.view = view;
        }
    });
    plan(&blind, desired, policy)
}

/// Does not look at keys.
pub(crate) fn replicate_over_keys(observation: &Observation, desired: &DesiredTopology, _: &Policy) -> Decision {
    plan(&changed(observation, |report| report.keys = 0), desired, &Policy::KEEP)
}

/// Leaves settings lowered.
pub(crate) fn never_restore(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    match plan(observation, desired, policy) {
        Decision::Act(stage) if stage.kind == StageKind::Restore => Decision::Converged(desired.shape),
        decision => decision,
    }
}

/// Takes everybody that answers for one of ours.
pub(crate) fn meet_strangers(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let name = format!("{}/", desired.cluster);
    let decision = plan(observation, desired, policy);
    match decision {
        Decision::Refuse(Refusal::Foreign(_)) => {
            let mut peers = seen(observation);
            let greetings = peers.next().into_iter().flat_map(|(peer, report)| {
                let strangers = seen(observation).filter(|(_, other)| !other.name.starts_with(&name));
                strangers.map(move |(there, other)| act(peer, report, greeting(there, other)))
            });
            let actions: Vec<Action> = greetings.collect();
            Decision::Act(Stage { kind: StageKind::Meet, actions })
        }
        decision => decision,
    }
}

/// Sends a restore to whoever does not answer.
pub(crate) fn act_on_the_silent(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let silent = observation.peers.iter().find(|peer| peer.answer.is_err());
    match (silent, seen(observation).next()) {
        (Some(silent), Some((_, report))) => {
            let actions = vec![act(silent, report, Deed::SetEpoch(1))];
            Decision::Act(Stage { kind: StageKind::Epochs, actions })
        }
        _ => plan(observation, desired, policy),
    }
}

/// Joins two clusters instead of refusing.
pub(crate) fn merge_islands(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    match plan(observation, desired, policy) {
        Decision::Refuse(Refusal::TwoIslands { one, other }) => {
            let at = |label: &Label| seen(observation).find(|(peer, _)| peer.address == label.address);
            let pair = at(&one.0).zip(at(&other.0));
            let actions = pair.map(|((peer, report), (there, to))| act(peer, report, greeting(there, to)));
            Decision::Act(Stage { kind: StageKind::Meet, actions: actions.into_iter().collect() })
        }
        decision => decision,
    }
}

/// Forgets whoever does not answer at the moment.
pub(crate) fn forget_too_early(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let here: BTreeSet<NodeId> = seen(observation).map(|(_, report)| report.id()).collect();
    let name = format!("{}/", desired.cluster);
    let ours = seen(observation).filter(|(_, report)| report.name.starts_with(&name));
    let actions = ours.flat_map(|(peer, report)| {
        let gone = report.view.others().filter(|other| !here.contains(&other.id) && other.slots.is_empty());
        gone.map(move |other| act(peer, report, Deed::Forget(other.id)))
    });
    match actions.collect::<Vec<_>>() {
        actions if actions.is_empty() => plan(observation, desired, policy),
        actions => Decision::Act(Stage { kind: StageKind::Forget, actions }),
    }
}

/// Gives replicas of primaries that do not answer to one that does.
pub(crate) fn fill_gaps_anywhere(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let here: BTreeSet<NodeId> = seen(observation).map(|(_, report)| report.id()).collect();
    let primary = seen(observation).map(|(_, report)| report).find(|report| report.myself().owns_slots());
    let orphans = seen(observation)
        .filter(|(_, report)| matches!(report.myself().role, Role::Replica(Some(primary)) if !here.contains(&primary)));
    let actions = orphans.zip(primary.into_iter().cycle());
    let actions = actions.map(|((peer, report), primary)| act(peer, report, Deed::Replicate(primary.id())));
    match actions.collect::<Vec<_>>() {
        actions if actions.is_empty() => plan(observation, desired, policy),
        actions => Decision::Act(Stage { kind: StageKind::Replicate, actions }),
    }
}

/// Who answered, each once.
fn seen(observation: &Observation) -> impl Iterator<Item = (&Peer, &NodeReport)> {
    let mut known = BTreeSet::new();
    observation.reports().filter(move |(_, report)| known.insert(report.id()))
}

fn act(peer: &Peer, report: &NodeReport, deed: Deed) -> Action {
    Action { on: report.id(), label: peer.label(), address: peer.address, deed }
}

fn greeting(there: &Peer, other: &NodeReport) -> Deed {
    let (ip, port) = (there.address.ip(), there.address.port());
    Deed::Meet(other.id(), Endpoint { ip, port, bus_port: other.myself().bus_port })
}

fn changed(observation: &Observation, change: impl Fn(&mut NodeReport)) -> Observation {
    let mut observation = observation.clone();
    for report in observation.peers.iter_mut().filter_map(|peer| peer.answer.as_mut().ok()) {
        change(report);
    }
    observation
}
