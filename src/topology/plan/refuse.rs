//! What makes it unsafe to go on.

use std::collections::BTreeMap;

use super::slots::{claimed, contested, owns_slots};
use crate::topology::desired::DesiredTopology;
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::node::{Endpoint, NodeId, Role};
use crate::topology::refusal::Refusal;
use crate::topology::slot::SlotSet;
use crate::topology::version::Version;

/// The gravest reason to refuse, if there is any.
pub(super) fn check(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    let wanted = desired.shape.members();
    let is_complete = membership.members.len() >= wanted;
    // While somebody has not answered at all, a stranger may turn out to be tied to him.
    let all_answered = membership.members.len() + membership.strangers.len() >= wanted;
    old_server(membership)
        .or_else(|| data_without_nodes_conf(membership, desired))
        .or_else(|| two_islands(membership))
        .or_else(|| data_without_slots(membership))
        .or_else(|| is_complete.then(|| lost_slots(membership).or_else(|| other_shape(membership, desired)))?)
        .or_else(|| {
            (!is_complete && all_answered).then(|| membership.strangers.first().cloned().map(Refusal::Foreign))?
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

fn two_islands(membership: &Membership<'_>) -> Option<Refusal> {
    let mut islands: BTreeMap<NodeId, (Label, Box<SlotSet>)> = BTreeMap::new();
    for member in membership.members.iter().filter(|member| owns_slots(member)) {
        let (_, slots) = islands
            .entry(membership.islands.root(member.id()))
            .or_insert_with(|| (member.label(), Box::new(SlotSet::EMPTY)));
        slots.add(&member.report.myself().slot_set());
    }
    let mut islands = islands.into_values();
    Some(Refusal::TwoIslands { one: islands.next()?, other: islands.next()? })
}

fn data_without_slots(membership: &Membership<'_>) -> Option<Refusal> {
    let holds_only_keys = |member: &&Member<'_>| {
        member.report.myself().role.is_primary() && member.report.keys > 0 && !owns_slots(member)
    };
    membership
        .members
        .iter()
        .find(holds_only_keys)
        .map(|member| Refusal::DataWithoutSlots { node: member.label(), keys: member.report.keys })
}

/// Whether the node is a replica of this one and holds keys: a copy of its own, whoever claims the slots meanwhile.
fn holds_copy(member: &Member<'_>, primary: NodeId) -> bool {
    member.report.keys > 0 && member.report.myself().role == Role::Replica(Some(primary))
}

/// Slots that some view gives to a node that is not here, by owner: those that no member claims, and those of which a
/// member holds that node's copy.
fn lost_slots(membership: &Membership<'_>) -> Option<Refusal> {
    let claimed = claimed(membership);
    let mut lost: BTreeMap<NodeId, (SlotSet, Option<Endpoint>)> = BTreeMap::new();
    for from in &membership.members {
        for entry in from.report.view.entries() {
            if entry.slots.is_empty() || membership.get(entry.id).is_some() {
                continue;
            }
            let slots = match holds_copy(from, entry.id) {
                true => entry.slot_set(),
                false => entry.slot_set().without(&claimed),
            };
            if !slots.is_empty() {
                lost.entry(entry.id).or_insert((SlotSet::EMPTY, entry.endpoint())).0.add(&slots);
            }
        }
    }
    let (owner, (slots, endpoint)) = lost.into_iter().next()?;
    let copy = membership.members.iter().find(|member| holds_copy(member, owner)).map(Member::label);
    Some(Refusal::LostSlots { slots: Box::new(slots), owner, endpoint, copy })
}

fn other_shape(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    let (present, shape) = (membership.members.len(), desired.shape);
    if present > shape.members() {
        return Some(Refusal::TooManyMembers { present, shape });
    }
    let primaries = membership.members.iter().filter(|member| owns_slots(member)).count();
    let shards = usize::from(shape.shards.get());
    let too_few = primaries < shards && claimed(membership) == SlotSet::ALL;
    // Where two claim one slot, a primary of before a failover is back and has not heard of it yet.
    let too_many = primaries > shards && contested(membership).is_none();
    (too_many || too_few).then_some(Refusal::OtherShards { primaries, shape })
}
