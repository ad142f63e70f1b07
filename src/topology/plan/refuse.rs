//! What makes it unsafe to go on.

use std::collections::BTreeMap;

use super::slots::{claimed, owns_slots};
use crate::topology::desired::DesiredTopology;
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::node::{Endpoint, NodeId};
use crate::topology::refusal::Refusal;
use crate::topology::slot::SlotSet;
use crate::topology::version::Version;

/// The gravest reason to refuse, if there is any.
pub(super) fn check(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    let missing = desired.shape.members().saturating_sub(membership.members.len());
    old_server(membership)
        .or_else(|| data_without_nodes_conf(membership, desired))
        .or_else(|| two_islands(membership))
        .or_else(|| data_without_slots(membership))
        .or_else(|| match missing {
            0 => lost_slots(membership).or_else(|| other_shape(membership, desired)),
            _ => membership.strangers.first().cloned().map(Refusal::Foreign),
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

/// Slots that no member claims and that some view gives to a node that is not here, by owner.
fn lost_slots(membership: &Membership<'_>) -> Option<Refusal> {
    let claimed = claimed(membership);
    let mut lost: BTreeMap<NodeId, (SlotSet, Option<Endpoint>)> = BTreeMap::new();
    for entry in membership.members.iter().flat_map(|member| member.report.view.entries()) {
        if entry.slots.is_empty() || membership.get(entry.id).is_some() {
            continue;
        }
        let slots = entry.slot_set().without(&claimed);
        if !slots.is_empty() {
            lost.entry(entry.id).or_insert((SlotSet::EMPTY, entry.endpoint())).0.add(&slots);
        }
    }
    let (owner, (slots, endpoint)) = lost.into_iter().next()?;
    Some(Refusal::LostSlots { slots: Box::new(slots), owner, endpoint })
}

fn other_shape(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Refusal> {
    let (present, shape) = (membership.members.len(), desired.shape);
    if present > shape.members() {
        return Some(Refusal::TooManyMembers { present, shape });
    }
    let primaries = membership.members.iter().filter(|member| owns_slots(member)).count();
    let shards = usize::from(shape.shards.get());
    let too_few = primaries < shards && claimed(membership) == SlotSet::ALL;
    (primaries > shards || too_few).then_some(Refusal::OtherShards { primaries, shape })
}
