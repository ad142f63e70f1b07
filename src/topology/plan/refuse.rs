//! What makes it unsafe to go on.

use std::collections::BTreeMap;

use super::slots::{claimed, contested, is_free, owns_slots, receivers};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Label, Member, Membership, Stranger, StrangerKind};
use crate::topology::node::{NodeId, Role};
use crate::topology::refusal::Refusal;
use crate::topology::slot::SlotSet;
use crate::topology::version::Version;

/// The gravest thing that makes any step unsafe but leading together again who knew each other.
pub(super) fn unsafe_to_go_on(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    old_server(membership)
        .or_else(|| data_without_nodes_conf(membership, desired))
        .or_else(|| two_islands(membership))
        .or_else(|| data_without_slots(membership))
}

/// Who is not ours answers where somebody is missing. While somebody has not answered at all, a stranger may turn out to
/// be tied to him; who has just appeared may be ours yet, and then nobody is missing.
pub(super) fn strangers(membership: &Membership<'_>, desired: &DesiredTopology, policy: &Policy) -> Option<Refusal> {
    if membership.members.len() + membership.strangers.len() < desired.shape.members() {
        return None;
    }
    let is_new = |stranger: &&Stranger| stranger.kind == StrangerKind::Newcomer;
    match membership.strangers.iter().find(|stranger| !is_new(stranger)) {
        Some(stranger) => Some(Refusal::Foreign(stranger.clone())),
        None => incomplete(membership, policy),
    }
}

/// A node that owns slots and knows the others, none of whom knows it: they have forgotten it, or it is of another time.
/// Whose slots they are is not for epochs to decide, as the loser's keys are deleted.
pub(super) fn stray(membership: &Membership<'_>) -> Option<Refusal> {
    membership.members.iter().filter(|member| owns_slots(member)).find_map(|owner| {
        let mut others = membership.members.iter().filter(|other| {
            let is_tied = membership.islands.together(owner.id(), other.id());
            other.id() != owner.id() && is_tied && other.report.view.others().next().is_some()
        });
        let is_alone = others.clone().next().is_none();
        let is_known = others.any(|other| other.report.view.get(owner.id()).is_some());
        (!is_alone && !is_known).then(|| Refusal::Stray {
            node: owner.label(),
            keys: owner.report.keys,
            slots: Box::new(owner.report.myself().slot_set()),
        })
    })
}

fn old_server(membership: &Membership<'_>) -> Option<Refusal> {
    membership.members.iter().find_map(|member| {
        let version = member.report.version.filter(|version| *version < Version::OLDEST)?;
        Some(Refusal::TooOld { node: member.label(), version })
    })
}

/// A lone node with keys is no cluster of one shard unless it owns everything.
fn data_without_nodes_conf(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    membership.members.iter().find_map(|member| {
        let slots = member.report.myself().slot_set();
        let lone = member.report.view.others().next().is_none() && desired.shape.members() > 1;
        let whole = slots == SlotSet::ALL;
        (lone && member.report.keys > 0 && owns_slots(member) && !whole).then(|| Refusal::DataWithoutNodesConf {
            node: member.label(),
            keys: member.report.keys,
            slots: Box::new(slots),
        })
    })
}

/// Also where the owner of the slots is not here, and only those that know it are.
fn two_islands(membership: &Membership<'_>) -> Option<Refusal> {
    let owners = membership.members.iter().filter(|member| owns_slots(member));
    let here = owners.map(|member| (member, member.report.myself().slot_set()));
    let away = membership.absent.values().filter(|absent| !absent.slots.is_empty()).filter_map(|absent| {
        let knowing = membership.members.get(*absent.known_by.first()?)?;
        Some((knowing, absent.slots.clone()))
    });
    let mut islands: BTreeMap<NodeId, (Label, Box<SlotSet>)> = BTreeMap::new();
    for (member, slots) in here.chain(away) {
        let island = islands.entry(membership.islands.root(member.id()));
        island.or_insert_with(|| (member.label(), Box::new(SlotSet::EMPTY))).1.add(&slots);
    }
    let mut islands = islands.into_values();
    Some(Refusal::TwoIslands { one: islands.next()?, other: islands.next()? })
}

/// Keys whose slots are still on their way belong where they are.
fn data_without_slots(membership: &Membership<'_>) -> Option<Refusal> {
    let receivers = receivers(membership);
    let holds_only_keys = |member: &&Member<'_>| {
        let is_primary = member.report.myself().role.is_primary();
        is_primary && member.report.keys > 0 && !owns_slots(member) && !receivers.contains(&member.id())
    };
    membership
        .members
        .iter()
        .find(holds_only_keys)
        .map(|member| Refusal::DataWithoutSlots { node: member.label(), keys: member.report.keys })
}

/// Whether the node is a replica of this one and holds keys: a copy of its own, whoever claims the slots meanwhile.
pub(super) fn holds_copy(member: &Member<'_>, primary: NodeId) -> bool {
    member.report.keys > 0 && member.report.myself().role == Role::Replica(Some(primary))
}

/// Everybody is here, and yet slots belong to a node that is not: those that no member claims, and those of which a member
/// holds that node's copy. Its data may be given up where nobody holds a copy.
pub(super) fn incomplete(membership: &Membership<'_>, policy: &Policy) -> Option<Refusal> {
    let claimed = claimed(membership);
    membership.absent.iter().filter(|(_, absent)| !absent.slots.is_empty()).find_map(|(owner, absent)| {
        let copy = membership.members.iter().find(|member| holds_copy(member, *owner)).map(Member::label);
        let slots = match &copy {
            Some(_) => absent.slots.clone(),
            None => absent.slots.without(&claimed),
        };
        let is_given_up = policy.give_up == Some(*owner) && copy.is_none();
        (!slots.is_empty() && !is_given_up).then(|| Refusal::LostSlots {
            slots: Box::new(slots),
            owner: *owner,
            endpoint: absent.endpoint,
            copy,
        })
    })
}

/// More members or fewer shards than asked for, or more shards than there are nodes to be their primaries. New shards
/// stand without slots until some are moved to them.
pub(super) fn other_shape(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    let (present, shape) = (membership.members.len(), desired.shape);
    if present > shape.members() {
        return Some(Refusal::TooManyMembers { present, shape });
    }
    let primaries = membership.members.iter().filter(|member| owns_slots(member)).count();
    let shards = usize::from(shape.shards.get());
    let receivers = receivers(membership);
    let is_spare = |member: &&Member<'_>| is_free(member) && !receivers.contains(&member.id());
    let to_be = receivers.len() + membership.members.iter().filter(is_spare).count();
    let too_few = primaries + to_be < shards && claimed(membership) == SlotSet::ALL;
    // Where two claim one slot, a primary of before a failover is back and has not heard of it yet.
    let too_many = primaries > shards && contested(membership).is_none();
    (too_many || too_few).then_some(Refusal::OtherShards { primaries, shape })
}
